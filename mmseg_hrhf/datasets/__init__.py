from .class_index import class_index
from .incremental import IncrementalDataset
from .shapes import ShapesDataset
from .transforms import RandomResizedCrop

__all__ = ['IncrementalDataset', 'RandomResizedCrop', 'ShapesDataset', 'class_index']
