from . import segmentors
from .leaky_resnet import LeakyResNet

__all__ = ['LeakyResNet', 'segmentors']
