# Table 2, "Baseline": HRHF without synthetic images.
_base_ = '../hrhf/voc_19-1.py'
replay = None
