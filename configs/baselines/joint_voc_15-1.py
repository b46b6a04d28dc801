# Joint: trained once on all classes, the upper bound.
_base_ = '../hrhf/voc_15-1.py'
method = dict(type='Joint')
