# Table 4: r = 5 for every image and class.
_base_ = '../hrhf/voc_19-1.py'
replay = dict(inversion=dict(aggregation=dict(r=5)))
