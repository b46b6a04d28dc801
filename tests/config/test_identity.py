"""What of a config each step depends on: the rest may change without losing finished steps."""

import copy
import os
import re
import shutil

import pytest

from mmseg_hrhf.config.identity import run_identity
from mmseg_hrhf.config.identity import test_identity as identity_of_the_test
from mmseg_hrhf.config.run import RunConfig
from mmseg_hrhf.engine.plan import RunPlan
from mmseg_hrhf.utils.io import read_json, write_json
from mmseg_hrhf.work_dir import record
from mmseg_hrhf.work_dir.layout import StepFiles
from mmseg_hrhf.work_dir.record import check_steps, claim_work_dir


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp('class_index'))


@pytest.fixture
def three_steps(tiny_config):
    """Red, then green, then blue."""
    tiny_config.scenario.task = '1-1'
    return tiny_config


def identities(cfg, cache, seed=0):
    return RunPlan(RunConfig.parse(cfg, seed), cache).identities()


def claim(folder, cfg, seed):
    run = RunConfig.parse(cfg, seed)
    claim_work_dir(str(folder), run_identity(run), run.text())


_known = {}


def finish(cfg, cache, steps=(0, 1, 2)):
    """A work dir in which these steps are finished."""
    if cfg.scenario.task not in _known:  # the fixtures' configs differ in nothing else
        _known[cfg.scenario.task] = identities(cfg, cache)
    for step, identity in _known[cfg.scenario.task].items():
        if step in steps:
            files = StepFiles(cfg.work_dir, step)
            write_json(files.identity, identity)
            write_json(files.result, {})


def changed(cfg, changes):
    cfg = copy.deepcopy(cfg)
    cfg.merge_from_dict(changes)
    return cfg


# Option changed: the first step that would be retrained (None: none), and what the refusal names.
TRAINING = {
    'optim_wrapper.optimizer.lr': (0.5, 0),
    'train_cfg.max_epochs': (9, 0),
    'train_dataloader.batch_size': (8, 0),
    'train_dataloader.dataset.pipeline': (
        [
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackSegInputs'),
        ],
        0,
    ),
    'model.backbone.depth': (34, 0),
    'model.decode_head.loss_decode.loss_weight': (2.0, 0),
    'param_scheduler': ([dict(type='ConstantLR', factor=1.0)], 0),
    'custom_hooks': ([dict(type='EMAHook')], 0),
    'default_hooks.average': (dict(type='EMAHook'), 0),
    'default_hooks.param_scheduler': (None, 0),
    'auto_scale_lr': (dict(enable=True, base_batch_size=24), 0),
    'channels_last': (True, 0),
    'scenario.label_protocol': ('plop', 0),
    'scenario.class_order': (['red', 'blue', 'green'], 1),
    'method.loss_kd': (dict(loss_weight=2.0), 1),
    'replay.ratio': ('1:3', 1),
    'replay.added': (True, 1),
    'replay.num_images': (8, 1),
    'replay.inversion.lr': (0.2, 1),
    'replay.feature_statistics': (dict(num_images=16), 0),
    'incremental_overrides': (dict(optim_wrapper=dict(optimizer=dict(lr=0.1))), 1),
}
# These change no weights.
LOOKING = {
    'default_hooks.logger.interval': 7,
    'default_hooks.look': dict(type='EmptyCacheHook'),
    'visualizer.vis_backends': [dict(type='TensorboardVisBackend')],
    'log_level': 'WARNING',
    'train_dataloader.num_workers': 2,
    'train_dataloader.persistent_workers': True,
    'train_cfg.val_interval': 3,
    'test_dataloader.num_workers': 3,
    'test_dataloader.batch_size': 1,
    'env_cfg.cudnn_benchmark': True,
    'experiment_name': 'mine',
}
TEST = {
    'test_evaluator.iou_metrics': ['mIoU', 'mDice'],
    'test_dataloader.dataset.pipeline': [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(96, 96)),
        dict(type='LoadAnnotations'),
        dict(type='PackSegInputs'),
    ],
    'model.test_cfg': dict(mode='slide', crop_size=(32, 32), stride=(16, 16)),
    'test_dataloader.dataset.indices': 5,
}


@pytest.mark.parametrize('option', TRAINING)
def test_what_training_depends_on_is_refused_with_the_steps_that_would_be_made_again(three_steps, cache, option):
    finish(three_steps, cache)
    value, first = TRAINING[option]
    now = identities(changed(three_steps, {option: value}), cache)
    again = ', '.join(str(t) for t in range(first, 3))
    folders = ' '.join(re.escape(StepFiles(three_steps.work_dir, t).folder) for t in range(first, 3))
    stand = rf' \(steps? {", ".join(map(str, range(first)))} would be kept\)' if first else ''
    with pytest.raises(
        ValueError,
        match=rf'step {first} was trained with other settings of .*delete {folders} to retrain '
        rf'steps? {again}{stand}\.',
    ):
        check_steps(three_steps.work_dir, now)
    # With the steps before it alone in the work dir, the run goes on.
    for step in range(first, 3):
        shutil.rmtree(StepFiles(three_steps.work_dir, step).folder)
    assert check_steps(three_steps.work_dir, now) == []


def test_what_only_looks_may_change(three_steps, cache):
    finish(three_steps, cache)
    now = identities(changed(three_steps, LOOKING), cache)
    assert now == identities(three_steps, cache)
    assert check_steps(three_steps.work_dir, now) == []


def test_another_setting_has_other_images(tiny_config, cache):
    finish(tiny_config, cache, steps=(0, 1))
    with pytest.raises(ValueError, match=r'step 0 was trained with other settings of training_data\.images\.'):
        check_steps(tiny_config.work_dir, identities(changed(tiny_config, {'scenario.setting': 'disjoint'}), cache))


def test_another_partition_has_other_images_except_for_joint(three_steps, cache):
    first, other = (changed(three_steps, {'scenario.setting': 'partitioned', 'scenario.partition_seed': seed})
                    for seed in (0, 1))
    for step, identity in identities(first, cache).items():
        write_json(StepFiles(first.work_dir, step).identity, identity)
        write_json(StepFiles(first.work_dir, step).result, {})
    with pytest.raises(ValueError, match=r'step 0 was trained with other settings of partition_seed, '
                       r'training_data\.images\..* to retrain steps 0, 1, 2\.'):
        check_steps(first.work_dir, identities(other, cache))
    joint = [identities(changed(cfg, {'method': dict(type='Joint', _delete_=True)}), cache) for cfg in (first, other)]
    assert joint[0] == joint[1]


@pytest.mark.parametrize('option', TEST)
def test_another_test_leaves_the_weights_and_repeats_the_test(three_steps, cache, option):
    finish(three_steps, cache)
    now = identities(changed(three_steps, {option: TEST[option]}), cache)
    assert check_steps(three_steps.work_dir, now) == [0, 1, 2]


def test_another_test_from_step_1_on_keeps_the_figures_of_step_0(three_steps, cache):
    finish(three_steps, cache)
    overrides = dict(model=dict(test_cfg=TEST['model.test_cfg']))
    now = identities(changed(three_steps, dict(incremental_overrides=overrides)), cache)
    assert check_steps(three_steps.work_dir, now) == [1, 2]


def test_another_method_keeps_a_plain_step_0(three_steps, cache):
    finish(three_steps, cache)
    now = identities(changed(three_steps, {'method': dict(type='MiB', _delete_=True)}), cache)
    with pytest.raises(ValueError, match=r'step 1 was trained with .* of method\.type.*step 0 would be kept'):
        check_steps(three_steps.work_dir, now)
    now = identities(changed(three_steps, {'method': dict(type='EWC', _delete_=True)}), cache)
    with pytest.raises(ValueError, match='step 0 was trained with other settings of method'):
        check_steps(three_steps.work_dir, now)


def test_another_seed_is_another_run(three_steps, cache):
    finish(three_steps, cache)
    with pytest.raises(ValueError, match='step 0 was trained with other settings of seed'):
        check_steps(three_steps.work_dir, identities(three_steps, cache, seed=1))


def test_other_images_of_one_step_are_named(three_steps, cache, tmp_path):
    finish(three_steps, cache)
    listed = tmp_path / 'blue.txt'
    listed.write_text('013\n014\n')
    now = identities(changed(three_steps, {'scenario.image_lists': {2: str(listed)}}), cache)
    with pytest.raises(
        ValueError,
        match=r'step 2 was trained with other settings of training_data\.images\..*'
        r'\(steps 0, 1 would be kept\)',
    ):
        check_steps(three_steps.work_dir, now)


def test_a_step_that_has_begun_counts_and_one_that_has_not_does_not(three_steps, cache):
    finish(three_steps, cache, steps=(0,))
    files = StepFiles(three_steps.work_dir, 1)
    write_json(files.identity, identities(three_steps, cache)[1])
    now = identities(changed(three_steps, {'method.loss_kd.loss_weight': 2.0}), cache)
    assert check_steps(three_steps.work_dir, now) == []
    write_json(files.resume_point, {})
    with pytest.raises(ValueError, match=r'step 1 was trained with other settings of method\.loss_kd'):
        check_steps(three_steps.work_dir, now)


def test_a_hook_that_only_looks_has_a_place(three_steps, cache):
    finish(three_steps, cache)
    with pytest.raises(ValueError, match=r'custom_hooks\..*a key of default_hooks instead'):
        check_steps(
            three_steps.work_dir, identities(changed(three_steps, {'custom_hooks': [dict(type='EMAHook')]}), cache)
        )


def test_what_an_earlier_version_did_not_record_is_not_held_against_a_run(three_steps, cache):
    finish(three_steps, cache)
    path = StepFiles(three_steps.work_dir, 0).identity
    held = read_json(path)
    del held['training']['custom_hooks']
    write_json(path, held)
    now = identities(changed(three_steps, {'custom_hooks': [dict(type='EMAHook')]}), cache)
    with pytest.raises(ValueError, match='step 1 was trained with other settings of custom_hooks'):
        check_steps(three_steps.work_dir, now)


def test_other_weights_under_the_same_name_are_other_weights(three_steps, cache, tmp_path):
    three_steps.load_from = str(tmp_path / 'start.pth')
    identity = {}
    for text in ('old', 'new'):
        (tmp_path / 'start.pth').write_text(text)
        os.utime(tmp_path / 'start.pth', (0, len(identity)))
        identity[text] = identities(three_steps, cache)
    for t, held in identity['old'].items():
        write_json(StepFiles(three_steps.work_dir, t).identity, held)
        write_json(StepFiles(three_steps.work_dir, t).result, {})
    assert check_steps(three_steps.work_dir, identity['old']) == []
    with pytest.raises(ValueError, match=r'step 0 was trained with other settings of load_from\.sha256\. '):
        check_steps(three_steps.work_dir, identity['new'])
    (tmp_path / 'start.pth').unlink()  # a finished run does not need it
    assert check_steps(three_steps.work_dir, identities(three_steps, cache)) == []


def test_a_damaged_record_is_named(three_steps, cache):
    finish(three_steps, cache)
    write_json(StepFiles(three_steps.work_dir, 1).identity, ['no record'])
    with pytest.raises(ValueError, match=r'step_1/identity\.json is not a record of a step: delete .*step_1'):
        check_steps(three_steps.work_dir, identities(three_steps, cache))


def test_validation_stands_for_a_test_that_is_not_given(tiny_config):
    wanted = identity_of_the_test(RunConfig.parse(tiny_config), 0)
    for kind in ('dataloader', 'evaluator', 'cfg'):
        tiny_config[f'val_{kind}'] = tiny_config.pop(f'test_{kind}')
    assert identity_of_the_test(RunConfig.parse(tiny_config), 0) == wanted and wanted['test_evaluator'] is not None


def test_the_record_of_a_run_follows_its_config(tiny_config, tmp_path):
    claim(tmp_path, tiny_config, 3)
    assert read_json(tmp_path / 'run.json')['randomness']['seed'] == 3
    tiny_config.test_evaluator.iou_metrics = ['mDice']
    claim(tmp_path, tiny_config, 3)
    assert read_json(tmp_path / 'run.json')['test_evaluator']['iou_metrics'] == ['mDice']
    assert 'mDice' in (tmp_path / 'config.py').read_text()


@pytest.fixture
def other_rank(monkeypatch):
    """This process is not rank 0; the list takes what happens in each second that it waits."""
    seconds = []
    monkeypatch.setattr(record, 'is_main_process', lambda: False)
    monkeypatch.setattr(record.time, 'sleep', lambda duration: seconds.pop(0)())
    return seconds


def test_a_network_drive_may_show_it_late(tiny_config, tmp_path, other_rank):
    other_rank += [lambda: None, (tmp_path / 'run.json').touch]
    claim(tmp_path, tiny_config, 0)
    assert other_rank == []


def test_a_drive_that_is_not_shared_is_an_error(tiny_config, tmp_path, other_rank):
    other_rank += [lambda: None] * 60
    with pytest.raises(ValueError, match='must be on a file system that all processes share'):
        claim(tmp_path, tiny_config, 0)
    assert other_rank == []
