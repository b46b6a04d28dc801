from .buffer import FakeImageBuffer
from .dataset import FakeImageDataset, RealFakeDataset
from .inversion import SegInversion
from .sampler import RealFakeSampler

__all__ = ['FakeImageBuffer', 'FakeImageDataset', 'RealFakeDataset', 'RealFakeSampler', 'SegInversion']
