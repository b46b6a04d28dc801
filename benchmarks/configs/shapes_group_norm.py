# The embedded default with group norm: a network without running statistics.
_base_ = '../../configs/hrhf/shapes_3-1.py'
_norm_cfg = dict(type='GN', num_groups=8, requires_grad=True)
model = dict(backbone=dict(norm_cfg=_norm_cfg), decode_head=dict(norm_cfg=_norm_cfg))
