# PI (path integral). Importance is accumulated from step 0 on.
_base_ = '../hrhf/voc_15-1.py'
method = dict(type='PI', weight=500.0)
