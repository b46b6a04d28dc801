# VOC-animals 3-1: a six-class benchmark of real images at 240 pixels, small enough for a CPU. Not VOC 15-1.
# cat, cow, dog | horse | person | sheep; the other 14 VOC classes are ignored.
# Set DATA to the VOC root and WEIGHTS to ImageNet weights of mmseg's MobileNetV2 (see docs/results.md).
_base_ = [
    '../../configs/_base_/models/deeplabv3_mobilenet-v2.py', '../../configs/_base_/default_runtime.py',
    '../../configs/_base_/methods/hrhf.py'
]
data_root = '{{$DATA:data/voc_animals/VOCdevkit/VOC2012}}'
weights = '{{$WEIGHTS:data/weights/mobilenet_v2_imagenet.pth}}'
crop_size = 112
channels_last = True

scenario = dict(steps=[['cat', 'cow', 'dog'], ['horse'], ['person'], ['sheep']], setting='overlapped')
_real_images = dict(
    _delete_=True,
    type='RealImages',
    size=crop_size,
    data_root=data_root,
    ann_file=data_root + '/ImageSets/Segmentation/train_aug.txt',
    labels=(8, 10, 12, 13, 15, 17))
comparison = dict(
    tasks={'4-2': dict(steps=[['cat', 'cow', 'dog', 'horse'], ['person', 'sheep']])},
    methods={
        # As MiB does where classes come one by one (VOC 15-1).
        'MiB, KD 100': dict(method=dict(_delete_=True, type='MiB', loss_kd=dict(loss_weight=100.0))),
        # Bounds, not methods: see benchmarks/real_images.py.
        'real images for fakes': dict(
            custom_imports=dict(imports=['benchmarks.real_images']),
            method=dict(_delete_=True, type='HRHF'),
            replay=dict(num_images=384, inversion=_real_images)),
        'HRHF+ with real images': dict(
            custom_imports=dict(imports=['benchmarks.real_images']),
            method=dict(_delete_=True, type='HRHFPlus'),
            replay=dict(ratio='2:1', added=True, num_images=384, inversion=_real_images)),
        # What each part of HRHF+ is worth.
        'HRHF+ unbalanced': dict(
            method=dict(_delete_=True, type='HRHFPlus', balanced=False), replay=dict(ratio='2:1', added=True)),
        'HRHF+ not selective': dict(
            method=dict(_delete_=True, type='HRHFPlus', selective=False), replay=dict(ratio='2:1', added=True)),
        'HRHF+ not added': dict(method=dict(_delete_=True, type='HRHFPlus'), replay=dict(ratio='1:1')),
        # Joint trains as long as all steps together.
        'Joint': dict(
            train_cfg=dict(max_iters=3600, val_interval=3600),
            param_scheduler=[dict(type='PolyLR', power=0.9, eta_min=0, by_epoch=False, end=3600)]),
    })
model = dict(
    data_preprocessor=dict(size=(crop_size, crop_size)),
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=weights)),
    decode_head=dict(num_classes=7))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResizedCrop', size=crop_size, area=(0.2, 1.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
# Whole images, at the scale the crops are seen at.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(160, 160), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
_dataset = dict(
    type='PascalVOCDataset',
    data_root=data_root,
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug'))
train_dataloader = dict(
    batch_size=12,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(**_dataset, ann_file='ImageSets/Segmentation/train_aug.txt', pipeline=train_pipeline))
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**_dataset, ann_file='ImageSets/Segmentation/val.txt', pipeline=test_pipeline))
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4))
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0, by_epoch=False, end=2400)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2400, val_interval=2400)
log_processor = dict(by_epoch=False)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='ResumeHook', interval=100),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'))
# From step 1 on.
incremental_overrides = dict(
    optim_wrapper=dict(optimizer=dict(lr=0.003)),
    param_scheduler=[dict(type='PolyLR', power=0.9, eta_min=0, by_epoch=False, end=400)],
    train_cfg=dict(max_iters=400, val_interval=400))
# Chosen on step-0 classes alone, by what the teacher and a second network find on the synthetic images
# (benchmarks/notes/seginversion.md).
replay = dict(
    num_images=192,
    inversion=dict(
        size=crop_size,
        stages=[(0.25, 200), (0.5, 100), (1.0, 30)],
        batch_size=32,
        lr=0.025,
        jitter=0.08,
        tv_weight=15.0,
        feature_weight=6.0,
        with_background=False,
        classes_per_image=(1, 1, 1, 2)))
