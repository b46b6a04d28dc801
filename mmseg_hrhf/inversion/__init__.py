from .aggregation import AverageAggregation, MaxAggregation, ScaleAwareAggregation
from .build import build_inversion
from .gaussian_noise import GaussianNoise
from .seg_inversion import SegInversion

__all__ = [
    'AverageAggregation', 'GaussianNoise', 'MaxAggregation', 'ScaleAwareAggregation', 'SegInversion', 'build_inversion'
]
