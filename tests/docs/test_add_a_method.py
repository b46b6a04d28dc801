"""The examples of docs/add_a_method.md run."""
import re

import pytest
import torch
from mmseg.registry import MODELS, TASK_UTILS

from mmseg_hrhf.engine.runner import IncrementalRunner
from mmseg_hrhf.models.segmentors import HRHF
from mmseg_hrhf.replay import FakeImageBuffer


@pytest.fixture
def examples(repo):
    """The page's classes by name, registered until the end of the test."""
    page, found = (repo / 'docs/add_a_method.md').read_text(), {}
    for code in re.findall(r'```python\n(.*?)```', page, re.DOTALL):
        if 'register_module' in code:
            exec(code, found := {**found, '__name__': 'examples'})
    names = re.findall(r'^@\w+\.register_module\(\)\nclass (\w+)', page, re.MULTILINE)
    yield {name: found[name] for name in names}
    for name in names:
        for registry in (MODELS, TASK_UTILS):
            registry.module_dict.pop(name, None)


def test_the_examples_train_together(examples, tiny_config, tmp_path, monkeypatch):
    assert set(examples) == {'ConfidentHRHF', 'TemperedLoss', 'GreySquares'}
    calls, forward = [], examples['TemperedLoss'].forward
    monkeypatch.setattr(examples['TemperedLoss'], 'forward', lambda self, student, teacher: (
        calls.append((self.temperature, student.shape, teacher.shape)), forward(self, student, teacher))[1])
    cfg = tiny_config
    cfg.method = dict(type='ConfidentHRHF', threshold=0.5, loss_kd=dict(type='TemperedLoss', temperature=4.0))
    cfg.replay.inversion = dict(type='GreySquares', brightness=50)
    cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = 1
    cfg.param_scheduler[0].end = 1
    results = IncrementalRunner(cfg).train()
    assert [result['step'] for result in results] == [0, 1]
    assert results[1]['num_fake_images'] == 4
    state = torch.load(tmp_path / 'work/step_1/checkpoint.pth', weights_only=True)['state_dict']
    assert state['decode_head.conv_seg.weight'].shape[0] == 4
    temperature, student, teacher = calls[-1]
    assert temperature == 4.0 and student[1] == 4 and teacher[1] == 3 and student[2:] == teacher[2:]
    buffer = FakeImageBuffer(tmp_path / 'work/step_1/fakes', 4)
    assert len(buffer.records()) == 4
    for i, record in enumerate(buffer.records()):
        image = buffer.load(i)
        assert (image[:4] == 50 * record['classes'][0]).all() and not image[4:].any()


def test_the_tempered_loss_is_eq_3_at_a_temperature(examples):
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 4, 5, 6), torch.randn(2, 3, 5, 6)
    loss = HRHF.build_loss('loss_kd', dict(type='TemperedLoss', temperature=4.0, loss_weight=3.0))
    p, q = (student.double() / 4).softmax(1), (teacher.double() / 4).softmax(1)
    folded = torch.stack([p[:, 0] + p[:, 3], p[:, 1], p[:, 2]], dim=1)
    expected = -3 * 16 * (q * folded.log()).sum(1).mean()
    assert loss(student, teacher).item() == pytest.approx(expected.item(), rel=1e-5)
