"""Labels of the plainest PNG masks, such as VOC's, faster than an image library can count them."""
from __future__ import annotations

import struct
import zlib
from typing import Optional

import numpy as np

_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_GREY, _PALETTE = 0, 3
# Rows looked at before the rest is inflated, and pixels above which Pillow is to decide whether it inflates at all.
_FIRST_ROWS, _MANY_PIXELS = 16, 1 << 26


def unfiltered_labels(data: bytes) -> Optional[tuple[np.ndarray, tuple[int, int]]]:
    """Labels and size of an 8-bit single-channel PNG that is not interlaced and whose rows are stored as they are.

    Programs that write palettes seldom filter rows (PNG specification, section 12.7), so that their inflated bytes are
    the labels. Of what is repeated to the left and above, nothing is looked at twice.

    Args:
        data: bytes of a file.
    Returns:
        (256,) bool, whose entry c says that some pixel has label c, and (width, height); None for any other file,
        damaged ones included: Pillow reads it, or says what is wrong with it.
    """
    header, stream = _chunks(data)
    if header is None:
        return None
    width, height, depth, colour, compression, filtering, interlace = header
    if depth != 8 or colour not in (_GREY, _PALETTE) or compression or filtering or interlace:
        return None
    row = width + 1
    if not width or not height or width * height > _MANY_PIXELS:
        return None
    inflate = zlib.decompressobj()
    try:
        inflated = inflate.decompress(stream, _FIRST_ROWS * row)
        if any(inflated[::row]):
            return None
        if not inflate.eof:
            # One byte more than there should be tells a stream that is too long.
            inflated += inflate.decompress(inflate.unconsumed_tail, height * row - len(inflated) + 1)
    except zlib.error:
        return None
    if len(inflated) != height * row or not inflate.eof or any(inflated[::row]):
        return None
    return _present(np.frombuffer(inflated, np.uint8), row, height), (width, height)


def _chunks(data: bytes) -> tuple[Optional[tuple[int, ...]], bytes]:
    """Fields of IHDR and the joined IDAT; None where a chunk is damaged or missing."""
    if data[:8] != _SIGNATURE:
        return None, b''
    header, stream, at = None, [], 8
    while at + 12 <= len(data):
        length, = struct.unpack_from('>I', data, at)
        end = at + 8 + length
        if end + 4 > len(data) or struct.unpack_from('>I', data, end)[0] != zlib.crc32(data[at + 4:end]):
            return None, b''
        name = data[at + 4:at + 8]
        if name == b'IHDR' and length == 13:
            header = struct.unpack_from('>IIBBBBB', data, at + 8)
        elif name == b'IDAT':
            stream.append(data[at + 8:end])
        elif name == b'IEND':
            return header, b''.join(stream)
        at = end + 4
    return None, b''


def _present(flat: np.ndarray, row: int, height: int) -> np.ndarray:
    """Which values occur in rows of ``row`` bytes, the first of each row (its filter, 0) left out."""
    present = np.zeros(256, dtype=bool)
    words = max((len(flat) - row - 8) // 8, 0)
    start = len(flat) - 8 * words
    present[flat[:start]] = True
    # Of the rest, eight pixels that equal the eight to the left, or those above, bring nothing new.
    here, left, above = (np.frombuffer(flat, np.uint64, words, start - back) if words else flat[:0]
                         for back in (0, 8, row))
    present[here[(here != left) & (here != above)].view(np.uint8)] = True
    # The filters' zeros are no label.
    present[0] = len(flat) - np.count_nonzero(flat) > height
    return present
