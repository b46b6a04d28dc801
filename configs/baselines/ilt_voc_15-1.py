# ILT: LwF plus distillation of the backbone's last features.
_base_ = '../hrhf/voc_15-1.py'
method = dict(
    type='ILT',
    loss_kd=dict(type='OldClassDistillationLoss', loss_weight=100.0),
    loss_features=dict(type='FeatureMSELoss', loss_weight=100.0))
