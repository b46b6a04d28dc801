import copy

from mmengine.config import Config

from mmseg_hrhf.config.load import TextOnceConfig

CONTENT = dict(model=dict(type='A', sizes=(1, 2)), names=['a', 'b'], lr=0.1)


def test_the_text_is_mmengine_s_and_laid_out_once_while_nothing_changes(monkeypatch):
    expected, calls, own = Config(CONTENT).pretty_text, [], Config.pretty_text.fget
    monkeypatch.setattr(Config, 'pretty_text', property(lambda self: (calls.append(1), own(self))[1]))
    cfg = TextOnceConfig(CONTENT)
    assert cfg.pretty_text == expected
    assert copy.deepcopy(cfg).pretty_text == expected and len(calls) == 1
    cfg.model.sizes = (3, 4)
    assert cfg.pretty_text == Config(dict(CONTENT, model=dict(type='A', sizes=(3, 4)))).pretty_text
