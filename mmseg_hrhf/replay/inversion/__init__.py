from .aggregation import AverageAggregation, MaxAggregation, ScaleAwareAggregation
from .base import Inversion, build_inversion
from .noise import GaussianNoise
from .seg_inversion import SegInversion

__all__ = [
    'AverageAggregation', 'GaussianNoise', 'Inversion', 'MaxAggregation', 'ScaleAwareAggregation', 'SegInversion',
    'build_inversion'
]
