from .class_index import class_index
from .incremental import IncrementalDataset
from .shapes import ShapesDataset
from .source import SeededMixDataset
from .transforms import RandomResizedCrop

__all__ = ['IncrementalDataset', 'RandomResizedCrop', 'SeededMixDataset', 'ShapesDataset', 'class_index']
