"""Checks images by their header and their end; decodes pixels only if these are inconclusive."""
from __future__ import annotations

import os.path as osp
import re
import threading
from typing import Any, BinaryIO, Callable, Optional, Sequence

from mmseg.datasets import BaseSegDataset
from PIL import Image, UnidentifiedImageError

from ..utils.errors import UserError

# Last bytes of a complete file. Files that end differently (some cameras append data) are decoded to check them.
_ENDS = dict(JPEG=b'\xff\xd9', PNG=b'IEND\xaeB`\x82')
# Other extensions may be formats that Pillow does not support, but the dataset's loader does.
_COMMON = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')
# EXIF orientations that turn the image by 90 degrees; only some loaders apply them.
_TURNED = (5, 6, 7, 8)


def check_image(path: str,
                mask_path: str,
                mask_size: tuple[int, int],
                read_size: Optional[Callable[[], Optional[tuple[int, int]]]] = None) -> None:
    """Check an image against its mask.

    Args:
        path: local image file.
        mask_path: of its mask.
        mask_size: (width, height) of the mask.
        read_size: returns (width, height) of the image as training loads it, None if unknown. Called only if the size
            in the file differs from the mask's, or EXIF turns the image by 90 degrees.
    Raises:
        UserError: the image is missing, truncated, of unknown format, a decompression bomb, or of another size.
    """
    try:
        with open(path, 'rb') as file:
            size, is_turned = _size_of_whole(file)
    except UnidentifiedImageError as error:
        if osp.splitext(path)[1].lower() not in _COMMON and osp.getsize(path):
            return
        raise UserError(f'Image {path!r} is not a readable image ({osp.getsize(path)} bytes): replace the file, or '
                         'drop it from the image list.') from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = getattr(error, 'strerror', None) or str(error).rstrip('.')
        raise UserError(f'Image {path!r} cannot be read: {reason}. Replace the file, or drop it from the image '
                         'list.') from error
    if read_size is not None and (is_turned or size != mask_size):
        size = read_size() or size
    if size != mask_size:
        turn = (" EXIF turns the image by 90 degrees: its loader applies that with color_type='color', but not "
                "with 'color_ignore_orientation'.") if is_turned else ''
        raise UserError(f'Image {path!r} is {size[0]} x {size[1]} pixels, but its mask {mask_path!r} is '
                         f'{mask_size[0]} x {mask_size[1]}: they must have the same size.{turn}')


class ImageReader:
    """Loads images with a dataset's pipeline to get their size.

    Args:
        dataset: its pipeline loads the images.
    """

    def __init__(self, dataset: BaseSegDataset) -> None:
        self._dataset = dataset
        self._lock = threading.Lock()  # loaders may not be thread-safe

    def __call__(self, index: int) -> Optional[tuple[int, int]]:
        """(width, height) of image ``index`` after loading; None if the pipeline loads no image.

        Raises:
            UserError: the image cannot be loaded; names it.
        """
        with self._lock:
            image = self._load(self._dataset.get_data_info(index))
        shape = getattr(image, 'shape', ())
        return (int(shape[1]), int(shape[0])) if len(shape) > 1 else None

    def _load(self, results: dict) -> Any:
        path = results['img_path']
        for transform in self._transforms():
            try:
                results = transform(results)
            except Exception as error:  # a custom loader may raise anything
                raise UserError(f'Image {path!r} cannot be read by {type(transform).__name__} of its pipeline: '
                                 f'{str(error) or type(error).__name__}. Replace the file, or drop it from the image '
                                 'list.') from error
            if results is None or results.get('img') is not None:
                return None if results is None else results['img']
        return None

    def __repr__(self) -> str:
        """Description of the loaders, the same in every process."""
        names = []
        for transform in self._transforms():
            names.append(re.sub(r' at 0x[0-9a-f]+', '', repr(transform)))
            if 'Image' in type(transform).__name__:
                break
        return ', '.join(names)

    def _transforms(self) -> Sequence:
        return getattr(self._dataset.pipeline, 'transforms', ())


def _size_of_whole(file: BinaryIO) -> tuple[tuple[int, int], bool]:
    """(width, height) as most loaders read it, and whether EXIF turns the image by 90 degrees."""
    with Image.open(file) as image:
        size, is_turned = image.size, image.getexif().get(0x0112) in _TURNED
        # Newer versions of Pillow already swap the size of a TIFF.
        if is_turned and image.format != 'TIFF':
            size = size[::-1]
        end = _ENDS.get(image.format, b'')
        file.seek(-len(end), 2)
        if end and file.read() != end:
            file.seek(0)
            with Image.open(file) as again:
                again.load()
    return size, is_turned
