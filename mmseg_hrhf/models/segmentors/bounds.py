"""FT: the lower bound of every comparison."""
from __future__ import annotations

from mmseg.registry import MODELS
from torch import Tensor

from .base import IncrementalSegmentor


@MODELS.register_module(name=['FineTuning', 'FT'])
class FineTuning(IncrementalSegmentor):
    """Go on training with the new labels alone, everything else being background (Table 1, FT)."""
    needs_teacher = False

    def incremental_loss(self, inputs: Tensor, data_samples: list) -> dict:
        return self.student.loss(inputs, data_samples)


@MODELS.register_module()
class Joint(IncrementalSegmentor):
    """One network, trained once on the images and labels of all classes (Table 1, Joint).

    It takes the place of the last step, with the schedule of step 0, and is evaluated as the last step is.
    """
    joint = True
    needs_teacher = False
    shares_first_step = False
