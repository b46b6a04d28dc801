import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from mmseg.registry import MODELS, RUNNERS
from mmseg.visualization import SegLocalVisualizer

from mmseg_hrhf.evaluation.summary import read_confusion
from mmseg_hrhf.replay.buffer import FakeImageBuffer
from mmseg_hrhf.utils.io import sha256
from mmseg_hrhf.work_dir.checkpoint import load_checkpoint


def train(cfg):
    return RUNNERS.build(cfg).train()


def weights(work_dir, step):
    return load_checkpoint(Path(work_dir) / f'step_{step}' / 'checkpoint.pth')['state_dict']


@HOOKS.register_module()
class StopAt(Hook):
    """Ends a run in its middle, as a killed job does."""

    def __init__(self, iteration):
        self.iteration = iteration

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if isinstance(runner.model.teacher, torch.nn.Module) and runner.iter + 1 == self.iteration:
            raise KeyboardInterrupt


def kept_by_mmengine():
    return {name for kind in (MMLogger, MessageHub, SegLocalVisualizer, Visualizer) for name in kind._instance_dict
            if '_step_' in name}


def test_two_steps_leave_a_table_and_plain_checkpoints(tiny_config):
    before = kept_by_mmengine()  # by other tests' steps that were broken off
    results = train(tiny_config)
    work = Path(tiny_config.work_dir)
    counts = [tuple(result[f'num_{kind}_images'] for kind in ('train', 'fake', 'test')) for result in results]
    assert counts == [(13, 0, 5), (8, 4, 6)]
    assert kept_by_mmengine() <= before
    assert results[1]['classes'] == ['red', 'green', 'blue'] and results[1]['new_classes'] == ['blue']
    assert all(np.isfinite(results[1]['metrics'][f'mIoU_{name}']) for name in ('old', 'new', 'all'))
    bare = Config.fromfile(work / 'step_1' / 'config.py').model
    assert set(weights(work, 1)) == set(MODELS.build(bare).state_dict())
    assert weights(work, 1)['decode_head.conv_seg.weight'].shape[0] == 4
    for step in (0, 1):  # each step's curves lie in its own folder
        lines = next((work / f'step_{step}' / 'train').glob('*/vis_data/scalars.json')).read_text().splitlines()
        assert sum('"loss"' in line for line in lines) == 32  # 8 epochs of 4 batches
    summary = json.loads((work / 'results.json').read_text())
    assert summary['steps'][1]['mIoU_all'] == results[1]['metrics']['mIoU_all']
    assert '| 1 | blue | 8 | 4 |' in (work / 'results.md').read_text()
    buffer = FakeImageBuffer(work / 'step_1' / 'fakes', 4)
    assert buffer.is_full() and buffer.load(3).shape == (48, 48, 3)
    assert [curve['iteration'] for curve in buffer.curves()] == [[1, 2, 3, 4]] * 2
    # The confusion's diagonal over its unions is the IoU.
    classes, counts = read_confusion(work / 'step_1' / 'confusion.csv')
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    assert classes[3] == 'blue'
    assert 100 * counts[3, 3] / union[3] == pytest.approx(results[1]['metrics']['IoU/blue'])
    # mmengine's Visualizer had fakes, segmentations and the inversion's losses.
    pictures = {path.name for path in (work / 'step_1' / 'train').glob('*/vis_data/vis_image/*')}
    assert pictures == {'fakes_0.png', 'fakes_as_the_teacher_sees_them_0.png', 'segmentations_32.png'}
    scalars = next((work / 'step_1' / 'train').glob('*/vis_data/scalars.json')).read_text()
    assert scalars.count('"inversion/classification"') == 4


def test_two_partitioned_steps_share_no_image(tiny_config):
    tiny_config.merge_from_dict(dict(scenario=dict(_delete_=True, steps=[['red'], ['green', 'blue']],
                                                   setting='partitioned')))
    tiny_config.train_cfg.max_epochs = tiny_config.train_cfg.val_interval = 1
    tiny_config.param_scheduler[0].end = 1
    runner = RUNNERS.build(tiny_config)
    results = runner.train()
    # 12 images show red and green, one blue and red, 7 blue alone.
    first, second = (set(runner.plan.train_positions[step].tolist()) for step in (0, 1))
    assert first and not first & second and first | second == set(range(20)) and second > set(range(12, 19))
    assert [result['num_train_images'] for result in results] == [len(first), len(second)]


def test_iteration_based_loop_with_workers_and_no_fakes_at_step_0(tiny_iter_config):
    tiny_iter_config.train_dataloader.num_workers = 2
    results = train(tiny_iter_config)
    assert [r['num_fake_images'] for r in results] == [0, 4]
    assert len(results) == 2


def test_finished_steps_are_skipped_and_a_stopped_one_resumes(tiny_iter_config):
    cfg = tiny_iter_config
    stopping = Config(cfg._cfg_dict.to_dict())
    stopping.default_hooks.stop = dict(type='StopAt', iteration=5)
    with pytest.raises(KeyboardInterrupt):
        train(stopping)
    work = Path(cfg.work_dir)
    assert not (work / 'step_1' / 'result.json').exists()
    before = (work / 'step_0' / 'checkpoint.pth').stat().st_mtime_ns
    fakes = {path: path.stat().st_mtime_ns for path in (work / 'step_1' / 'fakes' / 'images').iterdir()}
    results = train(cfg)
    assert len(results) == 2
    assert (work / 'step_0' / 'checkpoint.pth').stat().st_mtime_ns == before
    assert {path: path.stat().st_mtime_ns for path in fakes} == fakes
    log = '\n'.join(path.read_text() for path in (work / 'step_1' / 'train').glob('*/*.log'))
    assert 'resumed epoch: 0, iter: 4' in log


def test_teacher_is_the_previous_step_unchanged_and_outside_optimizer_and_checkpoint(tiny_config):
    seen = {}

    @HOOKS.register_module(force=True)
    class Look(Hook):

        def after_train(self, runner):
            if runner.model.teacher is not None:
                seen['teacher'] = {k: v.clone() for k, v in runner.model.teacher.state_dict().items()}
                seen['training'] = runner.model.teacher.training
                optimised = {id(p) for group in runner.optim_wrapper.param_groups for p in group['params']}
                seen['optimised'] = any(id(p) in optimised for p in runner.model.teacher.parameters())
                seen['keys'] = list(runner.model.state_dict())

    tiny_config.custom_hooks = [dict(type='Look')]
    train(tiny_config)
    before = weights(tiny_config.work_dir, 0)
    assert all(torch.equal(before[name], tensor) for name, tensor in seen['teacher'].items())
    assert not seen['training'] and not seen['optimised']
    assert set(seen['keys']) == set(before)
    after = weights(tiny_config.work_dir, 1)
    assert not torch.equal(before['backbone.conv1.weight'], after['backbone.conv1.weight'])


def test_norms_stay_those_of_a_step_0_that_was_trained_without_freezing(one_step_config):
    cfg = one_step_config
    cfg.method.freeze_norm = True
    cfg.incremental_overrides = dict(optim_wrapper=dict(optimizer=dict(lr=0.01)),
                                     custom_hooks=[dict(type='EMAHook', momentum=0.1)])
    cfg.val_dataloader, cfg.val_evaluator, cfg.val_cfg = cfg.test_dataloader, cfg.test_evaluator, dict(type='ValLoop')
    cfg.train_cfg.val_interval = 3
    train(cfg)
    before, after = (weights(cfg.work_dir, step) for step in (0, 1))
    statistics = [name for name in before if 'running_' in name or name.endswith('num_batches_tracked')]
    assert len(statistics) > 20 and all(torch.equal(before[name], after[name]) for name in statistics)
    assert not torch.equal(before['backbone.bn1.weight'], after['backbone.bn1.weight'])


@HOOKS.register_module()
class Collapse(Hook):
    """Makes the network predict one class everywhere."""

    def after_train(self, runner):
        torch.nn.init.zeros_(runner.model.student.decode_head.conv_seg.weight)
        runner.model.student.decode_head.conv_seg.bias.data = torch.tensor([0., 0., 9., 0.])


def test_a_collapsed_step_is_said_in_the_log(one_step_config, tiny_runs):
    one_step_config.incremental_overrides = dict(custom_hooks=[dict(type='Collapse')], train_cfg=dict(max_epochs=1))
    train(one_step_config)
    said, healthy = ((Path(folder) / 'run.log').read_text() for folder in (one_step_config.work_dir, tiny_runs / 'two'))
    assert "WARNING - Step 1 has collapsed: it predicts 'green' for nearly all test pixels." in said
    assert 'freeze_norm' in said and 'collapsed' not in healthy and 'Step 1 finished' in healthy


def test_a_work_dir_of_another_config_is_refused(one_step_config):
    one_step_config.optim_wrapper.optimizer.lr = 0.5
    named = r'another config: step 0 was trained with other settings of optim_wrapper\.optimizer\.lr'
    with pytest.raises(ValueError, match=named):
        train(one_step_config)


def test_another_test_is_measured_again_without_training(finished_config):
    tiny_config = finished_config
    before = train(tiny_config)
    work = Path(tiny_config.work_dir)
    kept = {path: path.stat().st_mtime_ns for path in work.glob('step_*/checkpoint.pth')}
    tiny_config.test_evaluator.iou_metrics = ['mIoU', 'mDice']
    tiny_config.test_dataloader.dataset.indices = 4
    slide = dict(mode='slide', crop_size=(24, 24), stride=(16, 16))
    tiny_config.incremental_overrides = dict(model=dict(test_cfg=slide))
    after = train(tiny_config)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert [result['num_test_images'] for result in after] == [3, 4]
    assert all('mDice' in result['metrics'] for result in after)
    assert all(result['seconds']['train'] == old['seconds']['train'] for result, old in zip(after, before))
    # The figures are those of mmseg's own test of the step, and are not measured a third time.
    for step, result in enumerate(after):
        cfg = Config.fromfile(work / f'step_{step}' / 'config.py')
        cfg.load_from, cfg.work_dir = str(work / f'step_{step}' / 'checkpoint.pth'), str(work / 'plain')
        assert cfg.model.test_cfg.mode == ('slide' if step else 'whole')
        assert Runner.from_cfg(cfg).test()['mIoU'] == pytest.approx(result['metrics']['mIoU'], abs=1e-4)
    assert train(tiny_config) == after


def test_a_mended_later_step_goes_on_from_step_0(one_step_config):
    path = Path(one_step_config.work_dir) / 'step_0' / 'checkpoint.pth'
    before = path.stat().st_mtime_ns
    one_step_config.incremental_overrides = dict(optim_wrapper=dict(optimizer=dict(lr=0.01)))
    one_step_config.method.loss_kd = dict(loss_weight=2.0)
    assert len(train(one_step_config)) == 2 and path.stat().st_mtime_ns == before


def test_a_refused_config_does_not_claim_the_work_dir(tiny_config):
    tiny_config.scenario.steps, tiny_config.scenario.task = [['red'], ['gren']], None
    with pytest.raises(ValueError, match='gren'):
        RUNNERS.build(tiny_config)
    tiny_config.train_dataloader.batch_size = 3
    tiny_config.scenario.steps = [['red'], ['green']]
    with pytest.raises(ValueError, match='batch_size=3'):
        RUNNERS.build(tiny_config)
    tiny_config.train_dataloader.batch_size = 4
    RUNNERS.build(tiny_config)
    assert (Path(tiny_config.work_dir) / 'run.json').exists()


def test_a_step_needs_its_predecessor(tiny_config):
    tiny_config.only_step = 1
    with pytest.raises(ValueError, match='Step 1 continues step 0, which is not finished'):
        train(tiny_config)


def test_a_truncated_checkpoint_is_named(one_step_config):
    path = Path(one_step_config.work_dir) / 'step_0' / 'checkpoint.pth'
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r'step_0/checkpoint\.pth of the finished step 0 is missing, truncated'):
        train(one_step_config)


@pytest.mark.parametrize('options', [
    dict(),
    dict(label_protocol='plop'),
    dict(class_order=['blue', 'red', 'green']),
    dict(task=None, steps=[['green'], ['blue']]),
])
def test_plain_config_gives_the_same_miou_under_a_stock_runner(tiny_config, options):
    tiny_config.scenario.update(options)
    results = train(tiny_config)
    for step, result in enumerate(results):
        folder = Path(tiny_config.work_dir) / f'step_{step}'
        cfg = Config.fromfile(folder / 'config.py')
        assert 'mmseg_hrhf' not in cfg.pretty_text.replace(str(folder), '')
        cfg.load_from, cfg.work_dir = str(folder / 'checkpoint.pth'), str(folder / 'plain')
        metrics = Runner.from_cfg(cfg).test()
        assert metrics['mIoU'] == pytest.approx(result['metrics']['mIoU'], abs=1e-4)
        assert metrics['mIoU'] == pytest.approx(result['metrics']['mIoU_all_with_background'], abs=0.006)


def test_an_average_of_the_weights_that_was_tested_is_what_is_saved(tiny_config):
    tiny_config.custom_hooks = [dict(type='EMAHook', momentum=0.01)]
    tiny_config.only_step = 0
    result = train(tiny_config)[0]
    folder = Path(tiny_config.work_dir) / 'step_0'
    cfg = Config.fromfile(folder / 'config.py')
    cfg.load_from, cfg.work_dir = str(folder / 'checkpoint.pth'), str(folder / 'plain')
    assert Runner.from_cfg(cfg).test()['mIoU'] == pytest.approx(result['metrics']['mIoU'], abs=1e-4)


# A process in which this package cannot be imported runs mmseg's own tool on the steps of a work dir.
_WITHOUT_US = '''
import runpy, sys
sys.modules['mmseg_hrhf'] = None
tool, plain, *steps = sys.argv[1:]
for i, step in enumerate(steps):
    sys.argv = [tool, f'{step}/config.py', f'{step}/checkpoint.pth', '--work-dir', f'{plain}/{i}']
    runpy.run_path(tool, run_name='__main__')
'''


def mmseg_tool(name):
    import mmseg
    return str(Path(mmseg.__file__).parent / '.mim' / 'tools' / name)


def run(command, cwd, **env):
    done = subprocess.run(
        command, cwd=cwd, env=dict(os.environ, OMP_NUM_THREADS='1', **env), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def test_mmseg_alone_trains_our_config_and_tests_our_steps(tiny_config_file, tmp_path):
    work = tmp_path / 'work'
    run([sys.executable, mmseg_tool('train.py'), str(tiny_config_file), '--work-dir', str(work)], tmp_path)
    steps = [work / f'step_{step}' for step in (0, 1)]
    out = run([sys.executable, '-c', _WITHOUT_US, mmseg_tool('test.py'), str(tmp_path / 'plain'), *map(str, steps)],
              tmp_path)
    for step in steps:
        expected = json.loads((step / 'result.json').read_text())['metrics']['mIoU']
        assert f'mIoU: {expected:.4f}' in out


def test_two_processes_on_cpu_and_test_tool(one_step_config, tiny_config_file, tmp_path, repo, free_port):
    single, double = Path(one_step_config.work_dir), tmp_path / 'double'
    shutil.copytree(single, double)
    train(one_step_config)
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    run(['bash', str(repo / 'tools/dist_train.sh'), str(tiny_config_file), '2', '--work-dir', str(double)], tmp_path,
        PORT=str(free_port), PATH=path)
    one, two = (FakeImageBuffer(work / 'step_1' / 'fakes', 4) for work in (single, double))
    assert two.is_full()
    assert [sha256(one.image_path(i)) for i in range(4)] == [sha256(two.image_path(i)) for i in range(4)]
    expected = json.loads((double / 'step_1' / 'result.json').read_text())['metrics']
    # What two processes measured is what one measures on the checkpoint they left.
    cfg = Config.fromfile(double / 'step_1' / 'config.py')
    cfg.load_from, cfg.work_dir = str(double / 'step_1' / 'checkpoint.pth'), str(tmp_path / 'plain')
    assert Runner.from_cfg(cfg).test()['mIoU'] == pytest.approx(expected['mIoU'], abs=1e-4)
    out = run([
        sys.executable, str(repo / 'tools/test.py'), str(tiny_config_file), str(double / 'step_1' / 'checkpoint.pth'),
        '--work-dir', str(tmp_path / 'test')
    ], tmp_path)
    assert f'mIoU_all: {expected["mIoU_all"]:.4f}' in out
