# EWC. Importance is accumulated from step 0 on.
_base_ = '../hrhf/voc_15-1.py'
method = dict(type='EWC', weight=500.0)
