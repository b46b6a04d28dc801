# Three steps of the embedded default in little time: a job to be killed. Whatever is random in a training is in it.
_base_ = '../../configs/hrhf/shapes_3-1.py'
model = dict(
    backbone=dict(base_channels=4, stem_channels=4),
    decode_head=dict(in_channels=[4, 8, 16], channels=8, dropout_ratio=0.1))
train_dataloader = dict(
    num_workers=2,
    dataset=dict(pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations'),
        dict(type='RandomResizedCrop', size=96),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PhotoMetricDistortion'),
        dict(type='PackSegInputs'),
    ]))
train_cfg = dict(max_iters=40, val_interval=25)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0, by_epoch=False, end=40)]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=10))
custom_hooks = [dict(type='EMAHook', momentum=0.05)]
incremental_overrides = dict(
    _delete_=True, optim_wrapper=dict(optimizer=dict(lr=0.02)))
replay = dict(num_images=24, inversion=dict(batch_size=8, stages=[(0.5, 10), (1.0, 5)]))
