# ADE20K 100-5 (later papers). Disjoint: --cfg-options scenario.setting=disjoint
_base_ = [
    '../_base_/models/deeplabv3_r101-d16.py', '../_base_/datasets/ade20k.py', '../_base_/schedules/ade20k_60e.py',
    '../_base_/default_runtime.py', '../_base_/methods/hrhf.py'
]
scenario = dict(task='100-5', setting='overlapped')
model = dict(decode_head=dict(num_classes=151))
