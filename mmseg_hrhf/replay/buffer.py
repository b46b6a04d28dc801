"""Stores the synthetic images of a step on disk: lossless, verified by hash, bound to their teacher."""
from __future__ import annotations

import hashlib
import io
import json
import logging
from pathlib import Path
from typing import Optional, Sequence

import numpy as np
from mmengine.logging import print_log
from PIL import Image

from ..utils.errors import UserError
from ..utils.io import PathLike, atomic_write, read_json, sha256, write_json, write_text
from .inversion.pixels import PixelMap


class FakeImageBuffer:
    """A folder of BMP images with one record per image and a fingerprint of the inversion that generated them.

    Contains ``images/000000.bmp`` and so on; ``blank.png``, their common empty mask; ``fingerprint.json``;
    ``batches/*.json``, each written after its images, with their hashes; ``curves/*.json``, the losses of each batch
    over its iterations; and, when full, ``manifest.jsonl``, collected from the batches. The next filling regenerates
    missing or damaged files, except curves.

    Args:
        folder: of this buffer only.
        num_images: declared size; images load lazily.
    """

    def __init__(self, folder: PathLike, num_images: int) -> None:
        self.folder = Path(folder)
        self.num_images = int(num_images)
        self._hashes: Optional[list[str]] = None

    @property
    def manifest(self) -> Path:
        return self.folder / 'manifest.jsonl'

    @property
    def blank_mask(self) -> Path:
        """A mask of zeros of the same size as the images, which have no labels."""
        return self.folder / 'blank.png'

    def image_path(self, index: int) -> Path:
        return self.folder / 'images' / f'{index:06d}.bmp'

    def _curve_path(self, start: int) -> Path:
        return self.folder / 'curves' / f'{start:06d}.json'

    def _batch_path(self, start: int) -> Path:
        return self.folder / 'batches' / f'{start:06d}.json'

    def open(self, fingerprint: dict, size: tuple[int, int]) -> None:
        """Create the folder, or check that it continues the same inversion.

        Args:
            fingerprint: teacher and options; JSON data.
            size: (height, width) of the images.
        Raises:
            UserError: the images come from another teacher or other options; names which.
        """
        for leftover in self.folder.glob('images/.*'):
            leftover.unlink()  # partial file of a killed process
        held = self._fingerprint()
        if held is None:
            for orphan in [self.manifest, *self.folder.glob('batches/*')]:
                orphan.unlink(missing_ok=True)  # of unknown origin
        else:
            differing = sorted(key for key in set(held) | set(fingerprint) if held.get(key) != fingerprint.get(key))
            if differing:
                details = '; '.join(f'{key}: {_short(held.get(key))} there, {_short(fingerprint.get(key))} now'
                                    for key in differing)
                raise UserError(f'The synthetic images in {self.folder} are stale: their settings differ '
                                 f'({details}). Delete that folder to regenerate them, or use another work dir.')
        if not self._has_blank_mask(size):
            with atomic_write(self.blank_mask) as file:
                Image.fromarray(np.zeros(size, dtype=np.uint8)).save(file, format='PNG')
        if held is None:
            write_json(self.folder / 'fingerprint.json', fingerprint)

    def _fingerprint(self) -> Optional[dict]:
        """Fingerprint of the inversion that generated the images; None if unknown."""
        path = self.folder / 'fingerprint.json'
        if not path.exists():
            return None
        try:
            held = read_json(path)
        except ValueError as error:
            print_log(f'{error} The synthetic images in this folder are regenerated.', logger='current',
                      level=logging.WARNING)
            return None
        return held if isinstance(held, dict) else None

    @property
    def pixel_map(self) -> Optional[PixelMap]:
        """Maps pixels to the teacher's input, if its pipeline changes pixels."""
        fields = (self._fingerprint() or {}).get('pixel_map')
        return None if fields is None else PixelMap.from_plain(fields)

    def _has_blank_mask(self, size: tuple[int, int]) -> bool:
        try:
            with Image.open(self.blank_mask) as mask:
                return mask.mode == 'L' and np.array_equal(np.asarray(mask), np.zeros(size))
        except (OSError, SyntaxError, ValueError):
            return False

    def has_batch(self, start: int) -> bool:
        """Whether the batch with first image ``start`` is complete: its record and all images."""
        try:
            records = read_json(self._batch_path(start))
        except (OSError, ValueError):
            return False
        return isinstance(records, list) and len(records) > 0 and all(
            self._holds(start + i, record) for i, record in enumerate(records))

    def _holds(self, index: int, record: dict) -> bool:
        """Whether a record belongs to image ``index`` and has the hash of its file."""
        path = self.image_path(index)
        return (isinstance(record, dict) and record.get('image') == self._name(path) and path.exists()
                and sha256(path) == record.get('sha256'))

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def add_batch(self, start: int, images: np.ndarray, records: Sequence[dict], curve: Optional[dict] = None) -> None:
        """Store images ``start``, ``start + 1``, ...

        Args:
            start: index of the first image.
            images: (N, H, W, 3) uint8 RGB.
            records: JSON data for each image.
            curve: losses of the batch by term, and their ``iteration``: lists of equal length.
        """
        if len(images) != len(records):
            raise UserError(f'{len(images)} images, but {len(records)} records.')
        entries = []
        for offset, (image, record) in enumerate(zip(images, records)):
            path = self.image_path(start + offset)
            with atomic_write(path) as file:
                Image.fromarray(image).save(file, format='BMP')  # PNG takes ten times as long to read
            entries.append(dict(record, image=self._name(path), sha256=sha256(path)))
        if curve:
            write_json(self._curve_path(start), curve)
        write_json(self._batch_path(start), entries)

    def close(self) -> list[dict]:
        """Collect the records of all batches, in order, into the manifest. Call it when the buffer is full."""
        files = sorted((self.folder / 'batches').glob('*.json'))
        records = [record for file in files for record in read_json(file)]
        if len(records) != self.num_images:
            raise RuntimeError(f'The buffer {self.folder} holds {len(records)} of {self.num_images} images.')
        text = ''.join(json.dumps(record, sort_keys=True) + '\n' for record in records)
        if not self.manifest.exists() or self.manifest.read_bytes() != text.encode():
            write_text(self.manifest, text)
        return records

    def is_full(self) -> bool:
        """Whether every image of the manifest exists with its recorded hash."""
        return self.manifest.exists() and all(self._holds(i, record) for i, record in enumerate(self.records()))

    def records(self) -> list[dict]:
        """One record per image, in order.

        Raises:
            UserError: the manifest is damaged, has another number of images, or names a file that does not match its
                line.
        """
        try:
            records = [json.loads(line) for line in self.manifest.read_text(encoding='utf-8').splitlines()]
        except ValueError as error:
            raise UserError(f'{self.manifest} is damaged ({error}): delete {self.folder}.') from error
        if len(records) != self.num_images:
            raise UserError(f'{self.manifest} lists {len(records)} images, but {self.num_images} are declared: '
                             f'delete {self.folder} to regenerate them.')
        for i, record in enumerate(records):
            # Never use a name from a file as a path: it could point outside the folder.
            if not isinstance(record, dict) or record.get('image') != self._name(self.image_path(i)):
                raise UserError(f'{self.manifest}, line {i + 1}, is not a record of {self._name(self.image_path(i))}: '
                                 f'delete {self.folder} to regenerate the images.')
        return records

    def curves(self) -> list[dict]:
        """The losses of each batch over its iterations, in order; empty if none were recorded."""
        return [read_json(path) for path in sorted(self.folder.glob('curves/*.json'))]

    def load(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB of an image."""
        return load_image(self.image_path(index), self.hash_of(index))

    def hash_of(self, index: int) -> Optional[str]:
        """SHA-256 of an image's file, as recorded; None while the buffer is not full."""
        if self._hashes is None and self.manifest.exists():
            self._hashes = [record['sha256'] for record in self.records()]
        return None if self._hashes is None else self._hashes[index]


def load_image(path: PathLike, expected: Optional[str] = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image's file.

    Args:
        path: of the file. BMP has no checksum.
        expected: SHA-256 of the file; None: it is not checked.
    Raises:
        UserError: the file has changed since it was written.
    """
    content = Path(path).read_bytes()
    if expected is not None and hashlib.sha256(content).hexdigest() != expected:
        raise UserError(f'Synthetic image {path} has changed since it was written: run the same command again to '
                        'regenerate it.')
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert('RGB'))


def _short(value: Optional[object]) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f'{text[:18]}...{text[-18:]}'
