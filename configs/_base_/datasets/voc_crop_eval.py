# VOC with MiB's evaluation: images and labels (nearest) are resized to a short side of 512 and centre-cropped to 512.
_base_ = './voc.py'
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', scale=(100000, 512), keep_ratio=True),
    dict(type='CenterCrop', crop_size=512),
    # mmseg resizes predictions to ori_shape, but here they are compared with the cropped labels.
    dict(type='KeyMapper', mapping=dict(ori_shape='img_shape'), auto_remap=False),
    dict(type='PackSegInputs'),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
