from .buffer import FakeImageBuffer
from .fake_dataset import FakeImageDataset, RealFakeDataset
from .sampler import RealFakeSampler
from .seg_inversion_hook import SegInversionHook

__all__ = ['FakeImageBuffer', 'FakeImageDataset', 'RealFakeDataset', 'RealFakeSampler', 'SegInversionHook']
