"""Training under autocast, as ``--amp`` does it on a GPU: every system's losses, with and without a loss scale."""
import contextlib
import inspect

import pytest
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmseg.registry import RUNNERS

from mmseg_hrhf.config.load import enable_amp
from mmseg_hrhf.work_dir.checkpoint import load_checkpoint

pytestmark = pytest.mark.skipif(not hasattr(torch.amp, 'GradScaler'), reason='scaling on a CPU needs torch 2.3')


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(AmpOptimWrapper):
    """mmengine's, which refuses to be made without a GPU, on a CPU."""

    def __init__(self, dtype, **kwargs):
        OptimWrapper.__init__(self, **kwargs)
        self.cast_dtype = getattr(torch, dtype)
        self._scale_update_param = None
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=2.0**10)

    @contextlib.contextmanager
    def optim_context(self, model):
        with OptimWrapper.optim_context(self, model), torch.autocast('cpu', dtype=self.cast_dtype):
            yield


def weights(cfg, folder, **optim_wrapper):
    """Weights after both steps of a run, without the classifier, as one vector for each step."""
    cfg.work_dir = str(folder)
    cfg.optim_wrapper = dict(cfg.optim_wrapper, **optim_wrapper)
    results = RUNNERS.build(cfg).train()
    assert len(results) == 2
    states = [load_checkpoint(folder / f'step_{step}' / 'checkpoint.pth')['state_dict'] for step in (0, 1)]
    assert all(value.dtype != torch.float16 and value.dtype != torch.bfloat16
               for state in states for value in state.values())
    kept = [name for name in sorted(states[0]) if 'conv_seg' not in name and name.endswith(('.weight', '.bias'))]
    return [torch.cat([state[name].double().flatten() for name in kept]) for state in states]


@pytest.mark.parametrize('dtype, method', [
    ('bfloat16', 'HRHF'), ('float16', 'HRHF'), ('bfloat16', 'MiB'), ('float16', 'PLOP'), ('float16', 'LwF'),
    ('bfloat16', 'LwFMC'), ('float16', 'ILT'), ('float16', 'EWC'),
    ('float16', 'DKD'),
])
def test_close_to_full_precision(tiny_iter_config, tmp_path, dtype, method):
    cfg = tiny_iter_config
    cfg.optim_wrapper.optimizer.lr = 0.01  # with 0.2 the heavier losses diverge, and rounding with them
    cfg.method = dict(type=method)
    if method != 'HRHF':
        cfg.replay = None
    full = weights(cfg.copy(), tmp_path / 'full')
    half = weights(cfg.copy(), tmp_path / 'half', type='CpuAmpOptimWrapper', dtype=dtype)
    learnt = (full[1] - full[0]).norm()
    assert 0 < (half[1] - full[1]).norm() < 0.3 * learnt


@pytest.mark.parametrize('capability, asked, wanted', [((9, 0), None, 'bfloat16'), ((7, 5), None, None),
                                                       ((9, 0), 'float16', 'float16')])
def test_amp_is_bfloat16_where_the_gpu_computes_it(tiny_config, monkeypatch, capability, asked, wanted):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda: capability)
    if asked:
        tiny_config.optim_wrapper.dtype = asked
    enable_amp(tiny_config)
    assert tiny_config.optim_wrapper.type == 'AmpOptimWrapper' and tiny_config.optim_wrapper.get('dtype') == wanted
    assert {'dtype', 'loss_scale'} <= set(inspect.signature(AmpOptimWrapper.__init__).parameters)
