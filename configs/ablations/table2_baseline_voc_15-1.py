# Table 2, "Baseline": HRHF without synthetic images.
_base_ = '../hrhf/voc_15-1.py'
replay = None
