"""The fake images of a step on disk: lossless, whole or absent, bound to the teacher that made them."""
from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Optional, Sequence

import numpy as np
from PIL import Image

from ..files import PathLike, atomic_write, read_json, write_json, write_text


class FakeImageBuffer:
    """A folder of PNG images, one record per image, and the fingerprint of what made them.

    ``images/000000.png`` and so on; ``blank.png``, their common empty mask; ``fingerprint.json``; while being filled
    ``batches/*.json``, each written after the images it records; once full ``manifest.jsonl``. ``curves/*.json`` has
    the losses of each batch over its iterations.

    Args:
        folder: the buffer's own folder.
        num_images: declared size; images load lazily.
    """

    def __init__(self, folder: PathLike, num_images: int) -> None:
        self.folder = Path(folder)
        self.num_images = int(num_images)

    @property
    def manifest(self) -> Path:
        return self.folder / 'manifest.jsonl'

    @property
    def blank_mask(self) -> Path:
        """A mask of zeros of the images' size: fakes have no new label."""
        return self.folder / 'blank.png'

    def image_path(self, index: int) -> Path:
        return self.folder / 'images' / f'{index:06d}.png'

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
            ValueError: the folder was made by another teacher or with other options; names which.
        """
        path = self.folder / 'fingerprint.json'
        for leftover in self.folder.glob('images/.*'):
            leftover.unlink()  # what a killed process was writing
        if path.exists():
            held = read_json(path)
            differing = sorted(key for key in set(held) | set(fingerprint) if held.get(key) != fingerprint.get(key))
            if differing:
                details = '; '.join(f'{key}: {_short(held.get(key))} there, {_short(fingerprint.get(key))} now'
                                    for key in differing)
                raise ValueError(f'The fake images in {self.folder} are stale, they were made otherwise ({details}). '
                                 'Delete that folder to have them made again, or use another work dir.')
            return
        self._write_png(self.blank_mask, np.zeros(size, dtype=np.uint8))
        write_json(path, fingerprint)

    @staticmethod
    def _write_png(path: Path, array: np.ndarray) -> None:
        with atomic_write(path) as file:
            Image.fromarray(array).save(file, format='PNG', compress_level=1)

    def has_batch(self, start: int) -> bool:
        """Whether the batch whose first image is ``start`` is whole: record and every image."""
        path = self._batch_path(start)
        if not path.exists():
            return False
        try:
            records = read_json(path)
        except ValueError:
            return False
        return all(self._holds(record) for record in records)

    def _holds(self, record: dict) -> bool:
        path = self.folder / record['image']
        return path.exists() and path.stat().st_size == record['bytes']

    def add_batch(self, start: int, images: np.ndarray, records: Sequence[dict], curve: Optional[dict] = None) -> None:
        """Store images ``start``, ``start + 1``, ...

        Args:
            start: position of the first.
            images: (N, H, W, 3) uint8 RGB.
            records: JSON data about each image.
            curve: losses of the batch by term, and their ``iteration``: lists of one length.
        """
        if len(images) != len(records):
            raise ValueError(f'{len(images)} images, but {len(records)} records.')
        entries = []
        for offset, (image, record) in enumerate(zip(images, records)):
            path = self.image_path(start + offset)
            self._write_png(path, image)
            entries.append(dict(record, image=str(path.relative_to(self.folder)), bytes=path.stat().st_size))
        if curve:
            write_json(self._curve_path(start), curve)
        write_json(self._batch_path(start), entries)

    def close(self) -> None:
        """Gather the batches' records into the manifest, in order. Called once all batches are in."""
        if self.is_full():
            return
        files = sorted((self.folder / 'batches').glob('*.json'))
        records = [record for file in files for record in read_json(file)]
        if len(records) != self.num_images:
            raise RuntimeError(f'The buffer {self.folder} holds {len(records)} of {self.num_images} images.')
        write_text(self.manifest, ''.join(json.dumps(record, sort_keys=True) + '\n' for record in records))

    def is_full(self) -> bool:
        """Whether every image is there, as the manifest says."""
        return self.manifest.exists() and all(self._holds(record) for record in self.records())

    def records(self) -> list[dict]:
        """One record per image, in order."""
        try:
            records = [json.loads(line) for line in self.manifest.read_text(encoding='utf-8').splitlines()]
        except ValueError as error:
            raise ValueError(f'{self.manifest} is damaged ({error}): delete {self.folder}.') from error
        if len(records) != self.num_images:
            raise ValueError(f'{self.manifest} lists {len(records)} images, but {self.num_images} are declared: '
                             f'delete {self.folder} to have them made again.')
        return records

    def curves(self) -> list[dict]:
        """The losses of each batch over its iterations, in order; empty if none were recorded."""
        return [read_json(path) for path in sorted(self.folder.glob('curves/*.json'))]

    def load(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB of an image."""
        return np.asarray(Image.open(io.BytesIO(self.image_path(index).read_bytes())).convert('RGB'))


def _short(value: Optional[object]) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f'{text[:18]}...{text[-18:]}'
