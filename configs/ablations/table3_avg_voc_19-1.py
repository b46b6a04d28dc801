# Table 3, "AVG": aggregation by the mean over pixels.
_base_ = '../hrhf/voc_19-1.py'
replay = dict(inversion=dict(aggregation=dict(_delete_=True, type='AverageAggregation')))
