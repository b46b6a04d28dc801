"""Losses are computed in float32 at least, whatever autocast made of the logits."""
from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """``tensor``, in float32 where its type is a half one."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
