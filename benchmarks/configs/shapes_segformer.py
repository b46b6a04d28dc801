# A narrow SegFormer on the embedded default's data. Its backbone has layer norms; its head has group norm, where the
# stock one has batch norm, so that no layer keeps running statistics.
_base_ = '../../configs/hrhf/shapes_3-1.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='MixVisionTransformer',
        embed_dims=16,
        num_layers=[2, 2, 2, 2],
        num_heads=[1, 2, 4, 8],
        sr_ratios=[8, 4, 2, 1],
        out_indices=(0, 1, 2, 3)),
    decode_head=dict(
        _delete_=True,
        type='SegformerHead',
        in_channels=[16, 32, 64, 128],
        in_index=[0, 1, 2, 3],
        channels=64,
        dropout_ratio=0.0,
        num_classes=6,
        norm_cfg=dict(type='GN', num_groups=8, requires_grad=True),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)))
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.01))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', power=0.9, eta_min=0, by_epoch=False, begin=50, end=600)
]
