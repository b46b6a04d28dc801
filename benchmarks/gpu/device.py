"""What the other parts run on, and how fast it multiplies."""
from __future__ import annotations

import os
import subprocess
from pathlib import Path

import torch
from timing import interleaved

from mmseg_hrhf.utils.environment import environment

from .place import PRECISIONS, Place

REPO = Path(__file__).parents[2]


def device(place: Place) -> dict:
    """Versions, memory, and the rate of a product of square matrices in each precision.

    Raises:
        RuntimeError: there is no GPU.
    """
    if place.device == 'cuda' and not torch.cuda.is_available():
        raise RuntimeError(f'torch {torch.__version__} sees no GPU here: give --device cpu --tiny.')
    figures = dict(environment=environment(), commit=commit(), cpu_cores=os.cpu_count())
    side = 256 if place.tiny else 8192
    if place.device == 'cuda':
        properties = torch.cuda.get_device_properties(0)
        figures.update(name=properties.name, capability=list(torch.cuda.get_device_capability()),
                       memory_gib=properties.total_memory / 2**30, devices=torch.cuda.device_count(),
                       cudnn=torch.backends.cudnn.version())
    rates = {}
    for precision in PRECISIONS:
        place.precision(precision)
        matrix = torch.randn(side, side, device=place.device)
        matrix = matrix.bfloat16() if precision == 'bf16' else matrix
        rounds = interleaved(dict(product=lambda m=matrix: m @ m), 3, 5, device=place.device)
        rates[precision] = 2 * side**3 / rounds.median('product') / 1e12
    return dict(figures=figures, teraflops_of_products=rates)


def commit() -> str:
    """Of the working tree; of a copy without git, nothing."""
    try:
        return subprocess.run(['git', 'describe', '--always', '--dirty', '--abbrev=9'], cwd=REPO, capture_output=True,
                              text=True).stdout.strip()
    except FileNotFoundError:
        return ''
