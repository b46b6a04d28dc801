"""Distilling features asks for the same maps in training and in eval mode."""
import pytest
import torch
from mmseg.registry import MODELS

from mmseg_hrhf.models.segmentors.lwf import ILT
from mmseg_hrhf.models.segmentors.mib import MiB
from mmseg_hrhf.models.segmentors.plop import PLOP

NORM = dict(type='BN', requires_grad=True)
BACKBONES = {
    'PIDNet': dict(type='PIDNet', channels=4, ppm_channels=4, num_stem_blocks=1, num_branch_blocks=1, norm_cfg=NORM),
    'DDRNet': dict(type='DDRNet', channels=4, ppm_channels=4, norm_cfg=NORM),
    'ResNet': dict(type='ResNet', depth=18, base_channels=4, stem_channels=4, norm_cfg=dict(type='SyncBN')),
}


@pytest.mark.parametrize('method, name, fits', [
    (PLOP, 'ResNet', True), (ILT, 'ResNet', True), (MiB, 'PIDNet', True), (ILT, 'DDRNet', True),
    (PLOP, 'PIDNet', False), (ILT, 'PIDNet', False), (PLOP, 'DDRNet', False),
])
def test_backbones_that_return_more_in_training(method, name, fits):
    head = dict(type='FCNHead', in_channels=16, channels=4, num_convs=1, num_classes=4, norm_cfg=NORM)
    model = MODELS.build(dict(type='EncoderDecoder', backbone=BACKBONES[name], decode_head=head))
    if fits:
        method.check_segmentor(model, (512, 512))
    else:
        with pytest.raises(ValueError, match=r'feature maps .* choose a method without feature distillation'):
            method.check_segmentor(model, (512, 512))


def test_a_backbone_that_cannot_be_tried_is_not_refused():
    head = dict(type='FCNHead', in_channels=16, channels=4, num_convs=1, num_classes=4, norm_cfg=NORM)
    backbone = dict(BACKBONES['PIDNet'], in_channels=6)
    model = MODELS.build(dict(type='EncoderDecoder', backbone=backbone, decode_head=head))
    PLOP.check_segmentor(model, (64, 64))
    with pytest.raises(RuntimeError, match='6 channels'):
        model.backbone(torch.zeros(2, 3, 64, 64))
