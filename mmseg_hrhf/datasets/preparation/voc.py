"""Builds the standard VOC split (10,582 training and 1,449 validation images) from PASCAL VOC 2012 and SBD."""
from __future__ import annotations

import re
import shutil
import tarfile
from functools import partial
from pathlib import Path
from typing import Callable, Iterator, Sequence

import numpy as np
from PIL import Image
from tqdm import tqdm

from ...utils.errors import UserError
from ...utils.io import PathLike, atomic_write, write_text
from .check import SBD_SOURCE, VOC_COUNTS, VOC_SOURCE, check_voc

_VOC_FILE = re.compile(r'(?:^|/)(JPEGImages/[^/]+\.jpg|SegmentationClass/[^/]+\.png|'
                       r'ImageSets/Segmentation/(?:train|val|trainval)\.txt)$')
_SBD_LIST = re.compile(r'(?:^|/)(train|val)\.txt$')
_SBD_MASK = re.compile(r'(?:^|/)cls/([^/]+)\.mat$')


def voc_palette() -> list[int]:
    """The 256 colours of VOC's masks, flat: bits 3k, 3k + 1, 3k + 2 of a label are bit 7 - k of red, green, blue."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    for label in range(256):
        for bit in range(8):
            for channel in range(3):
                colours[label, channel] |= ((label >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours.ravel().tolist()


def prepare_voc(voc: PathLike, sbd: PathLike, target: PathLike, counts: dict[str, int] = VOC_COUNTS,
                report: Callable[[str], None] = print) -> str:
    """Write ``SegmentationClassAug`` and ``train_aug.txt``; existing files are kept.

    Images of VOC's train and val keep VOC's masks, including void borders; the others have SBD's. ``train_aug.txt`` is
    SBD's train and val plus VOC's train, without VOC's val, sorted: positions in published lists refer to that order.
    ``aug.txt`` is ``train_aug.txt`` without VOC's train, as used by mmseg's zoo configs. Nothing is downloaded.

    Args:
        voc: ``VOCtrainval_11-May-2012.tar``, or its unpacked folder.
        sbd: ``benchmark.tgz``, or its unpacked folder.
        target: the ``VOC2012`` folder to fill.
        counts: number of images in ``train``, ``val`` and ``train_aug``.
        report: called with each line of progress.
    Returns:
        The result of ``check_voc``.
    Raises:
        UserError: an archive is missing or incomplete, or image counts differ.
    """
    target = Path(target)
    lists, masks = target / 'ImageSets' / 'Segmentation', target / 'SegmentationClassAug'
    report(f'VOC 2012 from {voc}')
    if Path(voc).resolve() not in (target.resolve(), *target.resolve().parents):
        _copy_voc(voc, target)
    names = {name: _read_list(lists / f'{name}.txt', counts[name], voc, VOC_SOURCE) for name in ('train', 'val')}
    own = set(names['train']) | set(names['val'])
    report(f'SBD from {sbd}')
    listed = _copy_sbd(sbd, masks, own)
    for name in tqdm(sorted(own), desc="VOC's own masks", unit='mask', mininterval=1):
        if not (masks / f'{name}.png').exists():
            data = (target / 'SegmentationClass' / f'{name}.png').read_bytes()
            with atomic_write(masks / f'{name}.png') as file:
                file.write(data)
    train_aug = sorted((listed | set(names['train'])) - set(names['val']))
    if len(train_aug) != counts['train_aug']:
        raise UserError(f'VOC train and SBD without VOC val are {len(train_aug)} images, but should be '
                        f'{counts["train_aug"]}, so {sbd} is probably incomplete: download it again. {SBD_SOURCE}')
    write_text(lists / 'train_aug.txt', '\n'.join(train_aug) + '\n')
    write_text(lists / 'aug.txt', '\n'.join(sorted(set(train_aug) - set(names['train']))) + '\n')
    return check_voc(target, counts)


def _copy_voc(voc: PathLike, target: Path) -> None:
    found = 0
    files = members(voc, lambda name: _VOC_FILE.search(name) is not None)
    for name, write in tqdm(files, desc='VOC 2012', unit='file', mininterval=1):
        found += 1
        path = target.joinpath(*name.split('/')[-3 if name.endswith('.txt') else -2:])
        if not path.exists():
            write(path)
    if not found:
        raise UserError(f'{voc} is not VOC 2012: it contains no JPEGImages, SegmentationClass and '
                        f'ImageSets/Segmentation. {VOC_SOURCE}')


def _copy_sbd(sbd: PathLike, masks: Path, own: set[str]) -> set[str]:
    """Convert SBD's masks of images without a VOC mask. Returns the names in SBD's lists."""
    listed: set[str] = set()
    scratch = masks / '.sbd'

    def wanted(name: str) -> bool:
        mask = _SBD_MASK.search(name)
        if mask is None:
            return _SBD_LIST.search(name) is not None
        return mask.group(1) not in own and not (masks / f'{mask.group(1)}.png').exists()

    try:
        for name, write in tqdm(members(sbd, wanted), desc='SBD', unit='file', mininterval=1):
            write(scratch)
            mask = _SBD_MASK.search(name)
            if mask is None:
                listed.update(scratch.read_text(encoding='ascii').split())
            else:
                _convert_mat(scratch, masks / f'{mask.group(1)}.png')
    finally:
        scratch.unlink(missing_ok=True)
    if not listed:
        raise UserError(f'{sbd} is not SBD: it contains no train.txt and val.txt. {SBD_SOURCE}')
    return listed


def _convert_mat(source: Path, target: Path) -> None:
    """Convert SBD's ``GTcls.Segmentation`` to a palette PNG, like VOC's masks."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UserError("Reading SBD's MATLAB files needs scipy: pip install scipy.") from error
    mask = loadmat(source)['GTcls'][0]['Segmentation'][0].astype(np.uint8)
    picture = Image.fromarray(mask).convert('P')
    picture.putpalette(voc_palette())
    with atomic_write(target) as file:
        picture.save(file, format='PNG')


def _read_list(path: Path, expected: int, source: PathLike, where: str) -> Sequence[str]:
    if not path.exists():
        raise UserError(f'{source} is not VOC 2012: it contains no {"/".join(path.parts[-3:])}. {where}')
    names = path.read_text(encoding='ascii').split()
    if len(names) != expected:
        raise UserError(f'{path} lists {len(names)} images, but VOC 2012 has {expected}: use the files of VOC 2012. '
                        f'{where}')
    return names


def members(source: PathLike, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Iterate over the files of a folder or archive that satisfy ``wanted``.

    Args:
        source: a folder, or an archive that ``tarfile`` can read (.tar, .tgz, ...).
        wanted: called with each path inside the source, with ``/`` as separator.
    Yields:
        Path inside the source, and a function that writes the file atomically to a given path. Only that function
        writes, so names inside an archive cannot lead outside the target.
    Raises:
        UserError: the source is missing or cannot be read.
    """
    source = Path(source)
    if source.is_dir():
        for path in sorted(source.rglob('*')):
            name = path.relative_to(source).as_posix()
            if path.is_file() and wanted(name):
                yield name, partial(_write, partial(path.open, 'rb'))
        return
    if not source.is_file():
        raise UserError(f'{source} does not exist: pass the downloaded archive, or its unpacked folder.')
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                if member.isfile() and wanted(member.name):
                    yield member.name, partial(_write, partial(archive.extractfile, member))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f'{source} is not a complete tar archive ({error}): download it again, or pass its unpacked '
                        'folder.') from error


def _write(open_source: Callable, target: Path) -> None:
    with open_source() as stream, atomic_write(target) as file:
        shutil.copyfileobj(stream, file)
