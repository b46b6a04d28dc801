"""Where a part runs, and at which sizes."""
from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import ContextManager

HALF = dict(bf16='bfloat16', fp16='float16')
PRECISIONS = ('float32', 'TF32', 'bf16')


@dataclass(frozen=True)
class Place:
    """What each part is given.

    Args:
        device: ``'cpu'`` or ``'cuda'``.
        tiny: small networks and images, and few rounds, to see that everything runs.
        scratch: folder for data and trainings.
        results: file of what other parts have found.
    """
    device: str
    tiny: bool
    scratch: Path
    results: Path

    def folder(self, name: str) -> Path:
        """A folder of that name for a part's own files."""
        path = self.scratch / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    @staticmethod
    def precision(name: str) -> None:
        """Compute products of float32 matrices and convolutions as TF32, or (any other name) as float32."""
        import torch
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == 'TF32'

    def autocast(self, precision: str) -> ContextManager:
        """Mixed precision for ``'bf16'`` and ``'fp16'``, none for others."""
        if precision not in HALF:
            return contextlib.nullcontext()
        import torch
        return torch.autocast(self.device, getattr(torch, HALF[precision]))
