# LwF-MC: binary cross-entropy, including at step 0.
_base_ = '../hrhf/voc_15-1.py'
method = dict(type='LwFMC', loss_kd=dict(type='OldClassBinaryDistillationLoss', loss_weight=10.0))
