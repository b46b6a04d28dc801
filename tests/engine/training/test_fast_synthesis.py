"""Stages and half precision make fakes as good as the published schedule at full size does, by what students learn."""
import shutil
import statistics

import pytest

from mmseg_hrhf.utils.io import read_json

LONGER = ['train_cfg.max_epochs=40', 'train_cfg.val_interval=40', 'param_scheduler.0.end=40',
          'default_hooks.checkpoint.interval=1000', 'replay.num_images=16', 'replay.inversion.batch_size=16',
          'incremental_overrides.optim_wrapper.optimizer.lr=0.05']
# One stage at full size, as published, but shorter; 30 instead of 80 iterations in pixels.
SCHEDULES = {
    'published': ['replay.inversion.stages=[(1.0,80)]'],
    'stages': ['replay.inversion.stages=[(0.5,40),(1.0,20)]'],
    'bf16': ['replay.inversion.stages=[(1.0,80)]', 'replay.inversion.amp=bf16'],
    'hardly begun': ['replay.inversion.stages=[(1.0,2)]'],
}


@pytest.mark.slow
def test_students_are_as_good_over_three_seeds(tiny_config_file, train_in_process, tmp_path):
    scores = {name: [] for name in SCHEDULES}
    for seed in range(3):
        options, first = [*LONGER, f'randomness.seed={seed}'], tmp_path / f'first_{seed}'
        train_in_process(tiny_config_file, first, options=[*options, 'only_step=0'])
        for name, schedule in SCHEDULES.items():
            work_dir = tmp_path / f'{name}_{seed}'
            shutil.copytree(first / 'step_0', work_dir / 'step_0')
            train_in_process(tiny_config_file, work_dir, options=[*options, *schedule])
            scores[name].append(read_json(work_dir / 'step_1' / 'result.json')['metrics']['mIoU_old'])
    means = {name: statistics.mean(held) for name, held in scores.items()}
    # A mean of three moves by some five points with the rounding; fakes that are hardly begun cost 27.
    assert means['stages'] == pytest.approx(means['published'], abs=8), scores
    assert means['bf16'] == pytest.approx(means['published'], abs=8), scores
    assert means['hardly begun'] < means['published'] - 16, scores
