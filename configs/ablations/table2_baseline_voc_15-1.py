# Table 2, "Baseline": HRHF without fake images.
_base_ = '../hrhf/voc_15-1.py'
replay = None
