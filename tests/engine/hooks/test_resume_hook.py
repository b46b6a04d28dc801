from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmseg_hrhf.engine.hooks.resume import ResumeHook
from mmseg_hrhf.work_dir.layout import resume_point


class Runner(SimpleNamespace):
    """What the hook looks at of mmengine's Runner."""

    def __init__(self, folder, accumulative_counts=1):
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        info = dict(iter=3, best=np.float64(0.5), classes=('a', ), open_file=object())
        super().__init__(
            work_dir=str(folder),
            model=model,
            optim_wrapper=OptimWrapper(optimizer, accumulative_counts),
            param_schedulers=None,
            iter=0,
            epoch=0,
            seed=0,
            hooks_called=[],
            train_dataloader=SimpleNamespace(dataset=SimpleNamespace(metainfo=dict(classes=('a', )))),
            message_hub=SimpleNamespace(state_dict=lambda: dict(
                log_scalars=dict(loss=object()), runtime_info=info, resumed_keys=dict(iter=True, open_file=True))))

    def call_hook(self, name, checkpoint):
        self.hooks_called.append((name, sorted(checkpoint)))


def iterations_written(runner, hook, iterations, batches_per_epoch):
    hook.before_train(runner)
    written = []
    for iteration in range(iterations):
        runner.iter = iteration
        hook.before_train_iter(runner, batch_idx=iteration % batches_per_epoch)
        point = resume_point(runner.work_dir)
        if point is not None:
            written.append(torch.load(point, weights_only=True)['meta']['iter'])
        runner.optim_wrapper.update_params(runner.model(torch.ones(1, 2)).sum())
    return sorted(set(written))


def test_written_every_n_iterations_however_short_the_epochs(tmp_path):
    assert iterations_written(Runner(tmp_path), ResumeHook(interval=3), 12, batches_per_epoch=2) == [3, 6, 9]


def test_waits_for_a_whole_update_where_gradients_accumulate(tmp_path):
    runner = Runner(tmp_path, accumulative_counts=4)
    assert iterations_written(runner, ResumeHook(interval=3), 13, batches_per_epoch=6) == [4, 8, 12]


def test_written_at_the_end_and_not_again_after_a_resume_there(tmp_path):
    runner, hook = Runner(tmp_path), ResumeHook()
    hook.before_train(runner)
    runner.iter = 5
    hook.after_train(runner)
    assert torch.load(resume_point(tmp_path), weights_only=True)['meta']['iter'] == 5
    (tmp_path / 'resume.pth').unlink()
    hook.before_train(runner)
    hook.after_train(runner)
    assert resume_point(tmp_path) is None


def test_holds_data_alone_and_lets_other_hooks_add_theirs(tmp_path):
    runner, hook = Runner(tmp_path), ResumeHook()
    runner.iter = 5
    hook.after_train(runner)
    point = torch.load(resume_point(tmp_path), weights_only=True)
    assert point['message_hub'] == dict(
        log_scalars={}, runtime_info=dict(iter=3, best=0.5, classes=('a', )), resumed_keys=dict(iter=True))
    assert runner.hooks_called == [('before_save_checkpoint', ['message_hub', 'meta', 'optimizer', 'state_dict'])]


class OnTheGPU(torch.Tensor):
    """A tensor that knows whether it was asked to come to the CPU."""

    def cpu(self):
        return torch.tensor(7.)


@pytest.mark.parametrize('name', ['', 'generator'])  # of one optimizer, of one of several
def test_counts_of_adam_come_back_to_the_cpu(tmp_path, name):
    held = dict(state={0: dict(step=OnTheGPU(), exp_avg=OnTheGPU(2))}, param_groups=[dict(lr=0.1)])
    ResumeHook().after_load_checkpoint(None, dict(optimizer={name: held} if name else held))
    moments = held['state'][0]
    assert type(moments['step']) is torch.Tensor and moments['step'].item() == 7
    assert type(moments['exp_avg']) is OnTheGPU


def test_weights_that_are_not_finite_leave_the_last_point_as_it_is(tmp_path):
    runner, hook = Runner(tmp_path), ResumeHook()
    for runner.iter, value in ((5, 0.), (6, float('nan'))):
        runner.model.weight.data[0, 0] = value
        hook.after_train(runner)
    assert torch.load(resume_point(tmp_path), weights_only=True)['meta']['iter'] == 5


@pytest.mark.parametrize('interval', [0, -1, 1.5, '7', None])
def test_interval_that_is_no_number_of_iterations(interval):
    with pytest.raises(ValueError, match=r'ResumeHook\.interval=.* must be a positive number of iterations'):
        ResumeHook(interval)


@pytest.fixture
def written(tmp_path):
    runner = Runner(tmp_path)
    runner.iter = 1
    ResumeHook().after_train(runner)
    return tmp_path / 'resume.pth'


def test_a_truncated_point_means_from_the_start(written):
    written.write_bytes(written.read_bytes()[:-50])
    assert resume_point(written.parent) is None


def test_what_a_killed_process_was_writing_is_ignored_and_cleared(written):
    leftover = written.parent / '.resume.pth.abc'
    leftover.write_bytes(b'PK')
    assert resume_point(written.parent) == str(written)
    ResumeHook().before_train(Runner(written.parent))
    assert written.exists() and not leftover.exists()


def test_a_point_of_another_number_of_processes_means_from_the_start(written, monkeypatch):
    monkeypatch.setattr('mmseg_hrhf.work_dir.layout.get_world_size', lambda: 2)
    assert resume_point(written.parent) is None


def test_a_point_that_holds_code_is_refused(written):
    torch.save(dict(state_dict={}, meta=print), written)
    with pytest.raises(ValueError, match=r'resume\.pth holds more than tensors and plain data'):
        resume_point(written.parent)
