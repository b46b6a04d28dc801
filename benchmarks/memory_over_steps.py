"""Memory and time of one process over the 11 steps of a 10-1 run on generated data of 20 classes.

    python benchmarks/memory_over_steps.py --work-dir work_dirs/memory [--network deeplabv3_mobilenet-v2 --side 128]

All steps have equal numbers of iterations, synthetic images and test images.
"""
import argparse
import gc
import os
import time
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from PIL import Image

from mmseg_hrhf import IncrementalRunner

REPO = Path(__file__).parents[1]
CLASSES = 20
CONFIG = '''
_base_ = ['{repo}/configs/_base_/models/{network}.py', '{repo}/configs/_base_/default_runtime.py',
          '{repo}/configs/_base_/methods/hrhf.py', '{repo}/configs/_base_/schedules/shapes.py']
scenario = dict(task='10-1', setting='overlapped')
model = dict(data_preprocessor=dict(size=({side}, {side})), decode_head=dict(num_classes={classes} + 1))
pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
meta = dict(classes=['background'] + ['class {{}}'.format(i) for i in range(1, {classes} + 1)],
            palette=[[12 * i] * 3 for i in range({classes} + 1)])
data = dict(type='BaseSegDataset', data_root='{root}', metainfo=meta, img_suffix='.png', pipeline=pipeline,
            data_prefix=dict(img_path='images', seg_map_path='masks'))
train_dataloader = dict(batch_size=8, num_workers=2, persistent_workers=True,
                        sampler=dict(type='InfiniteSampler', shuffle=True), dataset=data)
test_dataloader = dict(batch_size=8, num_workers=2, sampler=dict(type='DefaultSampler', shuffle=False), dataset=data)
val_dataloader = test_dataloader
val_evaluator = test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
train_cfg = dict(max_iters=30, val_interval=30)
incremental_overrides = dict(_delete_=True, optim_wrapper=dict(optimizer=dict(lr=0.01)))
replay = dict(num_images=16, inversion=dict(size={side}, batch_size=8, stages=[(1.0, 10)]))
'''


def make_data(root, side, images_per_class=12):
    rng = np.random.default_rng(0)
    for folder in ('images', 'masks'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number in range(CLASSES * images_per_class):
        mask = np.zeros((side, side), dtype=np.uint8)
        top, left = rng.integers(0, side // 2, 2)
        mask[top:top + side // 2, left:left + side // 2] = number % CLASSES + 1
        mask[-side // 8:, -side // 8:] = 1  # a class of step 0, so that every step tests all images
        image = rng.normal(128, 20, (side, side, 3)) + mask[..., None] * 5
        Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(root / f'images/{number:04d}.png')
        Image.fromarray(mask).save(root / f'masks/{number:04d}.png')


def resident():
    """MiB of private memory of this process (without file pages), and of GPU memory of its tensors."""
    status = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines())
    return int(status['RssAnon'].split()[0]) / 1024 + torch.cuda.memory_allocated() / 2**20


def clock(device):
    """Clock for long work, in seconds: on a CPU the process time, which is independent of other processes."""
    return time.process_time if str(device) == 'cpu' else time.perf_counter


class MeasuringRunner(IncrementalRunner):
    """Records memory, open files, threads and live networks after each step."""
    rows = []

    def _run_step(self, step):
        now = clock('cuda' if torch.cuda.is_available() else 'cpu')
        began = now()
        super()._run_step(step)
        seconds = now() - began
        gc.collect()
        networks = sum(isinstance(thing, MODELS.get('EncoderDecoder')) for thing in gc.get_objects())
        files, threads = (len(os.listdir(f'/proc/self/{name}')) for name in ('fd', 'task'))
        self.rows.append((step, seconds, resident(), files, threads, networks))
        print('step %d: %.1f s, %.0f MiB, %d open files, %d threads, %d networks' % self.rows[-1], flush=True)


def run_steps(folder, network='fcn_small', side=64):
    """Train all steps. Returns rows: step, seconds, own memory (MiB), open files, threads, networks alive."""
    init_default_scope('mmseg')
    folder.mkdir(parents=True, exist_ok=True)
    root = folder.absolute() / 'data'
    make_data(root, side)
    config = folder / 'config.py'
    config.write_text(CONFIG.format(repo=REPO.absolute(), network=network, root=root, side=side, classes=CLASSES))
    cfg = Config.fromfile(config)
    cfg.work_dir = str(folder / 'run')
    MeasuringRunner(cfg).train()
    return MeasuringRunner.rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work-dir', type=Path, required=True)
    parser.add_argument('--network', default='fcn_small', help='a file of configs/_base_/models')
    parser.add_argument('--side', type=int, default=64, help='of the images, in pixels')
    args = parser.parse_args()
    rows = run_steps(args.work_dir, args.network, args.side)
    print(f'torch {torch.__version__}')
    print('| step | seconds | own memory (MiB) | open files | threads | networks alive |\n|' + '---|' * 6)
    for row in rows:
        print('| %d | %.1f | %.0f | %d | %d | %d |' % row)


if __name__ == '__main__':
    main()
