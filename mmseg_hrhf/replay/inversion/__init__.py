from .aggregation import AverageAggregation, MaxAggregation, ScaleAwareAggregation
from .base import Inversion, build_inversion
from .seg_inversion import GaussianNoise, SegInversion

__all__ = [
    'AverageAggregation', 'GaussianNoise', 'Inversion', 'MaxAggregation', 'ScaleAwareAggregation', 'SegInversion',
    'build_inversion'
]
