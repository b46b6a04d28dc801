"""Joint: the upper bound of every comparison."""
from __future__ import annotations

from mmseg.registry import MODELS

from .base import IncrementalSegmentor


@MODELS.register_module()
class Joint(IncrementalSegmentor):
    """One network, trained once on the images and labels of all classes (Table 1, Joint).

    It takes the place of the last step, with the schedule of step 0, and is evaluated as the last step is.
    """
    joint = True
    needs_teacher = False
    shares_first_step = False
