# PASCAL VOC 2012 with the SBD annotations: 10,582 training images (train_aug.txt), 1,449 validation images.
data_root = 'data/VOCdevkit/VOC2012'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResizedCrop', size=512, area=(0.5, 2.0), ratio=(3 / 4, 4 / 3)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    # Labels are loaded after resizing: predictions are compared at full size.
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
_dataset = dict(
    type='PascalVOCDataset',
    data_root=data_root,
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug'))
train_dataloader = dict(
    # Per GPU, real + synthetic images. For the published total of 24, use 12 on 2 GPUs or 4 on 6 GPUs. On 8 GPUs the
    # total is 32, and the learning rate scales with it (auto_scale_lr in the schedule).
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    drop_last=True,
    dataset=dict(**_dataset, ann_file='ImageSets/Segmentation/train_aug.txt', pipeline=train_pipeline))
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**_dataset, ann_file='ImageSets/Segmentation/val.txt', pipeline=test_pipeline))
val_dataloader = test_dataloader
val_evaluator = test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
