# Table 2, "+Noise": noise in place of fake images.
_base_ = '../hrhf/voc_15-5.py'
replay = dict(inversion=dict(_delete_=True, type='GaussianNoise'))
