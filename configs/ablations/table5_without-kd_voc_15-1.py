# Table 5, "W/O KD": without the distillation loss.
_base_ = '../hrhf/voc_15-1.py'
method = dict(loss_kd=None)
