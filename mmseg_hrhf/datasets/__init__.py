from .class_index import class_index
from .incremental import IncrementalDataset
from .seeded_mix import SeededMixDataset
from .shapes import ShapesDataset
from .transforms import RandomResizedCrop

__all__ = ['IncrementalDataset', 'RandomResizedCrop', 'SeededMixDataset', 'ShapesDataset', 'class_index']
