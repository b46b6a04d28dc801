# Joint training on all classes at once, the upper bound.
_base_ = '../hrhf/voc_15-1.py'
method = dict(type='Joint')
