# VOC with MiB's evaluation: short side 512, the centre crop of 512, labels resized (nearest) and cropped alike.
_base_ = './voc.py'
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', scale=(100000, 512), keep_ratio=True),
    dict(type='CenterCrop', crop_size=512),
    # mmseg resizes predictions to ori_shape; what they are compared with here is the crop.
    dict(type='KeyMapper', mapping=dict(ori_shape='img_shape'), auto_remap=False),
    dict(type='PackSegInputs'),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
