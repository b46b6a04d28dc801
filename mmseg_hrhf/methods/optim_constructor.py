"""Optimizer constructors that look into a segmentor are shown the student."""
from __future__ import annotations

from typing import Optional

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMSEG_CONSTRUCTORS
from torch import nn


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class StudentOptimWrapperConstructor:
    """Builds with ``student_constructor`` on the student, such as mmseg's layer-wise decay, which reads ``backbone``.

    Args:
        optim_wrapper_cfg: of the user, with ``student_constructor``.
        paramwise_cfg: of the user.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: Optional[dict] = None) -> None:
        cfg = dict(optim_wrapper_cfg)
        kind = cfg.pop('student_constructor')
        self.constructor = MMSEG_CONSTRUCTORS.build(
            dict(type=kind, optim_wrapper_cfg=cfg, paramwise_cfg=paramwise_cfg))

    def __call__(self, model: nn.Module) -> OptimWrapper:
        return self.constructor((model.module if is_model_wrapper(model) else model).student)
