from .distillation import distillation_loss, rearrange_probability
from .label_merge import merge_labels

__all__ = ['distillation_loss', 'merge_labels', 'rearrange_probability']
