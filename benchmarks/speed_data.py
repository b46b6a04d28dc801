"""Cost of data: a batch of real and synthetic images against plain mmseg, and the class index against decoding.

Generated images have VOC's size, 500 x 375 (JPEG), and synthetic ones 512 x 512 (BMP, as the buffer writes them). They
pass through the training pipeline of configs/_base_/datasets/voc.py. Masks are VOC's if HRHF_SHARED (or ../shared) has
data/voc_train_aug_masks.tar, otherwise generated. Seconds are process time, workers included.
"""
from __future__ import annotations

import multiprocessing
import os
import resource
import tarfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler, worker_init_fn
from mmengine.registry import FUNCTIONS, init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, MODELS
from PIL import Image
from timing import Rounds, interleaved, row
from torch.utils.data import DataLoader

from mmseg_hrhf.datasets.class_index import label_counts, scan
from mmseg_hrhf.datasets.image_check import check_image
from mmseg_hrhf.replay.buffer import FakeImageBuffer
from mmseg_hrhf.replay.sampler import RealFakeSampler

REPO = Path(__file__).parents[1]
NUMBER, BATCH, WARMUP, ITERATIONS = 96, 12, 3, 9
LABELS = [*range(21), 255]


def natural(rng, width, height):
    """Noise whose amplitude decreases with frequency, as in photographs."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    grey, *colours = (np.fft.irfft2(np.fft.rfft2(rng.normal(size=(height, width))) / frequency, (height, width))
                      for _ in range(4))
    image = np.stack([grey + 0.3 * colour for colour in colours], -1)
    return np.clip(120 + 55 * image / image.std(), 0, 255).astype(np.uint8)


def ellipses(rng, width, height, labels):
    rows, columns = np.mgrid[:height, :width]
    mask = np.zeros((height, width), np.uint8)
    for label in labels:
        y, x, a, b = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8), rng.uniform(0.1, 0.3), rng.uniform(0.1, 0.3)
        distance = ((rows / height - y) / a)**2 + ((columns / width - x) / b)**2
        mask[distance < 1.1] = 255
        mask[distance < 1] = label
    return mask


def generate(root):
    """Generate a VOC 2012 of ``NUMBER`` images and a buffer of equal size. Returns the two folders."""
    devkit, fakes = root / 'VOC2012', root / 'fakes'
    if (fakes / 'manifest.jsonl').exists():
        return devkit, fakes
    for folder in ('JPEGImages', 'SegmentationClassAug', 'ImageSets/Segmentation'):
        (devkit / folder).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(NUMBER):
        Image.fromarray(natural(rng, 500, 375)).save(devkit / f'JPEGImages/{i:06d}.jpg', quality=90)
        mask = Image.fromarray(ellipses(rng, 500, 375, rng.integers(16, 21, 2)))
        mask.save(devkit / f'SegmentationClassAug/{i:06d}.png')
    (devkit / 'ImageSets/Segmentation/train_aug.txt').write_text(''.join(f'{i:06d}\n' for i in range(NUMBER)))
    buffer = FakeImageBuffer(fakes, NUMBER)
    buffer.open(dict(teacher='none'), (512, 512))
    buffer.add_batch(0, np.stack([natural(rng, 512, 512) for _ in range(NUMBER)]), [dict(classes=[1])] * NUMBER)
    buffer.close()
    return devkit, fakes


def datasets(root):
    """Datasets of plain mmseg and ours."""
    devkit, fakes = generate(root)
    cfg = Config.fromfile(REPO / 'configs/_base_/datasets/voc.py').train_dataloader.dataset.to_dict()
    cfg['data_root'] = str(devkit)
    real = dict(type='IncrementalDataset', dataset=cfg, scenario=dict(task='15-5', setting='overlapped'), step=1,
                cache_dir=str(root / 'index'))
    return DATASETS.build(cfg), DATASETS.build(dict(type='RealFakeDataset', real=real, fake_folder=str(fakes),
                                                    num_fake=NUMBER))


def loaders(root, workers):
    """Infinite loaders of plain mmseg and ours."""
    plain, mixed = datasets(root)
    common = dict(batch_size=BATCH, num_workers=workers, collate_fn=FUNCTIONS.get('pseudo_collate'),
                  persistent_workers=workers > 0)
    if workers:
        common['worker_init_fn'] = limited
    return dict(plain=DataLoader(plain, sampler=InfiniteSampler(plain, seed=0), **common),
                ours=DataLoader(mixed, sampler=RealFakeSampler(mixed, BATCH, '1:1', infinite=True, seed=0), **common))


def limited(worker):
    """Seed a worker as mmengine does, and limit it to one thread."""
    worker_init_fn(worker, num_workers=1, rank=0, seed=0)
    torch.set_num_threads(1)


def waiting(root, device):
    """Share of iteration time not spent waiting for data, for each loader with one worker.

    An iteration is forward and backward of DeepLabV3 on MobileNetV2, plus the teacher's forward. On a CPU it uses every
    fourth row and column, which loads the data loader like a machine that is sixteen times as fast.
    """
    step = 1 if torch.device(device).type == 'cuda' else 4
    cfg = Config.fromfile(REPO / 'configs/_base_/models/deeplabv3_mobilenet-v2.py').model
    cfg.data_preprocessor.size, cfg.backbone.init_cfg = (512, 512), None  # the pipeline's crops
    model = MODELS.build(cfg).to(device).train()
    waited, worked = Rounds(device), Rounds(device)
    for name, loader in loaders(root, workers=1).items():
        iterator = iter(loader)
        for _ in range(WARMUP + ITERATIONS):
            with waited.time(name):
                batch = next(iterator)
            with worked.time(name):
                data = model.data_preprocessor(batch, True)
                data['inputs'] = data['inputs'][..., ::step, ::step]
                for sample in data['data_samples']:
                    sample.gt_sem_seg = PixelData(data=sample.gt_sem_seg.data[..., ::step, ::step])
                sum(value for key, value in model.loss(**data).items() if 'loss' in key).backward()
                with torch.no_grad():
                    model.extract_feat(data['inputs'])
    spent = {name: [sum(rounds.seconds[name][WARMUP:]) for rounds in (worked, waited)] for name in worked.seconds}
    return {name: work / (work + wait) for name, (work, wait) in spent.items()}


def processor_seconds():
    """Processor time of this process and of finished children."""
    return sum(usage.ru_utime + usage.ru_stime
               for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def masks(root):
    """Paths of VOC's masks, or of generated ones, and their description."""
    shared = Path(os.environ.get('HRHF_SHARED', REPO.parent / 'shared')) / 'data/voc_train_aug_masks.tar'
    folder = root / ('voc_masks' if shared.exists() else 'masks')
    if not folder.exists():
        if shared.exists():
            with tarfile.open(shared) as archive:
                archive.extractall(folder, filter='data')
        else:
            folder.mkdir(parents=True)
            rng = np.random.default_rng(0)
            for i in range(500):
                Image.fromarray(ellipses(rng, 500, 375, rng.integers(1, 21, 2))).save(folder / f'{i:06d}.png')
    paths = sorted(map(str, folder.rglob('*.png')))
    return (paths[:10582], "VOC's masks") if shared.exists() else (paths * 6, 'generated masks')


def decode(paths):
    for path in paths:
        with Image.open(path) as image:
            np.asarray(image)


def decode_in_processes(paths):
    """Only decode, in as many processes as ``scan`` uses."""
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context('fork')) as pool:
        list(pool.map(decode, [paths[start:start + 64] for start in range(0, len(paths), 64)]))


def class_index(root):
    """Rounds of processor time, of wall time, and of processor time for single masks."""
    paths, what = masks(root)
    images = sorted(map(str, (generate(root)[0] / 'JPEGImages').glob('*.jpg')))
    own, wall, one = Rounds(), Rounds(), Rounds(own_time=True)
    for number, path in enumerate(paths[:3000]):
        image = images[number % len(images)]
        works = dict(decode=partial(decode, [path]), labels=partial(label_counts, path),
                     check=partial(check_image, image, path, (500, 375)))
        for name in list(works) if number % 2 else reversed(works):
            with one.time(name):
                works[name]()
    one.seconds['labels and check'] = [sum(pair) for pair in zip(one.seconds['labels'], one.seconds['check'])]
    for _ in range(3):
        for name, work in (('decode', lambda: decode(paths)), ('in processes', lambda: decode_in_processes(paths)),
                           ('scan', lambda: scan(paths, LABELS))):
            began, began_on_wall = processor_seconds(), time.perf_counter()
            work()
            own.seconds[name].append(processor_seconds() - began)
            wall.seconds[name].append(time.perf_counter() - began_on_wall)
    return own, wall, one, f'{len(paths)} of {what}'


def measure(device, out):
    init_default_scope('mmseg')
    torch.set_num_threads(1)
    root = out.absolute() / 'data'
    iterators = {name: iter(loader) for name, loader in loaders(root, workers=0).items()}
    batches = interleaved({name: lambda name=name: next(iterators[name]) for name in iterators}, rounds=15,
                          own_time=True)
    working = waiting(root, device)
    own, wall, one, what = class_index(root)
    cores = os.cpu_count()
    return dict(
        rows=[
            row('speed / speed with data from memory, one worker', working['ours'], at_least=0.95),
            row('the same, plain mmseg', working['plain']),
            row(f'processor time of a batch of {BATCH}: ours / plain mmseg ({1e3 * batches.median("plain"):.0f} ms)',
                batches.ratio('ours', 'plain')),
            row('labels of a mask / decoding it with Pillow, in turns', one.ratio('labels', 'decode')),
            row("the same with the check of a JPEG of VOC's size", one.ratio('labels and check', 'decode'),
                at_most=2.5),
            row(f'class index, {what}: processor time / decoding with Pillow ({own.median("decode"):.1f} s)',
                own.ratio('scan', 'decode'), at_most=2.5),
            row(f'the same on the wall, {cores} cores: time / (decoding / cores)',
                wall.ratio('scan', 'decode').value * cores, at_most=2.5),
            row(f'on the wall: time / decoding in {cores} processes', wall.ratio('scan', 'in processes')),
        ],
        seconds=dict(batch={name: batches.median(name) for name in batches.seconds},
                     class_index={name: own.median(name) for name in own.seconds}))
