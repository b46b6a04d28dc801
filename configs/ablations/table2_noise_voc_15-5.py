# Table 2, "+Noise": noise instead of synthetic images.
_base_ = '../hrhf/voc_15-5.py'
replay = dict(inversion=dict(_delete_=True, type='GaussianNoise'))
