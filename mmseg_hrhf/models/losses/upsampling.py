"""Bilinear upsampling as two matrix products, so that a loss can process an image band by band."""
from __future__ import annotations

import functools
import math
from typing import Iterator, Union

import torch
import torch.nn.functional as F
from torch import Tensor

# Bytes of one band of logits. A CPU is fastest if intermediate results fit into its cache; a GPU needs few, large
# bands.
_BAND_BYTES = dict(cpu=2**21)
_BAND_BYTES_ELSEWHERE = 2**24


@functools.lru_cache(maxsize=32)
def interpolation_matrix(size_in: int, size_out: int, align_corners: bool, dtype: torch.dtype,
                         device: torch.device) -> Tensor:
    """(size_out, size_in) matrix that upsamples one dimension like ``F.interpolate(mode='bilinear')``."""
    with torch.inference_mode(False):  # the cached matrix is also used with autograd
        unit = torch.eye(size_in, dtype=torch.float64)[None]
        matrix = F.interpolate(unit, size_out, mode='linear', align_corners=align_corners)[0].t()
        return matrix.contiguous().to(device, dtype)


@functools.lru_cache(maxsize=32)
def rows_needed(size_in: int, size_out: int, align_corners: bool) -> list[tuple[int, int]]:
    """Range (start, stop) of input rows that each output row depends on."""
    matrix = interpolation_matrix(size_in, size_out, align_corners, torch.float64, torch.device('cpu'))
    return [(int(used[0]), int(used[-1]) + 1) for used in (row.nonzero()[:, 0] for row in matrix)]


class Upsampling:
    """Linear maps between (N, C, h, w) logits and bands of their (N, C, H, W) upsampling.

    Args:
        size_in: (h, w).
        size_out: (H, W).
        align_corners: as in ``F.interpolate``.
        like: tensor with the dtype and device of the logits.
    """

    def __init__(self, size_in: tuple[int, int], size_out: tuple[int, int], align_corners: bool, like: Tensor) -> None:
        self.rows, self.columns = (
            interpolation_matrix(a, b, align_corners, like.dtype, like.device) for a, b in zip(size_in, size_out))
        self.needed = rows_needed(size_in[0], size_out[0], align_corners)

    def up(self, logits: Tensor, band: slice, space: Workspace, name: str) -> Tensor:
        """(N, C, rows of ``band``, W) from (N, C, h, w); only the input rows that it depends on are read.

        The result is stored in ``space`` under ``name``.
        """
        small = self._small(band)
        rows, part = self.rows[band, small], logits[:, :, small]
        wide = self._product(part, self.columns.t(), space)
        out = space.tensor(name, *part.shape[:2], len(rows), len(self.columns))
        torch.bmm(rows.expand(len(wide), -1, -1), wide, out=out.flatten(0, 1))
        return out

    def add_adjoint(self, out: Tensor, gradient: Tensor, band: slice, space: Workspace) -> None:
        """Add the gradient with respect to the logits to (N, C, h, w) ``out``, given that of the result of ``up``."""
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
    """Slices of images and rows that divide an (N, C, H, W) tensor into bands of similar size.

    A band consists of several complete images, or of some rows of one image.
    """
    number, channels, height, width = shape
    wanted = _BAND_BYTES.get(like.device.type, _BAND_BYTES_ELSEWHERE)
    rows = max(1, wanted // (channels * width * like.element_size()))
    images = max(1, rows // height)
    for first in range(0, number, images):
        for top in range(0, height, rows):
            yield slice(first, first + images), slice(top, min(top + rows, height))


def pool_upsampled(logits: Tensor, size: tuple[int, int], pooled: tuple[int, int], align_corners: bool) -> Tensor:
    """Average pooling of bilinearly upsampled logits without upsampling them, since both are linear.

    Args:
        logits: (N, C, h, w).
        size: (H, W) after upsampling.
        pooled: (h', w') after ``F.adaptive_avg_pool2d``.
        align_corners: of the upsampling.
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
    """Named buffers that each band reuses.

    On a CPU, a large new tensor may be allocated from fresh memory pages, whose first access takes about as long as the
    arithmetic on them.

    Args:
        like: tensor with the dtype and device of the buffers.
    """

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._held: dict[str, Tensor] = {}

    def tensor(self, name: str, *shape: int) -> Tensor:
        """An uninitialised tensor; it overwrites the previous one with this name."""
        number = math.prod(shape)
        held = self._held.get(name)
        if held is None or held.numel() < number:
            held = self._held[name] = self._like.new_empty(number)
        return held[:number].view(shape)


def at_least_float32(tensor: Tensor) -> Tensor:
    """``tensor``, converted to float32 from half precision."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
