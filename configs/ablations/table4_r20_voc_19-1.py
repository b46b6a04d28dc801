# Table 4: r = 20 for all images and classes.
_base_ = '../hrhf/voc_19-1.py'
replay = dict(inversion=dict(aggregation=dict(r=20)))
