"""A data set of 26 small images and a config of two steps on it, for tests that run the real thing."""
import ast
import copy
import fcntl
import functools
import gc
import logging
import os
import runpy
import shutil
import socket
import subprocess
import sys
from pathlib import Path

# Test processes run side by side: with more threads than cores they would be many times slower.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import mmengine.runner.runner
import numpy as np
import pytest
import yapf.yapflib.yapf_api
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import RUNNERS
from PIL import Image

REPO = Path(__file__).parents[1]
SIDE = 48
COLOURS = np.array([[120, 120, 120], [220, 60, 60], [60, 200, 60], [60, 60, 220]])
CLASSES = ['background', 'red', 'green', 'blue']


def keep_layout(text, **kwargs):
    """Check that a config is Python, as yapf does, but do not lay it out: half of a tiny run's time.

    Processes that tests start (tools/train.py) have the real one.
    """
    ast.parse(text)
    return text, True


yapf.yapflib.yapf_api.FormatCode = keep_layout
# What the log says of the machine is the same for all runs of a process, and asks several programs.
mmengine.runner.runner.collect_env = functools.cache(mmengine.runner.runner.collect_env)


def pytest_collection_finish():
    """Datasets collect garbage when they are built, which need not look through all imported modules."""
    gc.collect()
    gc.freeze()


def pytest_addoption(parser):
    parser.addoption('--write-bad-input', metavar='FILE', help='write the table of test_bad_input.py to FILE')


@pytest.fixture(autouse=True)
def mmseg_scope():
    init_default_scope('mmseg')


@pytest.fixture(scope='session')
def repo() -> Path:
    return REPO


@pytest.fixture(scope='session')
def shared() -> Path:
    """Real data beside the repository; tests that need them are skipped where they are absent."""
    folder = Path(os.environ.get('HRHF_SHARED', REPO.parent / 'shared'))
    if not folder.is_dir():
        pytest.skip(f'real data absent: {folder}')
    return folder


@pytest.fixture
def run_tool(repo, monkeypatch, capfd):
    """``run_tool('train.py', *arguments)`` in this process, which has imported the toolbox already."""
    def run(name, *arguments) -> subprocess.CompletedProcess:
        monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
        # Tools set these for their process, which here lives on.
        monkeypatch.setattr(logging, 'raiseExceptions', logging.raiseExceptions)
        monkeypatch.setenv('LOCAL_RANK', '0')
        code = 0
        try:
            runpy.run_path(str(repo / 'tools' / name), run_name='__main__')
        except SystemExit as end:
            code = end.code or 0
            if isinstance(code, str):  # as the interpreter does
                print(code, file=sys.stderr)
                code = 1
        return subprocess.CompletedProcess(sys.argv, code, *capfd.readouterr())

    return run


@pytest.fixture(scope='session')
def unused_port():
    """Gives a port that is free at the moment."""
    def find():
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            return probe.getsockname()[1]

    return find


@pytest.fixture
def free_port(unused_port) -> int:
    return unused_port()


def draw_tiny(labels, rng):
    """(48, 48, 3) image and (48, 48) mask: a coloured rectangle per label on a noisy ground."""
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    for label in labels:
        top, left = rng.integers(0, SIDE - 20, 2)
        mask[top:top + rng.integers(12, 20), left:left + rng.integers(12, 20)] = label
    image = np.clip(COLOURS[mask] + rng.normal(0, 20, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    return image, mask


@pytest.fixture(scope='session')
def made_once(tmp_path_factory):
    """``made_once(name, make)``: a folder that ``make(folder)`` fills in the first test process that asks for it."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base

    def folder(name, make):
        path, done = base / name, base / f'{name}.done'
        with open(base / f'{name}.lock', 'w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(path, ignore_errors=True)  # of a process that failed
                path.mkdir()
                make(path)
                done.touch()
        return path

    return folder


@pytest.fixture(scope='session')
def tiny_root(made_once) -> Path:
    """VOC-like folders: 20 training images (12 red and green, 8 blue), 6 for validation; one pixel of void each."""
    return made_once('data', write_tiny) / 'tiny set'


def write_tiny(base):
    root, rng = base / 'tiny set', np.random.default_rng(0)
    splits = dict(train=[(1, 2)] * 12 + [(3, )] * 7 + [(3, 1)], val=[(1, 2), (3, ), (1, 3), (2, 3), (1, 2, 3), (2, )])
    for split, contents in splits.items():
        for folder in ('images', 'masks'):
            (root / folder / split).mkdir(parents=True)
        for i, labels in enumerate(contents):
            image, mask = draw_tiny(labels, rng)
            mask[0, 0] = 255
            Image.fromarray(image).save(root / 'images' / split / f'{i:03d}.png')
            Image.fromarray(mask).save(root / 'masks' / split / f'{i:03d}.png')


@pytest.fixture(scope='session')
def tiny_config_text(tiny_root) -> str:
    """Two steps, red and green | blue; eight epochs each; four fakes."""
    return f'''
_base_ = ['{REPO}/configs/_base_/models/fcn_small.py', '{REPO}/configs/_base_/default_runtime.py',
          '{REPO}/configs/_base_/methods/hrhf.py']
scenario = dict(task='2-1', setting='overlapped')
model = dict(data_preprocessor=dict(size=({SIDE}, {SIDE})),
             backbone=dict(base_channels=4, stem_channels=4),
             decode_head=dict(in_channels=[4, 8, 16], channels=8, num_classes=4))
pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
meta = dict(classes={CLASSES!r}, palette={COLOURS.tolist()!r})
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='BaseSegDataset', data_root={str(tiny_root)!r}, metainfo=meta, img_suffix='.png',
                 data_prefix=dict(img_path='images/train', seg_map_path='masks/train'), pipeline=pipeline))
test_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='BaseSegDataset', data_root={str(tiny_root)!r}, metainfo=meta, img_suffix='.png',
                 data_prefix=dict(img_path='images/val', seg_map_path='masks/val'), pipeline=pipeline))
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.2, momentum=0.9))
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0, by_epoch=True, end=8, convert_to_iter_based=True)]
train_cfg = dict(by_epoch=True, max_epochs=8, val_interval=8)
default_hooks = dict(
    timer=dict(type='IterTimerHook'), logger=dict(type='LoggerHook', interval=1),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='ResumeHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'), visualization=dict(type='SegVisualizationHook'))
log_processor = dict(by_epoch=True)
replay = dict(num_images=4, inversion=dict(size={SIDE}, batch_size=2, stages=[(0.5, 2), (1.0, 2)]))
'''


@pytest.fixture
def tiny_config_file(tiny_config_text, tmp_path) -> Path:
    path = tmp_path / 'tiny.py'
    path.write_text(tiny_config_text)
    return path


@pytest.fixture
def tiny_config(tiny_config_file, tmp_path) -> Config:
    cfg = Config.fromfile(tiny_config_file)
    cfg.work_dir = str(tmp_path / 'work')
    return cfg


@pytest.fixture(scope='session')
def tiny_runs(tiny_config_text, made_once) -> Path:
    """Work dirs of ``tiny_config``: ``one`` after step 0, ``two`` after both steps. To be copied, not changed."""
    def train(folder):
        init_default_scope('mmseg')
        (folder / 'tiny.py').write_text(tiny_config_text)
        cfg = Config.fromfile(folder / 'tiny.py')
        for name, only_step in (('one', 0), ('two', None)):
            cfg.work_dir, cfg.only_step = str(folder / name), only_step
            if name == 'two':
                shutil.copytree(folder / 'one', folder / 'two')
            RUNNERS.build(copy.deepcopy(cfg)).train()

    return made_once('runs', train)


@pytest.fixture
def one_step_config(tiny_config, tiny_runs) -> Config:
    """``tiny_config``, of which step 0 is finished."""
    shutil.copytree(tiny_runs / 'one', tiny_config.work_dir)
    return tiny_config


@pytest.fixture
def finished_config(tiny_config, tiny_runs) -> Config:
    """``tiny_config``, of which both steps are finished."""
    shutil.copytree(tiny_runs / 'two', tiny_config.work_dir)
    return tiny_config


@pytest.fixture
def tiny_iter_config(tiny_config) -> Config:
    """The same by iterations, with the endless sampler of most mmseg schedules."""
    cfg = tiny_config
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=6, val_interval=6)
    cfg.param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0, by_epoch=False, end=6)]
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    cfg.default_hooks.checkpoint = dict(type='ResumeHook', interval=2)
    cfg.default_hooks.logger.log_metric_by_epoch = False
    cfg.log_processor = dict(by_epoch=False)
    return cfg
