"""Unlike families of mmseg's zoo, tiny: a step that continues another, its losses, fakes and plain state."""
import copy

import mmseg.models  # noqa: F401
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.registry import MODELS, TASK_UTILS
from mmseg.structures import SegDataSample

from mmseg_hrhf.config.plain import set_classes
from mmseg_hrhf.models.heads import check_losses, class_heads, predicted_logits
from mmseg_hrhf.models.segmentors import DKD, HRHFPlus
from mmseg_hrhf.models.student_pass import SYNTHETIC
from mmseg_hrhf.replay.inversion.base import FakeRequest
from mmseg_hrhf.work_dir.checkpoint import save_checkpoint, weights_fingerprint

SIDE, OLD, NEW = 64, 3, 4
NAMES = ['background', 'red', 'green', 'blue']
NORM = dict(type='BN', requires_grad=True)
PLAIN = dict(num_classes=19, norm_cfg=NORM, dropout_ratio=0., align_corners=False)


def resnet(stages=2):
    return dict(type='ResNet', depth=18, base_channels=4, stem_channels=4, num_stages=stages,
                out_indices=tuple(range(stages)), strides=(1, 2, 2, 2)[:stages], dilations=(1, ) * stages,
                norm_cfg=NORM)


def vit(**options):
    return dict(type='VisionTransformer', img_size=SIDE, patch_size=16, embed_dims=8, num_layers=2, num_heads=2,
                mlp_ratio=2, out_indices=(0, 1), norm_cfg=dict(type='LN'), **options)


def fcn(**options):
    return dict(dict(type='FCNHead', in_channels=4, in_index=0, channels=4, num_convs=1, **PLAIN), **options)


def encoder_decoder(backbone, head, **options):
    return dict(dict(type='EncoderDecoder', backbone=backbone, decode_head=head), **options)


def kernel_update():
    return dict(type='KernelUpdateHead', num_classes=19, num_ffn_fcs=2, num_heads=1, num_mask_fcs=1,
                feedforward_channels=4, in_channels=4, out_channels=4, conv_kernel_size=1,
                feat_transform_cfg=dict(conv_cfg=dict(type='Conv2d'), act_cfg=None),
                kernel_updator_cfg=dict(type='KernelUpdator', in_channels=4, feat_channels=4, out_channels=4,
                                        act_cfg=dict(type='ReLU'), norm_cfg=dict(type='LN')))


def attention():
    return dict(embed_dims=8, num_heads=2, attn_drop=0., proj_drop=0., batch_first=True)


def query_based():
    """MaskFormer: it needs mmdetection, and of mmcv no compiled op."""
    ffn = dict(embed_dims=8, feedforward_channels=8, num_fcs=2, act_cfg=dict(type='ReLU'), ffn_drop=0.)
    layer = dict(self_attn_cfg=attention(), cross_attn_cfg=attention(), ffn_cfg=ffn)
    assigner = dict(type='mmdet.HungarianAssigner', match_costs=[
        dict(type='mmdet.ClassificationCost', weight=1.0),
        dict(type='mmdet.FocalLossCost', weight=20.0, binary_input=True),
        dict(type='mmdet.DiceCost', weight=1.0, pred_act=True, eps=1.0)])
    head = dict(
        type='MaskFormerHead', in_channels=[4, 8], feat_channels=8, out_channels=8, in_index=[0, 1], num_classes=19,
        num_queries=6, enforce_decoder_input_project=False,
        pixel_decoder=dict(type='mmdet.PixelDecoder', norm_cfg=dict(type='GN', num_groups=2),
                           act_cfg=dict(type='ReLU')),
        positional_encoding=dict(num_feats=4, normalize=True),
        transformer_decoder=dict(return_intermediate=True, num_layers=1, layer_cfg=layer),
        loss_cls=dict(type='mmdet.CrossEntropyLoss', reduction='mean', class_weight=[1.0] * 19 + [0.1]),
        loss_mask=dict(type='mmdet.FocalLoss', reduction='mean', loss_weight=20.0),
        loss_dice=dict(type='mmdet.DiceLoss', activate=True, reduction='mean', naive_dice=True, eps=1.0),
        train_cfg=dict(assigner=assigner, sampler=dict(type='mmdet.MaskPseudoSampler')))
    return encoder_decoder(resnet(), head)


# Family: (config, whether the old classes' probabilities survive growth).
FAMILIES = {
    'plain head and auxiliary head': (
        encoder_decoder(resnet(), fcn(in_channels=8, in_index=1), auxiliary_head=[fcn()]), True),
    'tuple head (DANet)': (encoder_decoder(resnet(), dict(fcn(type='DAHead', pam_channels=2), num_convs=None)), True),
    'tuple head with class presence (EncNet)': (
        encoder_decoder(resnet(), dict(fcn(type='EncHead', num_codes=2, in_channels=[4], in_index=[0]),
                                       num_convs=None)), True),
    'three outputs (PIDNet)': (
        encoder_decoder(
            dict(type='PIDNet', channels=4, ppm_channels=4, num_stem_blocks=1, num_branch_blocks=1, norm_cfg=NORM),
            dict(type='PIDHead', in_channels=16, channels=8, num_classes=19, norm_cfg=NORM, dropout_ratio=0.,
                 align_corners=True, loss_decode=[
                     dict(type='CrossEntropyLoss', class_weight=[1.0] * 19, loss_weight=0.4),
                     dict(type='OhemCrossEntropy', thres=0.9, min_kept=100, loss_weight=1.0),
                     dict(type='BoundaryLoss', loss_weight=20.0),
                     dict(type='OhemCrossEntropy', thres=0.9, min_kept=100, loss_weight=1.0)])), True),
    'cascade (OCRNet)': (
        encoder_decoder(
            resnet(), [fcn(in_channels=8, in_index=1),
                       dict(fcn(type='OCRHead', in_channels=8, in_index=1, ocr_channels=4), num_convs=None)],
            type='CascadeEncoderDecoder', num_stages=2), False),
    'iterative head (K-Net)': (
        encoder_decoder(resnet(), dict(type='IterativeDecodeHead', num_stages=2, kernel_generate_head=fcn(),
                                       kernel_update_head=[kernel_update(), kernel_update()])), False),
    'ViT (SETR)': (
        encoder_decoder(vit(), dict(type='SETRUPHead', in_channels=8, channels=4, in_index=1, num_convs=1, up_scale=4,
                                    kernel_size=3, **PLAIN)), True),
    'ViT with class tokens (Segmenter)': (
        encoder_decoder(vit(with_cls_token=True, final_norm=True),
                        dict(type='SegmenterMaskTransformerHead', in_channels=8, channels=8, num_layers=1,
                             num_heads=2, embed_dims=8, in_index=1, num_classes=19, dropout_ratio=0.)), False),
    'query-based head (MaskFormer)': (query_based(), True),
}


def config(name):
    cfg = copy.deepcopy(FAMILIES[name][0])
    heads = cfg['decode_head'] if isinstance(cfg['decode_head'], list) else [cfg['decode_head']]
    for head in heads:
        if head.get('num_convs', 0) is None:
            del head['num_convs']
    cfg['data_preprocessor'] = dict(type='SegDataPreProcessor', mean=[127.5] * 3, std=[64.] * 3, size=(SIDE, SIDE))
    cfg['test_cfg'] = dict(mode='whole')
    return ConfigDict(cfg)


@pytest.fixture(params=list(FAMILIES))
def family(request):
    if 'query' in request.param:
        pytest.importorskip('mmdet', reason='query-based heads need mmdetection')
    return request.param


@pytest.fixture
def model(family, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        teacher = MODELS.build(set_classes(config(family), NAMES[:OLD]))
        teacher.init_weights()
        save_checkpoint(tmp_path / 'teacher.pth', teacher.state_dict(), {})
        model = MODELS.build(
            dict(type='HRHF', student=set_classes(config(family), NAMES),
                 teacher=set_classes(config(family), NAMES[:OLD]), teacher_checkpoint=str(tmp_path / 'teacher.pth')))
        model.init_weights()
        yield model


def batch():
    labels = torch.zeros(2, SIDE, SIDE, dtype=torch.long)
    labels[:, 10:40, 10:40] = NEW - 1
    samples = []
    for label in labels:
        sample = SegDataSample(metainfo=dict(img_shape=(SIDE, SIDE), pad_shape=(SIDE, SIDE), ori_shape=(SIDE, SIDE)))
        sample.gt_sem_seg = PixelData(data=label[None])
        sample.gt_edge_map = PixelData(data=(label == NEW - 1)[None].long())
        samples.append(sample)
    return torch.randn(2, 3, SIDE, SIDE), samples


def test_a_step_of_each_family(model, family):
    # Growth.
    inputs, samples = batch()
    with torch.no_grad():
        old = predicted_logits(model.teacher, inputs).softmax(1)
        new = predicted_logits(model.student.eval(), inputs).softmax(1)
    assert new.shape == (2, NEW, SIDE, SIDE)
    folded = torch.cat([new[:, :1] + new[:, OLD:].sum(1, keepdim=True), new[:, 1:OLD]], 1)
    assert torch.allclose(folded, old, atol=1e-5) == FAMILIES[family][1]
    # Training: two iterations of the real losses.
    before = weights_fingerprint(model.teacher.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(2):
        losses = model.loss(inputs, samples)
        assert 'loss_kd' in losses and any(name.startswith('decode') for name in losses)
        total, _ = model.parse_losses(losses)
        optimizer.zero_grad()
        total.backward()
        assert total.isfinite()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
        optimizer.step()
    # Inversion of the teacher.
    inversion = TASK_UTILS.build(dict(type='SegInversion', size=SIDE, batch_size=2, stages=[(1.0, 2)], lr=0.1))
    fakes = inversion(model.teacher, FakeRequest(((1, ), (2, )), 0))
    assert fakes.images.shape == (2, SIDE, SIDE, 3)
    assert weights_fingerprint(model.teacher.state_dict()) == before and not model.teacher.training
    # The state is that of the bare segmentor.
    MODELS.build(set_classes(config(family), NAMES)).load_state_dict(model.state_dict(), strict=True)


def test_losses_of_each_family_can_be_replaced_or_are_refused(model, family):
    if 'query' in family:
        with pytest.raises(ValueError, match='MaskFormerHead has no per-pixel loss'):
            check_losses(model.student)
        return
    check_losses(model.student)
    assert all(head.loss_decode is not None for head in class_heads(model.student))


def test_hrhf_plus_trains_each_family_or_refuses_it(model, family, tmp_path):
    size, student = (SIDE, SIDE), set_classes(config(family), NAMES)
    built = MODELS.build(student)
    if 'query' in family:
        with pytest.raises(ValueError, match='MaskFormerHead has no per-pixel loss'):
            HRHFPlus.check_segmentor(built, size)
        return
    HRHFPlus.check_segmentor(built, size)
    plus = MODELS.build(dict(type='HRHFPlus', student=student, teacher=set_classes(config(family), NAMES[:OLD]),
                             teacher_checkpoint=str(tmp_path / 'teacher.pth')))
    plus.init_weights()
    inputs, samples = batch()
    samples[1].set_metainfo({SYNTHETIC: True})
    samples[1].gt_sem_seg.data.zero_()
    losses = plus.train().loss(inputs, samples)
    assert {'loss_kd', 'loss_kd_fake'} <= set(losses) and any(name.startswith('decode') for name in losses)
    total, _ = plus.parse_losses(losses)
    total.backward()
    assert total.isfinite() and all(p.grad.isfinite().all() for p in plus.parameters() if p.grad is not None)
    assert any(p.grad.any() for p in plus.student.backbone.parameters() if p.grad is not None)


def test_dkd_trains_heads_that_classify_by_one_convolution(model, family):
    size, student = (SIDE, SIDE), model.student
    if any(name in family for name in ('query', 'K-Net', 'Segmenter')):
        with pytest.raises(ValueError, match=r'has no per-pixel loss|does not classify by mmseg.s conv_seg alone'):
            DKD.check_segmentor(student, size)
        return
    DKD.check_segmentor(student, size)
    first = DKD(student=set_classes(config(family), NAMES[:OLD]))
    first.init_weights()
    total, logged = first.train().parse_losses(first.loss(*old_batch()))
    total.backward()
    assert total.isfinite() and 'loss_ac' in logged


def old_batch():
    inputs, samples = batch()
    for sample in samples:
        sample.gt_sem_seg.data.clamp_(max=OLD - 1)
    return inputs, samples
