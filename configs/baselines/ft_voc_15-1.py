# FT (fine-tuning), the lower bound: new labels only.
_base_ = '../hrhf/voc_15-1.py'
method = dict(type='FT')
