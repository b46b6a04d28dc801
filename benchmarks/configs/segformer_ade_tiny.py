# The SegFormer example, made small enough for a few seconds on a CPU: generated data, crops of 64, a short schedule,
# no download. benchmarks/generate_ade20k_like.py writes the data.
_base_ = '../../configs/mix/segformer_mit-b0_ade_100-10.py'
_data = dict(data_root='data/ade20k_like')
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),  # as in the zoo's config
    dict(type='RandomResize', scale=(256, 96), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(64, 64), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(256, 96), keep_ratio=True),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs')
]
model = dict(data_preprocessor=dict(size=(64, 64)), backbone=dict(init_cfg=None))
train_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False, dataset=dict(**_data, pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(**_data, pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=20, val_interval=20)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=5),
    dict(type='PolyLR', eta_min=0.0, power=1.0, begin=5, end=20, by_epoch=False)
]
default_hooks = dict(logger=dict(interval=5), checkpoint=dict(interval=20))
replay = dict(num_images=16, inversion=dict(stages=[(1.0, 10)]))
