from .distillation import (
                           class_binary_cross_entropy,
                           distillation_loss,
                           old_class_binary_distillation,
                           old_class_distillation,
                           rearrange_probability,
)
from .label_merge import merge_labels, merge_old_classes, merge_old_labels

__all__ = [
    'class_binary_cross_entropy', 'distillation_loss', 'merge_labels', 'merge_old_classes', 'merge_old_labels',
    'old_class_binary_distillation', 'old_class_distillation', 'rearrange_probability'
]
