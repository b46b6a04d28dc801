# PI (path integral). Its importance is gathered from step 0 on.
_base_ = '../hrhf/voc_15-1.py'
method = dict(type='PI', weight=500.0)
