"""Step 1 of VOC 15-5 with random weights and images from memory: training without data loading."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.datasets import PascalVOCDataset
from mmseg.registry import DATASETS, MODELS
from mmseg.structures import SegDataSample
from torch.utils.data import Dataset

from mmseg_hrhf.config.plain import set_classes
from mmseg_hrhf.config.run import RunConfig
from mmseg_hrhf.config.step import step_config
from mmseg_hrhf.datasets.raw_labels import RawLabels
from mmseg_hrhf.work_dir.checkpoint import save_checkpoint

REPO = Path(__file__).parents[1]
# Name: model config, crop size, batch size.
NETWORKS = dict(
    mobilenet=('deeplabv3_mobilenet-v2', 128, 12),
    small=('fcn_small', 96, 16),
    resnet101=('deeplabv3_r101-d16', 128, 4),
    r101=('deeplabv3_r101-d16', 512, 12))
RUNTIME = '''
_base_ = ['{repo}/configs/_base_/models/{model}.py', '{repo}/configs/_base_/default_runtime.py',
          '{repo}/configs/_base_/schedules/shapes.py']
scenario = dict(task='15-5', setting='overlapped')
model = dict(data_preprocessor=dict(size=({side}, {side})), decode_head=dict(num_classes=21))
train_dataloader = dict(batch_size={batch}, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True),
                        dataset=dict(type='PascalVOCDataset'))
test_dataloader = dict(batch_size=1, num_workers=0, dataset=dict(type='PascalVOCDataset'))
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
train_cfg = dict(max_iters=100000, val_interval=100000)
optim_wrapper = dict(optimizer=dict(lr=0.001))
'''


@DATASETS.register_module()
class MemoryDataset(Dataset):
    """Decoded images and labels: ``num_real`` with objects of the new classes, ``num_fake`` without labels."""
    metainfo = PascalVOCDataset.METAINFO

    def __init__(self, side: int, num_real: int = 48, num_fake: int = 48) -> None:
        rng, self.num_real, self.num_fake = np.random.default_rng(0), num_real, num_fake
        self.samples = [self._sample(rng, side, real=i < num_real) for i in range(num_real + num_fake)]

    @staticmethod
    def _sample(rng, side, real):
        labels = np.zeros((side, side), dtype=np.int64)
        if real:
            for label in rng.integers(16, 21, 2):
                top, left = rng.integers(0, side // 2, 2)
                labels[top:top + side // 2, left:left + side // 2] = label
            labels[:2] = 255
        shape = dict(img_shape=(side, side), ori_shape=(side, side))
        sample = SegDataSample(metainfo=shape)
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(labels)[None])
        # Smooth, like photographs.
        coarse = torch.from_numpy(rng.normal(128, 60, (1, 3, 8, 8)))
        image = torch.nn.functional.interpolate(coarse, (side, side), mode='bilinear')[0].clamp(0, 255)
        return dict(inputs=image.to(torch.uint8), data_samples=sample)

    def full_init(self) -> None:
        """No-op; mmengine calls it on every dataset."""

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, idx):
        held = self.samples[idx]
        return dict(inputs=held['inputs'], data_samples=held['data_samples'].new())


def in_memory_config(network: str, method: str, out: Path, channels_last: bool = False, **options) -> Config:
    """The config of step 1 of ``method`` on a network of ``NETWORKS``; its teacher has random weights.

    Args:
        channels_last: of the config.
        options: of the method.
    """
    init_default_scope('mmseg')
    model, side, batch = NETWORKS[network]
    file = out / f'{network}.py'
    file.write_text(RUNTIME.format(repo=REPO, model=model, side=side, batch=batch))
    cfg = Config.fromfile(file)
    cfg.method, cfg.channels_last = dict(type=method, **options), channels_last
    scenario = RawLabels.of(PascalVOCDataset, None, False).scenario(cfg.scenario)
    work_dir = out / f'{network}_{method}'
    cfg.work_dir = str(work_dir)
    step = step_config(RunConfig.parse(cfg), scenario, 1, num_real=48)
    torch.manual_seed(0)
    teacher = MODELS.build(set_classes(cfg.model, scenario.class_names(0)))
    save_checkpoint(step.model.teacher_checkpoint, teacher.state_dict(),
                    dict(step=0, dataset_meta=dict(classes=scenario.class_names(0))))
    step.train_dataloader.dataset = dict(type='MemoryDataset', side=side)
    if method == 'HRHF':
        step.train_dataloader.sampler.ratio = '1:1'
    for key in ('test_dataloader', 'test_cfg', 'test_evaluator', 'val_dataloader', 'val_cfg', 'val_evaluator',
                'visualizer'):
        step.pop(key, None)
    step.custom_hooks = [hook for hook in step.custom_hooks if hook['type'] != 'PredictionGridHook']
    return step
