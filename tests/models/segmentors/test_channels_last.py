"""The order of memory changes no loss and no gradient."""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import RUNNERS

from mmseg_hrhf.engine import plan as run_plan
from mmseg_hrhf.work_dir.checkpoint import load_checkpoint

SYSTEMS = ['FineTuning', 'LwF', 'LwFMC', 'ILT', 'MiB', 'PLOP', 'HRHF']


def in_channels_last(module):
    weights = [p for p in module.parameters() if p.ndim == 4 and p.shape[2:] != (1, 1)]
    return weights and all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)


@pytest.mark.parametrize('kind', SYSTEMS)
def test_losses_and_gradients_are_those_of_the_usual_order(kind, build_system, make_batch):
    inputs, samples = make_batch([0, 3, 4, 255])
    found = []
    for channels_last in (False, True):
        torch.manual_seed(0)
        model = build_system(kind, channels_last=channels_last).double().train()
        if kind == 'PLOP':
            model.thresholds = torch.full((3, ), 0.6)
        losses = model.loss(inputs.double(), samples)
        total = sum(value for name, value in losses.items() if 'loss' in name)
        total.backward()
        found.append((losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
        assert bool(in_channels_last(model.student)) == channels_last
        if model.teacher is not None:
            assert bool(in_channels_last(model.teacher)) == channels_last
    (losses, gradients), (other_losses, other_gradients) = found
    assert losses.keys() == other_losses.keys() and gradients.keys() == other_gradients.keys() and len(gradients) > 20
    for name, loss in losses.items():
        torch.testing.assert_close(other_losses[name], loss, rtol=1e-9, atol=1e-9)
    for name, gradient in gradients.items():
        torch.testing.assert_close(other_gradients[name], gradient, rtol=1e-7, atol=1e-9, msg=name)


def test_a_run_of_an_epoch_ends_with_the_weights_of_the_usual_order(tiny_config, tmp_path):
    found = []
    # Fewer channels are refused: oneDNN's gradient of a strided 1x1 convolution's weights needs a block of them.
    tiny_config.model.backbone.base_channels = tiny_config.model.backbone.stem_channels = 16
    tiny_config.model.decode_head.in_channels = [16, 32, 64]
    for name, channels_last in (('usual', None), ('channels_last', True)):
        cfg = Config(dict(tiny_config._cfg_dict.to_dict(), work_dir=str(tmp_path / name), channels_last=channels_last))
        cfg.only_step, cfg.train_cfg.max_epochs = 0, 1
        RUNNERS.build(cfg).train()
        found.append(load_checkpoint(Path(cfg.work_dir) / 'step_0/checkpoint.pth')['state_dict'])
    usual, other = found
    assert usual.keys() == other.keys()
    for name, weight in usual.items():
        assert other[name].is_contiguous()
        torch.testing.assert_close(other[name], weight, rtol=1e-3, atol=1e-4, msg=name)
    cfg.only_step = None
    results = RUNNERS.build(cfg).train()
    assert len(results) == 2


def test_what_onednn_computes_wrongly_is_refused_on_a_cpu(tiny_config, monkeypatch):
    tiny_config.channels_last = True
    monkeypatch.setattr(run_plan, 'get_device', lambda: 'cpu')
    with pytest.raises(ValueError, match=r'backbone\.layer2\.0\.downsample\.0 is a 1x1 convolution with 4 channels and '
                                         r'stride \(2, 2\);.* oneDNN writes .*remove channels_last'):
        RUNNERS.build(tiny_config)
    monkeypatch.setattr(run_plan, 'get_device', lambda: 'cuda')
    RUNNERS.build(tiny_config)
