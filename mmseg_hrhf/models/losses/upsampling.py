"""Bilinear up-sampling as two matrix products, so that a loss can take an image band by band."""
from __future__ import annotations

import functools
import math
from typing import Iterator, Union

import torch
import torch.nn.functional as F
from torch import Tensor

# Bytes of one band of logits. A CPU is fastest where what is computed from it stays in the cache; a GPU wants few and
# large pieces.
_BAND_BYTES = dict(cpu=2**21)
_BAND_BYTES_ELSEWHERE = 2**24


@functools.lru_cache(maxsize=32)
def interpolation_matrix(size_in: int, size_out: int, align_corners: bool, dtype: torch.dtype,
                         device: torch.device) -> Tensor:
    """(size_out, size_in) matrix that up-samples along one side as ``F.interpolate(mode='bilinear')`` does."""
    with torch.inference_mode(False):  # it is kept, and used where gradients flow
        unit = torch.eye(size_in, dtype=torch.float64)[None]
        matrix = F.interpolate(unit, size_out, mode='linear', align_corners=align_corners)[0].t()
        return matrix.contiguous().to(device, dtype)


@functools.lru_cache(maxsize=32)
def rows_needed(size_in: int, size_out: int, align_corners: bool) -> list[tuple[int, int]]:
    """First row, and the one after the last, that each row of the up-sampling along one side is made of."""
    matrix = interpolation_matrix(size_in, size_out, align_corners, torch.float64, torch.device('cpu'))
    return [(int(used[0]), int(used[-1]) + 1) for used in (row.nonzero()[:, 0] for row in matrix)]


class Upsampling:
    """Linear maps between (N, C, h, w) logits and bands of their (N, C, H, W) up-sampling.

    Args:
        size_in: (h, w).
        size_out: (H, W).
        align_corners: as in ``F.interpolate``.
        like: a tensor of the type and device of the logits.
    """

    def __init__(self, size_in: tuple[int, int], size_out: tuple[int, int], align_corners: bool, like: Tensor) -> None:
        self.rows, self.columns = (
            interpolation_matrix(a, b, align_corners, like.dtype, like.device) for a, b in zip(size_in, size_out))
        self.needed = rows_needed(size_in[0], size_out[0], align_corners)

    def up(self, logits: Tensor, band: slice, space: Workspace, name: str) -> Tensor:
        """(N, C, rows of ``band``, W) from (N, C, h, w); of h only what the band is made of is looked at.

        It lies in ``space`` under ``name``.
        """
        small = self._small(band)
        rows, part = self.rows[band, small], logits[:, :, small]
        wide = self._product(part, self.columns.t(), space)
        out = space.tensor(name, *part.shape[:2], len(rows), len(self.columns))
        torch.bmm(rows.expand(len(wide), -1, -1), wide, out=out.flatten(0, 1))
        return out

    def add_adjoint(self, out: Tensor, gradient: Tensor, band: slice, space: Workspace) -> None:
        """Add the gradient of the logits to (N, C, h, w) ``out``, from the gradient of what ``up`` gives."""
        small = self._small(band)
        rows, part = self.rows[band, small], out[:, :, small]
        narrow = self._product(gradient, self.columns, space)
        added = space.tensor('adjoint', *part.shape)
        torch.bmm(rows.t().expand(len(narrow), -1, -1), narrow, out=added.flatten(0, 1))
        part += added

    @staticmethod
    def _product(images: Tensor, columns: Tensor, space: Workspace) -> Tensor:
        """(N * C, rows, W') from (N, C, rows, W) and (W, W')."""
        number, rows = images.shape[0] * images.shape[1], images.shape[2]
        product = space.tensor('columns', number * rows, columns.shape[1])
        torch.mm(images.reshape(number * rows, -1), columns, out=product)
        return product.view(number, rows, -1)

    def _small(self, band: slice) -> slice:
        return slice(self.needed[band.start][0], self.needed[band.stop - 1][1])


def bands(shape: Union[torch.Size, tuple[int, int, int, int]], like: Tensor) -> Iterator[tuple[slice, slice]]:
    """Slices of images and of rows that cut an (N, C, H, W) tensor into pieces of about the same bytes.

    A piece is several whole images, or some rows of one.
    """
    number, channels, height, width = shape
    wanted = _BAND_BYTES.get(like.device.type, _BAND_BYTES_ELSEWHERE)
    rows = max(1, wanted // (channels * width * like.element_size()))
    images = max(1, rows // height)
    for first in range(0, number, images):
        for top in range(0, height, rows):
            yield slice(first, first + images), slice(top, min(top + rows, height))


def pool_upsampled(logits: Tensor, size: tuple[int, int], pooled: tuple[int, int], align_corners: bool) -> Tensor:
    """Average pooling of bilinearly up-sampled logits, without the up-sampled ones: both are linear.

    Args:
        logits: (N, C, h, w).
        size: (H, W) of the up-sampling.
        pooled: (h', w') of ``F.adaptive_avg_pool2d``.
        align_corners: of the up-sampling.
    Returns:
        (N, C, h', w').
    """
    logits = at_least_float32(logits)
    up = Upsampling(logits.shape[2:], size, align_corners, logits)
    rows, columns = (F.adaptive_avg_pool1d(matrix.t()[None], out)[0].t()
                     for matrix, out in zip((up.rows, up.columns), pooled))
    with torch.autocast(logits.device.type, enabled=False):
        return rows @ (logits @ columns.t())


class Workspace:
    """Tensors of one piece of work that the next piece overwrites.

    On a CPU large tensors may come from fresh pages each time they are made, whose first touch takes about as long as
    the arithmetic on them.

    Args:
        like: a tensor of the type and device of all of them.
    """

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._held: dict[str, Tensor] = {}

    def tensor(self, name: str, *shape: int) -> Tensor:
        """An uninitialised tensor; the last one of that name is lost."""
        number = math.prod(shape)
        held = self._held.get(name)
        if held is None or held.numel() < number:
            held = self._held[name] = self._like.new_empty(number)
        return held[:number].view(shape)


def at_least_float32(tensor: Tensor) -> Tensor:
    """``tensor``, in float32 where its type is a half one."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
