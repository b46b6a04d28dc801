# ILT: LwF plus distillation of the backbone's last features.
_base_ = '../hrhf/voc_15-1.py'
method = dict(type='ILT', kd_weight=100.0, feature_weight=100.0)
