# FT: the new labels alone, the lower bound.
_base_ = '../hrhf/voc_15-1.py'
method = dict(type='FT')
