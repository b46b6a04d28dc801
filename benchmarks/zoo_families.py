"""One config per model family of mmseg's zoo, with overrides that shrink it without changing its structure."""
from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Family:
    """A family.

    Args:
        config: file name in the family's folder of the installed zoo, without ``.py``.
        size: side of the square images in pixels.
        overrides: dotted keys of the config.
        needs: packages required besides the base installation.
    """
    config: str
    size: int = 128
    overrides: dict = field(default_factory=dict)
    needs: str = ''


def _r50(name: str, **options) -> Family:
    return Family(f'{name}_r50-d8_4xb4-80k_ade20k-512x512', **options)


def _transformer(width: int, auxiliary: int = 0) -> dict:
    """Overrides that set the width of a plain vision transformer and its heads to ``width`` channels."""
    overrides = {'model.backbone.embed_dims': width, 'model.backbone.num_heads': 4, 'model.decode_head.channels': 64}
    if auxiliary > 1:
        overrides.update({f'model.auxiliary_head.{i}.in_channels': width for i in range(auxiliary)})
    elif auxiliary:
        overrides['model.auxiliary_head.in_channels'] = width
    return overrides


_NARROW = {'model.decode_head.channels': 64}
_PYRAMID = {
    **_transformer(96, 1), 'model.backbone.img_size': (128, 128), 'model.neck.embed_dim': 96,
    'model.decode_head.in_channels': [96] * 4
}
_OPS, _DET, _PRETRAIN = "mmcv's compiled ops", 'mmdetection', 'mmpretrain'

FAMILIES = {
    'ann': _r50('ann'),
    'apcnet': _r50('apcnet'),
    'beit': Family('beit-base_upernet_8xb2-160k_ade20k-640x640',
                   overrides={**_PYRAMID}),
    'bisenetv1': Family('bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024'),
    'bisenetv2': Family('bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024'),
    'ccnet': _r50('ccnet', needs=_OPS),
    'cgnet': Family('cgnet_fcn_4xb4-60k_cityscapes-680x680'),
    'convnext': Family('convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512', overrides=_NARROW, needs=_PRETRAIN),
    'danet': _r50('danet'),
    'ddrnet': Family('ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024'),
    'deeplabv3': _r50('deeplabv3'),
    'deeplabv3plus': Family('deeplabv3plus_r18-d8_4xb4-80k_loveda-512x512'),
    'dmnet': _r50('dmnet'),
    'dnlnet': _r50('dnl'),
    'dpt': Family('dpt_vit-b16_8xb2-160k_ade20k-512x512',
                  overrides={**_transformer(96), 'model.decode_head.in_channels': (96, ) * 4,
                             'model.decode_head.embed_dims': 96}),
    'emanet': Family('emanet_r50-d8_4xb2-80k_cityscapes-512x1024'),
    'encnet': _r50('encnet'),
    'erfnet': Family('erfnet_fcn_4xb4-160k_cityscapes-512x1024'),
    'fastfcn': Family('fastfcn_r50-d32_jpu_enc_4xb4-80k_ade20k-512x512'),
    'fastscnn': Family('fast_scnn_8xb4-160k_cityscapes-512x1024'),
    'fcn': _r50('fcn'),
    'gcnet': _r50('gcnet'),
    'hrnet': Family('fcn_hr18s_4xb4-80k_ade20k-512x512'),
    'icnet': Family('icnet_r18-d8_4xb2-80k_cityscapes-832x832'),
    'isanet': _r50('isanet'),
    'knet': Family('knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512'),
    'mae': Family('mae-base_upernet_8xb2-amp-160k_ade20k-512x512',
                  overrides={**_PYRAMID}),
    'mask2former': Family('mask2former_r50_8xb2-160k_ade20k-512x512', needs=_DET,
                          overrides={'model.decode_head.num_queries': 20,
                                     'model.decode_head.transformer_decoder.num_layers': 3,
                                     'model.decode_head.pixel_decoder.encoder.num_layers': 1,
                                     'model.decode_head.train_cfg.num_points': 1024}),
    'maskformer': Family('maskformer_r50-d32_8xb2-160k_ade20k-512x512', needs=_DET,
                         overrides={'model.decode_head.num_queries': 20,
                                    'model.decode_head.transformer_decoder.num_layers': 2}),
    'mobilenet_v2': Family('mobilenet-v2-d8_fcn_4xb4-160k_ade20k-512x512'),
    'mobilenet_v3': Family('mobilenet-v3-d8_lraspp_4xb4-320k_cityscapes-512x1024', size=512),
    'nonlocal_net': _r50('nonlocal'),
    'ocrnet': Family('ocrnet_hr18s_4xb4-80k_ade20k-512x512'),
    'pidnet': Family('pidnet-s_2xb6-120k_1024x1024-cityscapes'),
    'point_rend': Family('pointrend_r50_4xb4-160k_ade20k-512x512', needs=_OPS),
    'poolformer': Family('fpn_poolformer_s12_8xb4-40k_ade20k-512x512', needs=_PRETRAIN),
    'psanet': _r50('psanet', needs=_OPS, overrides={'model.decode_head.mask_size': (31, 31)}),
    'pspnet': Family('pspnet_r18-d8_4xb4-80k_loveda-512x512'),
    'resnest': Family('resnest_s101-d8_fcn_4xb4-160k_ade20k-512x512',
                      overrides={'model.backbone.depth': 50, 'model.backbone.stem_channels': 64}),
    'san': Family('san-vit-b16_coco-stuff164k-640x640', needs=_OPS,
                  overrides={'model.text_encoder.num_layers': 1, 'model.decode_head.train_cfg.num_points': 1024}),
    'segformer': Family('segformer_mit-b0_8xb2-160k_ade20k-512x512'),
    'segmenter': Family('segmenter_vit-t_mask_8xb1-160k_ade20k-512x512'),
    'segnext': Family('segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512'),
    'sem_fpn': Family('fpn_r50_4xb4-160k_ade20k-512x512'),
    'setr': Family('setr_vit-l_pup_8xb2-160k_ade20k-512x512',
                   overrides={**_transformer(128, 3), 'model.decode_head.in_channels': 128,
                              'model.backbone.num_layers': 4, 'model.backbone.out_indices': (0, 1, 2, 3)}),
    'stdc': Family('stdc1_4xb12-80k_cityscapes-512x1024'),
    'swin': Family('swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512', overrides=_NARROW),
    'twins': Family('twins_pcpvt-s_fpn_fpnhead_8xb4-80k_ade20k-512x512'),
    'unet': Family('unet-s5-d16_fcn_4xb4-40k_stare-128x128'),
    'upernet': Family('upernet_r18_4xb4-80k_ade20k-512x512', overrides=_NARROW),
    'vit': Family('vit_deit-s16_upernet_8xb2-80k_ade20k-512x512', overrides=_NARROW),
}
