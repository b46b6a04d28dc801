# Pascal VOC 15-1 (Table 1). Disjoint: --cfg-options scenario.setting=disjoint
_base_ = [
    '../_base_/models/deeplabv3_r101-d16.py', '../_base_/datasets/voc.py', '../_base_/schedules/voc_30e.py',
    '../_base_/default_runtime.py', '../_base_/methods/hrhf.py'
]
scenario = dict(task='15-1', setting='overlapped')
