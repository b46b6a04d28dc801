"""A family's stock config on generated data: two short learning steps, no downloads."""
from __future__ import annotations

import os.path as osp
from pathlib import Path

import mmseg
import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from PIL import Image
from zoo_families import Family

HRHF = Path(__file__).parents[1] / 'configs' / '_base_' / 'methods' / 'hrhf.py'
CLASSES = ['background', 'red', 'green', 'blue']
COLOURS = np.array([[120, 120, 120], [220, 60, 60], [60, 200, 60], [60, 60, 220]])
# Red and green in step 0, blue in step 1; the last two images are for evaluation.
CONTENTS = [(1, 2), (1, ), (2, ), (3, ), (3, 1), (3, 2), (1, 2, 3), (2, 3)]


def write_images(root: Path, size: int) -> None:
    """Write images and masks of coloured rectangles on noise, ``size`` pixels wide."""
    rng = np.random.default_rng(0)
    for i, labels in enumerate(CONTENTS):
        split = 'train' if i < 6 else 'val'
        mask = np.zeros((size, size), dtype=np.uint8)
        for label in labels:
            top, left = rng.integers(0, size - size // 3, 2)
            mask[top:top + size // 3, left:left + size // 3] = label
        image = np.clip(COLOURS[mask] + rng.normal(0, 20, (size, size, 3)), 0, 255).astype(np.uint8)
        for folder, array in (('images', image), ('masks', mask)):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / folder / split / f'{i}.png')


def zoo_config(name: str, family: Family, work: Path, iterations: int = 2) -> tuple[Config, list[str]]:
    """The family's config with our method, generated data and a short schedule; and notes on other changes."""
    path = osp.join(osp.dirname(mmseg.__file__), '.mim', 'configs', name, f'{family.config}.py')
    cfg, notes = Config.fromfile(path), []
    cfg.merge_from_dict(family.overrides)
    cfg.merge_from_dict(Config.fromfile(HRHF).to_dict())
    _narrow(cfg.model)
    write_images(work / 'data', family.size)
    cfg.model.pop('pretrained', None)
    if cfg.model.type == 'MultimodalEncoderDecoder':
        cfg.model.pretrained = _text_weights(cfg.model.text_encoder, work)
    notes += _strip(cfg.model)
    cfg.pop('data_preprocessor', None)
    cfg.model.data_preprocessor.update(size=(family.size, family.size))
    cfg.model.data_preprocessor.pop('size_divisor', None)
    if cfg.optim_wrapper.type == 'AmpOptimWrapper':
        cfg.optim_wrapper.type = 'OptimWrapper'
        cfg.optim_wrapper.pop('loss_scale', None)
        notes.append('mixed precision off (needs a GPU)')
    edges = [dict(type='GenerateEdge', edge_width=4)] if name == 'pidnet' else []
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    for split in ('train', 'val'):
        dataset = dict(
            type='BaseSegDataset', data_root=str(work / 'data'), img_suffix='.png',
            metainfo=dict(classes=CLASSES, palette=COLOURS.tolist()),
            data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'masks/{split}'),
            pipeline=load + edges * (split == 'train') + [dict(type='PackSegInputs')])
        sampler = dict(type='InfiniteSampler', shuffle=True) if split == 'train' else dict(
            type='DefaultSampler', shuffle=False)
        cfg[f'{split}_dataloader'] = ConfigDict(
            batch_size=2 if split == 'train' else 1, num_workers=0, persistent_workers=False, sampler=sampler,
            dataset=dataset)
    cfg.test_dataloader = cfg.val_dataloader
    cfg.val_evaluator = cfg.test_evaluator = ConfigDict(type='IoUMetric', iou_metrics=['mIoU'])
    cfg.train_cfg = ConfigDict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=iterations)
    cfg.val_cfg, cfg.test_cfg = ConfigDict(type='ValLoop'), ConfigDict(type='TestLoop')
    cfg.param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0, by_epoch=False, end=iterations)]
    cfg.default_hooks = ConfigDict(
        timer=dict(type='IterTimerHook'), logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
        param_scheduler=dict(type='ParamSchedulerHook'), sampler_seed=dict(type='DistSamplerSeedHook'),
        checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=iterations + 1, save_last=False))
    cfg.log_processor = ConfigDict(by_epoch=False)
    cfg.scenario = ConfigDict(task='2-1', setting='overlapped')
    cfg.replay = ConfigDict(
        ratio='1:1', num_images=2,
        inversion=dict(type='SegInversion', size=family.size, batch_size=2, stages=[(1.0, 2)]))
    cfg.work_dir, cfg.log_level = str(work / 'run'), 'WARNING'
    return cfg, notes


def _narrow(model: dict) -> None:
    """Use a quarter of the channels in ResNet-50 and in heads directly on top of it."""
    backbone, head = model.get('backbone', {}), model.decode_head
    if backbone.get('type') not in ('ResNet', 'ResNetV1c') or backbone.get('depth') != 50 or model.get('neck'):
        return
    if not isinstance(head, dict) or 'num_classes' not in head or 'channels' not in head:
        return
    backbone.update(base_channels=16, stem_channels=16)
    for part in (head, model.get('auxiliary_head')):
        if isinstance(part, dict):
            channels = part['in_channels']
            part['in_channels'] = [n // 4 for n in channels] if isinstance(channels, (list, tuple)) else channels // 4
            part['channels'] //= 4


def _strip(part) -> list[str]:
    """Remove pretrained weights and class weights of the zoo. Returns notes."""
    notes = []
    if isinstance(part, (list, tuple)):
        for item in part:
            notes += _strip(item)
    elif isinstance(part, dict):
        if 'Pretrained' in str(part.get('init_cfg')):
            part['init_cfg'] = None
        weights = part.get('class_weight')
        if weights is not None and len(set(weights[:-1])) > 1:
            part['class_weight'] = None
            notes.append('class_weight of the zoo data set left out')
        for item in part.values():
            notes += _strip(item)
    return list(dict.fromkeys(notes))


def _text_weights(encoder: dict, work: Path) -> str:
    """Random weights for SAN's text encoder, whose parameters have no initialisation except pretrained weights."""
    torch.manual_seed(0)
    width = encoder['embed_dims']
    path = work / 'text_encoder.pth'
    torch.save({
        'text_encoder.positional_embedding': torch.randn(77, width) * 0.01,
        'text_encoder.text_projection': torch.randn(width, encoder['output_dims']) * width**-0.5
    }, path)
    return str(path)
