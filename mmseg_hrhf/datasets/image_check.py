"""Whether an image can be trained on, from its header and its end; pixels are decoded only where these do not tell."""
from __future__ import annotations

import os.path as osp
import re
import threading
from typing import Any, BinaryIO, Callable, Optional, Sequence

from mmseg.datasets import BaseSegDataset
from PIL import Image, UnidentifiedImageError

from ..utils.errors import UserError

# How whole files of a format end. Where one does not (some cameras append data), it is decoded to find out.
_ENDS = dict(JPEG=b'\xff\xd9', PNG=b'IEND\xaeB`\x82')
# Files of other names may be of formats that Pillow does not know, but the dataset's own loader does.
_COMMON = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')
# Values of EXIF's orientation that stand for a quarter turn, which some loaders undo and some do not.
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
        read_size: (width, height) of the image as training loads it, None where that is unknown. Called where the file
            says another size than the mask's, and where EXIF turns the image by a quarter, which only some loaders
            undo.
    Raises:
        UserError: the image is missing, truncated, of no known format, a decompression bomb, or of another size.
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
        turn = (" EXIF turns the image by a quarter: with color_type='color' its loader follows that, with "
                "'color_ignore_orientation' it does not.") if is_turned else ''
        raise UserError(f'Image {path!r} is {size[0]} x {size[1]} pixels, but its mask {mask_path!r} is '
                         f'{mask_size[0]} x {mask_size[1]}: they must be of one size.{turn}')


class ImageReader:
    """Loads images as a dataset's pipeline does, for their size.

    Args:
        dataset: whose pipeline it is.
    """

    def __init__(self, dataset: BaseSegDataset) -> None:
        self._dataset = dataset
        self._lock = threading.Lock()  # loaders need not be made for threads

    def __call__(self, index: int) -> Optional[tuple[int, int]]:
        """(width, height) of image ``index`` once the pipeline has loaded it; None where it loads none.

        Raises:
            UserError: it cannot be loaded; names it.
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
            except Exception as error:  # a loader of the user's own raises whatever it likes
                raise UserError(f'Image {path!r} cannot be read by {type(transform).__name__} of its pipeline: '
                                 f'{str(error) or type(error).__name__}. Replace the file, or drop it from the image '
                                 'list.') from error
            if results is None or results.get('img') is not None:
                return None if results is None else results['img']
        return None

    def __repr__(self) -> str:
        """What loads the images, the same in every process."""
        names = []
        for transform in self._transforms():
            names.append(re.sub(r' at 0x[0-9a-f]+', '', repr(transform)))
            if 'Image' in type(transform).__name__:
                break
        return ', '.join(names)

    def _transforms(self) -> Sequence:
        return getattr(self._dataset.pipeline, 'transforms', ())


def _size_of_whole(file: BinaryIO) -> tuple[tuple[int, int], bool]:
    """(width, height) as most loaders read it, and whether EXIF turns the image by a quarter."""
    with Image.open(file) as image:
        size, is_turned = image.size, image.getexif().get(0x0112) in _TURNED
        # Newer versions of Pillow give a TIFF's size turned already.
        if is_turned and image.format != 'TIFF':
            size = size[::-1]
        end = _ENDS.get(image.format, b'')
        file.seek(-len(end), 2)
        if end and file.read() != end:
            file.seek(0)
            with Image.open(file) as again:
                again.load()
    return size, is_turned
