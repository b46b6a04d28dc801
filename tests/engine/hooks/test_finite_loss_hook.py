"""A loss that is not finite stops the run, and nothing of it is kept."""
import logging
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.registry import HOOKS
from mmseg.registry import RUNNERS

from mmseg_hrhf.engine.hooks.training import FiniteLossHook, has_fallen
from mmseg_hrhf.utils.errors import UserError
from mmseg_hrhf.work_dir.checkpoint import load_checkpoint


@pytest.fixture
def runner():
    return SimpleNamespace(message_hub=MessageHub('finite'), iter=41, work_dir='runs/step_2/train')


def after(runner, **losses):
    runner.message_hub.update_scalars({f'train/{name}': value for name, value in losses.items()})
    FiniteLossHook(step=2).after_train_iter(runner, 0, outputs=losses)


def test_finite_losses_go_on(runner):
    after(runner, loss=2.0, **{'decode.loss_ce': 2.0})


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_step_iteration_and_term_are_named(runner, value):
    with pytest.raises(UserError) as error:
        after(runner, loss=value, loss_kd=value, **{'decode.loss_ce': 1.0})
    assert str(error.value).startswith(f'Step 2, iteration 42: loss_kd={value} is not finite')
    assert 'loss_ce' not in str(error.value) and 'runs/step_2/train' in str(error.value)


def test_a_sum_alone_that_overflows_is_named(runner):
    with pytest.raises(UserError, match=r'iteration 42: loss=inf is not finite'):
        after(runner, loss=math.inf, loss_kd=1e38, loss_ce=3e38)


def test_what_is_no_loss_may_be_anything(runner):
    after(runner, loss=1.0, **{'decode.acc_seg': math.nan})


def test_an_iteration_without_output(runner):
    FiniteLossHook(step=2).after_train_iter(runner, 0)


def test_no_device_is_waited_for():
    """Numbers come from the message hub, where mmengine has put them; the tensors are not touched."""

    class Untouchable:

        def __getattr__(self, name):
            pytest.fail(f'{name} of a loss was asked for')

    hub = MessageHub('untouched')
    hub.update_scalar('train/loss', 1.0)
    FiniteLossHook(0).after_train_iter(SimpleNamespace(message_hub=hub, iter=0, work_dir=''), 0,
                                       outputs=dict(loss=Untouchable()))


@pytest.mark.skipif(not hasattr(torch.amp, 'GradScaler'), reason='scaling on a CPU needs torch 2.3')
def test_gradients_that_overflow_are_the_scalers(runner):
    """A loss that is finite until it is scaled: the scaler skips the update and lowers its scale, and none stops."""
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer, scaler = torch.optim.SGD([weight], lr=1.0), torch.amp.GradScaler('cpu', init_scale=2.0**127)
    loss = (8 * weight).sum()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert weight.grad.isinf().all() and weight.item() == 1 and scaler.get_scale() == 2.0**126
    after(runner, loss=loss.detach())


@HOOKS.register_module()
class Spoil(Hook):
    """Makes a term of the loss, or the weights, infinite at an iteration."""

    def __init__(self, iteration, what):
        self.iteration, self.what = iteration, what

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 != self.iteration:
            return
        if self.what == 'loss':
            runner.model.student.decode_head.loss_decode.loss_weight = math.inf
        for group in runner.optim_wrapper.param_groups if self.what == 'weights' else ():
            group['lr'] = math.inf


@pytest.mark.parametrize('what, iteration, named', [('loss', 4, 4), ('weights', 4, 5)])
def test_a_run_stops_and_keeps_its_last_good_state(tiny_iter_config, what, iteration, named):
    cfg = tiny_iter_config
    cfg.custom_hooks = [dict(type='Spoil', iteration=iteration, what=what)]
    cfg.default_hooks.checkpoint.interval = 1
    with pytest.raises(UserError, match=rf'^Step 0, iteration {named}: decode\.loss_ce=.* is not finite'):
        RUNNERS.build(cfg).train()
    train = Path(cfg.work_dir) / 'step_0' / 'train'
    assert not (train.parent / 'result.json').exists()
    resume = load_checkpoint(train / 'resume.pth')
    assert resume['meta']['iter'] == 3
    assert all(tensor.isfinite().all() for tensor in resume['state_dict'].values())


# -- a loss that does not fall ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('losses, expected', [
    ([2.0] * 20 + [1.9] * 180, True),
    ([2.0] * 20 + [5.7] * 80, False),
    ([2.0] * 100, False),
    ([2.0, 1.0] * 10 + [3.0] * 160 + [1.4] * 60, True),
    ([1.0] * 10 + [5.0] * 69, True),
], ids=['falls', 'rises', 'stays', 'falls at last', 'too short'])
def test_the_last_losses_are_compared_with_the_first(losses, expected):
    assert has_fallen(np.array(losses)) is expected


def test_a_noisy_loss_that_falls_has_fallen():
    rng = np.random.default_rng(0)
    for number in (80, 100, 400):
        falling = np.linspace(1, 0.8, number) + rng.normal(0, 0.3, (200, number))
        assert np.mean([has_fallen(losses) for losses in falling]) > 0.97


@pytest.mark.parametrize('losses, before, told', [
    ([2.0] * 20 + [5.7] * 80, 0, 1),
    ([5.7] * 20 + [2.0] * 80, 0, 0),
    ([2.0] * 20 + [5.7] * 80, 50, 0),
], ids=['rises', 'falls', 'resumed'])
def test_a_loss_that_has_not_fallen_is_logged_once(caplog, losses, before, told):
    runner = SimpleNamespace(message_hub=MessageHub(f'fallen {before} {told}'), iter=before,
                             logger=logging.getLogger('fallen'))
    hook = FiniteLossHook(step=2)
    for loss in losses:
        runner.message_hub.update_scalar('train/loss', loss)
        hook.after_train_iter(runner, 0, outputs=dict(loss=loss))
        runner.iter += 1
    hook.after_train(runner)
    said = [record.message for record in caplog.records if 'The loss of step 2 is no lower' in record.message]
    assert len(said) == told and all('clip_grad' in message for message in said)


def test_a_step_without_iterations_says_nothing(caplog):
    runner = SimpleNamespace(message_hub=MessageHub('no iterations'), iter=0, logger=logging.getLogger('fallen'))
    FiniteLossHook(step=2).after_train(runner)
    assert not caplog.records
