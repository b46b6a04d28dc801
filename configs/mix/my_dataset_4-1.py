# Template for your own data: a folder of images, a folder of label masks, and class names. See docs/custom_data.md.
_base_ = [
    'mmseg::_base_/models/bisenetv1_r18-d32.py', 'mmseg::_base_/schedules/schedule_20k.py',
    'mmseg::_base_/default_runtime.py', '../_base_/methods/hrhf.py'
]
scenario = dict(task='4-1', setting='overlapped')  # four classes (crack to stain) first, then one at a time: four steps
crop_size = (512, 512)
metainfo = dict(
    classes=('background', 'crack', 'rust', 'spalling', 'stain', 'vegetation', 'graffiti', 'rebar'),
    palette=[[0, 0, 0], [230, 25, 75], [245, 130, 48], [255, 225, 25], [60, 180, 75], [0, 130, 200], [145, 30, 180],
             [128, 128, 128]])
data = dict(type='BaseSegDataset', data_root='data/my_dataset', metainfo=metainfo, img_suffix='.jpg',
            seg_map_suffix='.png')
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs')
]
model = dict(data_preprocessor=dict(size=crop_size))
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(**data, data_prefix=dict(img_path='images/train', seg_map_path='masks/train'),
                 pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**data, data_prefix=dict(img_path='images/val', seg_map_path='masks/val'), pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
