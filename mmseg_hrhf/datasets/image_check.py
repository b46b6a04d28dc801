"""Whether an image can be trained on, from its header and its end: no pixel is decoded."""
from __future__ import annotations

import os.path as osp
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from .jpeg_header import jpeg_size

# How whole files of a format end. Where one does not (some cameras append data), it is decoded to find out.
_ENDS = dict(JPEG=b'\xff\xd9', PNG=b'IEND\xaeB`\x82')
# Bytes of a file in which most headers end.
_HEAD = 4096
# Files of other names may be of formats that Pillow does not know, but the dataset's own loader does.
_COMMON = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')
# Values of EXIF's orientation that stand for a quarter turn, which the loader undoes.
_TURNED = (5, 6, 7, 8)


def check_image(path: str, mask_path: str, mask_size: tuple[int, int]) -> None:
    """Check an image against its mask.

    Args:
        path: local image file.
        mask_path: of its mask.
        mask_size: (width, height) of the mask.
    Raises:
        ValueError: the image is missing, truncated, of no known format, a decompression bomb, or of another size.
    """
    try:
        with open(path, 'rb') as file:
            size = _size_of_whole(file)
    except UnidentifiedImageError as error:
        if osp.splitext(path)[1].lower() not in _COMMON and osp.getsize(path):
            return
        raise ValueError(f'Image {path!r} is not a readable image ({osp.getsize(path)} bytes): replace the file, or '
                         'drop it from the image list.') from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = getattr(error, 'strerror', None) or str(error).rstrip('.')
        raise ValueError(f'Image {path!r} cannot be read: {reason}. Replace the file, or drop it from the image '
                         'list.') from error
    if size != mask_size:
        raise ValueError(f'Image {path!r} is {size[0]} x {size[1]} pixels, but its mask {mask_path!r} is '
                         f'{mask_size[0]} x {mask_size[1]}: they must be of one size.')


def _size_of_whole(file: BinaryIO) -> tuple[int, int]:
    size = jpeg_size(file.read(_HEAD))
    if size is not None:
        end = _ENDS['JPEG']
        file.seek(-len(end), 2)
        if file.read() == end:
            return size
    file.seek(0)
    with Image.open(file) as image:
        width, height = image.size
        if image.getexif().get(0x0112) in _TURNED:
            width, height = height, width
        end = _ENDS.get(image.format, b'')
        file.seek(-len(end), 2)
        if end and file.read() != end:
            file.seek(0)
            with Image.open(file) as again:
                again.load()
    return width, height
