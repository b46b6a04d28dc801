"""Size of an ordinary JPEG from its first bytes, without the time that an image library takes to open it."""
from __future__ import annotations

from typing import Optional

# Start of frame: baseline, extended and progressive, with Huffman codes.
_FRAMES = (0xc0, 0xc1, 0xc2)
# Tables, restart interval, comment, and application data but APP1, whose EXIF may turn the image.
_SKIPPED = (0xc4, 0xdb, 0xdd, 0xfe, 0xe0, *range(0xe2, 0xf0))
_SCAN = 0xda
# Larger ones are left to who knows what to do about decompression bombs.
_MOST_PIXELS = 2**24


def jpeg_size(head: bytes) -> Optional[tuple[int, int]]:
    """(width, height) of an 8-bit JPEG that nothing turns (ITU-T T.81, annex B).

    Args:
        head: the first bytes of a file.
    Returns:
        None where a library must look: another format, EXIF, or a header that is not whole within ``head``.
    """
    if head[:2] != b'\xff\xd8':
        return None
    at, size = 2, None
    while at + 4 <= len(head) and head[at] == 0xff:
        marker, length = head[at + 1], int.from_bytes(head[at + 2:at + 4], 'big')
        if marker == _SCAN:
            return size
        if marker in _FRAMES and length >= 8 and at + 9 <= len(head) and head[at + 4] == 8:
            height, width = (int.from_bytes(head[i:i + 2], 'big') for i in (at + 5, at + 7))
            if size is not None or not 0 < height * width <= _MOST_PIXELS:
                return None
            size = width, height
        elif marker not in _SKIPPED or length < 2:
            return None
        at += 2 + length
    return None
