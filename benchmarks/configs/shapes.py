# The comparison on generated data: the embedded default, cheaper, so that a hundred runs fit an afternoon on two cores.
# Tasks: 4-1 adds one class, 2-3 adds three at once, 3-1 adds two, one by one.
_base_ = ['../../configs/hrhf/shapes_3-1.py']
crop_size = (64, 64)
channels_last = True
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
# 12 can be divided 1:1, 1:2 and 2:1.
train_dataloader = dict(batch_size=12, dataset=dict(pipeline=train_pipeline))
model = dict(data_preprocessor=dict(size=crop_size))
replay = dict(inversion=dict(size=crop_size, batch_size=48))
_real_images = dict(
    _delete_=True,
    type='RealImages',
    size=crop_size,
    data_root={{_base_.data_root}},
    # Written out: a base's value can be taken whole, but not be a part of another.
    ann_file='data/shapes/ImageSets/Segmentation/train.txt',
    labels=(1, 2, 3, 4, 5),
    whole_side=False,
    masks='SegmentationClass',
    suffix='.png')
comparison = dict(
    methods={
        # As MiB does where classes come one by one (VOC 15-1).
        'MiB, KD 100': dict(method=dict(_delete_=True, type='MiB', loss_kd=dict(loss_weight=100.0))),
        # Joint trains as long as all steps of 3-1 together.
        'Joint': dict(
            train_cfg=dict(max_iters=1800, val_interval=1800),
            param_scheduler=[dict(type='PolyLR', power=0.9, eta_min=0, by_epoch=False, end=1800)]),
        # All methods train equally many iterations, of which HRHF's hold half as many real images; the paper counts
        # passes over the real images.
        'HRHF, equal epochs': dict(
            method=dict(_delete_=True, type='HRHF'),
            incremental_overrides=dict(
                param_scheduler=[dict(type='PolyLR', power=0.9, eta_min=0, by_epoch=False, end=1200)],
                train_cfg=dict(max_iters=1200, val_interval=1200))),
        # No method of the paper: see benchmarks/unlabelled_background.py.
        'fakes without background': dict(
            custom_imports=dict(imports=['benchmarks.unlabelled_background']),
            method=dict(_delete_=True, type='UnlabelledFakeBackground')),
        'fakes without background, equal epochs': dict(
            custom_imports=dict(imports=['benchmarks.unlabelled_background']),
            method=dict(_delete_=True, type='UnlabelledFakeBackground'),
            incremental_overrides=dict(
                param_scheduler=[dict(type='PolyLR', power=0.9, eta_min=0, by_epoch=False, end=1200)],
                train_cfg=dict(max_iters=1200, val_interval=1200))),
        # Bounds, not methods: see benchmarks/real_images.py.
        'real images for fakes': dict(
            custom_imports=dict(imports=['benchmarks.real_images']),
            method=dict(_delete_=True, type='HRHF'),
            replay=dict(inversion=_real_images)),
        'HRHF+ with real images': dict(
            custom_imports=dict(imports=['benchmarks.real_images']),
            method=dict(_delete_=True, type='HRHFPlus'),
            replay=dict(ratio='2:1', added=True, inversion=_real_images)),
        # What each part of HRHF+ is worth.
        'HRHF+ unbalanced': dict(
            method=dict(_delete_=True, type='HRHFPlus', balanced=False), replay=dict(ratio='2:1', added=True)),
        'HRHF+ not selective': dict(
            method=dict(_delete_=True, type='HRHFPlus', selective=False), replay=dict(ratio='2:1', added=True)),
        'HRHF+ not added': dict(method=dict(_delete_=True, type='HRHFPlus'), replay=dict(ratio='1:1')),
    })
# 300 iterations leave new classes underlearnt, most where half of a batch is synthetic (benchmarks/notes/results.md).
incremental_overrides = dict(
    param_scheduler=[dict(type='PolyLR', power=0.9, eta_min=0, by_epoch=False, end=600)],
    train_cfg=dict(max_iters=600, val_interval=600))
