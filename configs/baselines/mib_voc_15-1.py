# MiB. Its authors use a distillation weight of 100 on 15-1, and of 10 on other tasks.
_base_ = '../hrhf/voc_15-1.py'
method = dict(type='MiB', loss_kd=dict(type='UnbiasedDistillationLoss', loss_weight=100.0))
