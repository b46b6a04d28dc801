# LwF-MC: binary cross-entropy, at step 0 too.
_base_ = '../hrhf/voc_15-1.py'
method = dict(type='LwFMC', loss_kd=dict(type='OldClassBinaryDistillationLoss', loss_weight=10.0))
