# LwF-MC: binary cross-entropy, including at step 0.
_base_ = '../hrhf/voc_15-1.py'
method = dict(type='LwFMC', kd_weight=10.0)
