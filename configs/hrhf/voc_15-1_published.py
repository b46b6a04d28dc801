# Pascal VOC 15-1 with the published network and MiB's evaluation on centre crops.
_base_ = [
    '../_base_/models/deeplabv3_r101-d16_leaky.py', '../_base_/datasets/voc_crop_eval.py',
    '../_base_/schedules/voc_30e.py', '../_base_/default_runtime.py', '../_base_/methods/hrhf.py'
]
scenario = dict(task='15-1', setting='overlapped')
