from .grid import image_grid, overlay
from .prediction_hook import PredictionGridHook

__all__ = ['PredictionGridHook', 'image_grid', 'overlay']
