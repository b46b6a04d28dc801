# RW (Riemannian walk). Importance is accumulated from step 0 on.
_base_ = '../hrhf/voc_15-1.py'
method = dict(type='RW', weight=100.0)
