# LwF: distillation over the old classes.
_base_ = '../hrhf/voc_15-1.py'
method = dict(type='LwF', kd_weight=100.0)
