"""Time from the command to the end of the first training iteration, for our tools/train.py and mmseg's.

Ours continues a run whose step 0 and synthetic images are finished: step 1 of shapes_3-1 with its teacher. mmseg's
trains the same network on the same images with the same schedule. Seconds are process time (user and system), so that
other processes do not count; wall time is also given.
"""
from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import mmseg
from timing import Rounds, row

REPO = Path(__file__).parents[1]
ROUNDS = 5
HEAVY = ('torch', 'numpy', 'mmengine', 'mmcv', 'mmseg', 'matplotlib', 'cv2', 'PIL', 'scipy')
OURS = '''
_base_ = ['{repo}/configs/hrhf/shapes_3-1.py']
data_root = '{out}/shapes'
train_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = test_dataloader
{hook}
'''
HOOK = '''
custom_imports = dict(imports=['first_iteration'], allow_failed_imports=False)
default_hooks = dict(end=dict(type='EndAfterFirstIteration'){more})
'''
# `PREPARE` makes inversion and step 0 as short as possible, because only their end is needed; no command resets it.
PREPARE = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'replay.num_images=192',
           'replay.inversion.stages=[(1.0, 1)]', 'incremental_overrides.train_cfg.max_iters=300',
           'incremental_overrides.train_cfg.val_interval=300']
PLAIN = '''
_base_ = ['{repo}/configs/_base_/models/fcn_small.py', '{repo}/configs/_base_/schedules/shapes.py',
          '{repo}/configs/_base_/default_runtime.py']
train_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='RandomFlip', prob=0.5),
                  dict(type='PackSegInputs')]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
data = dict(type='BaseSegDataset', data_root='{out}/shapes', img_suffix='.png',
            metainfo=dict(classes={classes!r}, palette={palette!r}),
            data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'))
train_dataloader = dict(batch_size=16, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True),
                        dataset=dict(**data, ann_file='ImageSets/Segmentation/train.txt', pipeline=train_pipeline))
test_dataloader = dict(batch_size=20, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
                       dataset=dict(**data, ann_file='ImageSets/Segmentation/val.txt', pipeline=test_pipeline))
val_dataloader = test_dataloader
val_evaluator = test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
''' + HOOK.format(more=", checkpoint=dict(_delete_=True, type='CheckpointHook', interval=100)")


def run(command, environment):
    """Wall time and process time in seconds, and the output."""
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, printed


def prepare(out, environment):
    """Prepare both configs, step 0 and the buffer of synthetic images. Returns the two commands."""
    from mmseg_hrhf.datasets.shapes import ShapesDataset
    meta = ShapesDataset.METAINFO
    (out / 'start_up').mkdir(parents=True, exist_ok=True)
    texts = dict(
        prepare=OURS.format(repo=REPO, out=out, hook=''),
        ours=OURS.format(repo=REPO, out=out, hook=HOOK.format(more='')),
        plain=PLAIN.format(repo=REPO, out=out, classes=meta['classes'], palette=meta['palette']))
    configs = {name: out / 'start_up' / f'{name}.py' for name in texts}
    for name, text in texts.items():
        configs[name].write_text(text)
    ours = [sys.executable, str(REPO / 'tools/train.py'), '--work-dir', str(out / 'start_up/run'), '--cfg-options',
            *PREPARE]
    *_, printed = run([*ours[:2], str(configs['prepare']), *ours[2:], '--step', '0'], environment)
    ours = [*ours[:2], str(configs['ours']), *ours[2:]]
    *_, printed = run(ours, environment)  # fills the buffer
    if 'first iteration done' not in printed:
        raise RuntimeError(printed)
    tool = Path(mmseg.__file__).parent / '.mim/tools/train.py'
    return dict(ours=ours, plain=[sys.executable, str(tool), str(configs['plain']), '--work-dir',
                                  str(out / 'start_up/plain')])


def helps(environment):
    """Modules of ``HEAVY`` that --help of any tool imports."""
    found = set()
    commands = [[str(path)] for path in sorted((REPO / 'tools').glob('*.py'))] + [['-m', 'mmseg_hrhf', 'train']]
    for command in commands:
        *_, printed = run([sys.executable, '-X', 'importtime', *command, '--help'], environment)
        modules = {line.rsplit('|', 1)[-1].strip() for line in printed.splitlines() if line.startswith('import time:')}
        found |= modules & set(HEAVY)
    return sorted(found)


def measure(device, out):
    out = out.absolute()
    path = os.pathsep.join([str(REPO), str(REPO / 'benchmarks'), os.environ.get('PYTHONPATH', '')])
    environment = dict(os.environ, PYTHONPATH=path, PYTHONWARNINGS='ignore')
    if device == 'cpu':
        environment['CUDA_VISIBLE_DEVICES'] = ''
    commands = prepare(out, environment)
    own, wall = Rounds(), Rounds()
    for number in range(ROUNDS):
        for name in ('ours', 'plain') if number % 2 else ('plain', 'ours'):
            on_wall, of_process, printed = run(commands[name], environment)
            if 'first iteration done' not in printed:
                raise RuntimeError(printed)
            own.seconds[name].append(of_process)
            wall.seconds[name].append(on_wall)
    heavy = helps(environment)
    return dict(
        rows=[row(f'command to first iteration / mmseg (process: {own.median("plain"):.1f} s)',
                  own.ratio('ours', 'plain'), at_most=1.5),
              row(f'the same on the wall ({wall.median("plain"):.1f} s)', wall.ratio('ours', 'plain')),
              row('heavy modules imported for --help of any tool', float(len(heavy)), at_most=0)],
        heavy=heavy, seconds={name: statistics.median(own.seconds[name]) for name in own.seconds})
