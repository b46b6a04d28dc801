# MiB. On 15-1 its authors weigh distillation by 100, on other tasks by 10.
_base_ = '../hrhf/voc_15-1.py'
method = dict(type='MiB', loss_kd=dict(type='UnbiasedDistillationLoss', loss_weight=100.0))
