"""A tiny segmentor with two stages, an auxiliary head and a teacher, for any system."""
import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_hrhf.work_dir.checkpoint import save_checkpoint

NORM = dict(type='BN', requires_grad=True)
SIDE = 16


def segmentor(num_classes, **head):
    common = dict(type='FCNHead', channels=4, num_convs=1, num_classes=num_classes, dropout_ratio=0., norm_cfg=NORM)
    return dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[0.] * 3, std=[1.] * 3, size=(SIDE, SIDE)),
        backbone=dict(type='ResNet', depth=18, base_channels=4, stem_channels=4, num_stages=2, out_indices=(0, 1),
                      strides=(1, 1), dilations=(1, 1), norm_cfg=NORM),
        decode_head=dict(common, in_channels=8, in_index=1, **head),
        auxiliary_head=dict(common, in_channels=4, in_index=0,
                            loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4)))


@pytest.fixture
def build_system(tmp_path):
    """``build(type, num_old, num_classes, method_state, **options)``: a system at step 1, or at step 0 if num_old=0."""
    def build(kind, num_old=3, num_classes=5, method_state=None, head=None, **options):
        torch.manual_seed(0)
        head = head or {}
        if num_old:
            teacher = MODELS.build(segmentor(num_old, **head))
            torch.nn.init.normal_(teacher.decode_head.conv_seg.weight, std=3.)
            path = tmp_path / 'teacher.pth'
            save_checkpoint(path, teacher.state_dict(), {}, method_state=method_state)
            options.update(teacher=segmentor(num_old, **head), teacher_checkpoint=str(path))
        model = MODELS.build(dict(type=kind, student=segmentor(num_classes, **head), **options))
        model.init_weights()
        return model

    return build


@pytest.fixture
def make_batch():
    """``make_batch(choices, number)``: random images and labels drawn from ``choices``."""
    def make(choices, number=2, seed=0):
        labels = np.random.default_rng(seed).choice(choices, size=(number, SIDE, SIDE))
        samples = []
        for label in labels:
            shape = (SIDE, SIDE)
            sample = SegDataSample(metainfo=dict(img_shape=shape, pad_shape=shape, ori_shape=shape))
            sample.gt_sem_seg = PixelData(data=torch.as_tensor(label, dtype=torch.long)[None])
            samples.append(sample)
        torch.manual_seed(seed)
        return torch.randn(number, 3, SIDE, SIDE), samples

    return make
