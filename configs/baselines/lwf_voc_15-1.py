# LwF: distillation over the old classes.
_base_ = '../hrhf/voc_15-1.py'
method = dict(type='LwF', loss_kd=dict(type='OldClassDistillationLoss', loss_weight=100.0))
