# Table 3, "MAX": aggregation by the maximum over pixels.
_base_ = '../hrhf/voc_19-1.py'
replay = dict(inversion=dict(aggregation=dict(_delete_=True, type='MaxAggregation')))
