from .class_binary_cross_entropy import class_binary_cross_entropy
from .distillation import distillation_loss, rearrange_probability
from .label_merge import merge_labels
from .old_class_distillation import old_class_binary_distillation, old_class_distillation
from .old_class_merge import merge_old_classes, merge_old_labels

__all__ = [
    'class_binary_cross_entropy', 'distillation_loss', 'merge_labels', 'merge_old_classes', 'merge_old_labels',
    'old_class_binary_distillation', 'old_class_distillation', 'rearrange_probability'
]
