"""A run that is killed, at any moment and as often as one likes, ends as the run that was not."""
import json
import random
import signal
from pathlib import Path

import pytest
import torch

from mmseg_hrhf.utils.io import sha256
from mmseg_hrhf.work_dir.checkpoint import load_checkpoint

KILLS = 12


def outcome(work_dir):
    """Weights and fakes of both steps, their metrics and the table."""
    work_dir = Path(work_dir)
    weights = [load_checkpoint(work_dir / f'step_{t}' / 'checkpoint.pth')['state_dict'] for t in (0, 1)]
    metrics = [json.loads((work_dir / f'step_{t}' / 'result.json').read_text())['metrics'] for t in (0, 1)]
    fakes = {path.name: sha256(path) for path in (work_dir / 'step_1' / 'fakes').glob('images/*')}
    return weights, metrics, fakes, (work_dir / 'results.md').read_text()


def assert_identical(one, other):
    for ours, theirs in zip(one[0], other[0]):
        assert ours.keys() == theirs.keys()
        differing = [name for name in ours if not torch.equal(ours[name], theirs[name])]
        assert not differing
    assert one[1:] == other[1:]


# All that is random in a training: order, augmentation, dropout; and all that has a state: momentum, schedule, average.
RANDOM = '''
train_dataloader['dataset']['pipeline'] = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(48, 48), ratio_range=(0.8, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(48, 48), cat_max_ratio=0.9), dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'), dict(type='PackSegInputs')]
model['decode_head']['dropout_ratio'] = 0.3
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
val_dataloader, val_evaluator, val_cfg = test_dataloader, test_evaluator, dict(type='ValLoop')
'''
BY_EPOCH = RANDOM + '''
train_cfg = dict(by_epoch=True, max_epochs=3, val_interval=2)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0, by_epoch=True, end=3, convert_to_iter_based=True),
                   dict(type='LinearLR', start_factor=0.5, by_epoch=True, end=2)]
default_hooks['checkpoint'] = dict(type='ResumeHook', interval=2)
'''
BY_ITERATION = RANDOM + '''
train_dataloader['num_workers'] = 2
train_dataloader['sampler'] = dict(type='InfiniteSampler', shuffle=True)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=9, val_interval=4)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0, by_epoch=False, end=9)]
default_hooks['checkpoint'] = dict(type='ResumeHook', interval=2)
optim_wrapper['accumulative_counts'] = 2
log_processor = dict(by_epoch=False)
'''


@pytest.mark.slow
@pytest.mark.parametrize('loop', [BY_EPOCH, BY_ITERATION], ids=['by epoch', 'by iteration'])
def test_killed_at_any_moment(tiny_config_file, train_in_process, tmp_path, loop):
    tiny_config_file.write_text(tiny_config_file.read_text() + loop)
    whole = train_in_process(tiny_config_file, tmp_path / 'whole')
    expected = outcome(tmp_path / 'whole')
    draw, killed = random.Random(loop), 0
    while killed < KILLS:
        work_dir = tmp_path / f'killed {killed}'
        while (killed < KILLS and
               train_in_process(tiny_config_file, work_dir, draw.uniform(0.02, 0.5) * whole['seconds'])['signal']):
            killed += 1
        train_in_process(tiny_config_file, work_dir)  # to its end, if it is not there yet
        assert_identical(outcome(work_dir), expected)


def test_killed_in_the_scan(tiny_config_file, train_in_process, tmp_path):
    train_in_process(tiny_config_file, tmp_path / 'whole')
    for mask in (0, 7, 25):  # of the 20 of training, then of the 6 of the evaluation
        assert train_in_process(tiny_config_file, tmp_path / 'killed', kill_at_mask=mask)['signal'] == signal.SIGKILL
        assert not list((tmp_path / 'killed').rglob('checkpoint.pth'))
    train_in_process(tiny_config_file, tmp_path / 'killed')
    assert_identical(outcome(tmp_path / 'killed'), outcome(tmp_path / 'whole'))


def test_number_of_data_workers_changes_nothing(tiny_config_file, train_in_process, tmp_path):
    tiny_config_file.write_text(tiny_config_file.read_text() + BY_ITERATION)
    outcomes = []
    for number in (0, 1, 4):
        work_dir = tmp_path / f'{number} workers'
        train_in_process(tiny_config_file, work_dir, options=[f'train_dataloader.num_workers={number}'])
        outcomes.append(outcome(work_dir))
    assert_identical(outcomes[0], outcomes[1])
    assert_identical(outcomes[0], outcomes[2])


@pytest.mark.parametrize('method', ["dict(type='RW')", "dict(type='PLOP')", "dict(type='MiB', freeze_norm='all')",
                                    "dict(type='DKD')", "dict(type='MiB', freeze_backbone=True)"])
def test_what_a_method_has_gathered_goes_on(tiny_config_file, train_in_process, tmp_path, method):
    text = tiny_config_file.read_text() + BY_EPOCH + f"method = {method}\nmethod['_delete_'] = True\nreplay = None\n"
    text += "default_hooks['checkpoint']['interval'] = 1\n"
    tiny_config_file.write_text(text)
    train_in_process(tiny_config_file, tmp_path / 'whole')
    marker = tmp_path / 'died'
    tiny_config_file.write_text(text + f"custom_hooks += [dict(type='DieOnce', iteration=3, marker={str(marker)!r})]\n")
    assert train_in_process(tiny_config_file, tmp_path / 'killed')['signal'] and marker.exists()
    train_in_process(tiny_config_file, tmp_path / 'killed')
    assert 'resumed epoch: 1, iter: 3' in (tmp_path / 'killed.log').read_text()
    assert_identical(outcome(tmp_path / 'killed'), outcome(tmp_path / 'whole'))
