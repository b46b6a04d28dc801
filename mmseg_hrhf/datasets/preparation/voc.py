"""PASCAL VOC 2012 and SBD, as they are handed out, to the 10,582 training and 1,449 validation images of the field."""
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
    """The 256 colours of VOC's masks, flat: bit k of a label's triplets goes to bit 7 - k of red, green, blue."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    for label in range(256):
        for bit in range(8):
            for channel in range(3):
                colours[label, channel] |= ((label >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours.ravel().tolist()


def prepare_voc(voc: PathLike, sbd: PathLike, target: PathLike, counts: dict[str, int] = VOC_COUNTS,
                report: Callable[[str], None] = print) -> str:
    """Make ``SegmentationClassAug`` and ``train_aug.txt``; files that are there already are left as they are.

    Images of VOC's own train and val keep VOC's masks, void borders included; the others have SBD's. ``train_aug.txt``
    is SBD's train and val plus VOC's train, without VOC's val, sorted: positions in published lists are in that order.
    ``aug.txt`` is the part of it that VOC's train lacks, which mmseg's zoo configs name.

    Args:
        voc: ``VOCtrainval_11-May-2012.tar``, or the folder it unpacks to.
        sbd: ``benchmark.tgz``, or the folder it unpacks to.
        target: the ``VOC2012`` folder to fill.
        counts: images of ``train``, ``val`` and ``train_aug``.
        report: called with lines of progress.
    Returns:
        What ``check_voc`` says of the result.
    Raises:
        UserError: an archive is missing or lacks something; counts differ. Nothing is downloaded.
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
        raise UserError(f'VOC train and SBD without VOC val are {len(train_aug)} images, but {counts["train_aug"]} '
                         f'are expected: is {sbd} whole? {SBD_SOURCE}')
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
        raise UserError(f'{voc} holds no JPEGImages, SegmentationClass and ImageSets/Segmentation: it is not '
                         f'VOC 2012. {VOC_SOURCE}')


def _copy_sbd(sbd: PathLike, masks: Path, own: set[str]) -> set[str]:
    """Convert SBD's masks of images that VOC has none of. Returns the names in SBD's lists."""
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
        raise UserError(f'{sbd} holds no train.txt and val.txt: it is not SBD. {SBD_SOURCE}')
    return listed


def _convert_mat(source: Path, target: Path) -> None:
    """SBD's ``GTcls.Segmentation`` as a palette PNG like VOC's own masks."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UserError("SBD's masks are MATLAB files, which scipy reads: pip install scipy.") from error
    mask = loadmat(source)['GTcls'][0]['Segmentation'][0].astype(np.uint8)
    picture = Image.fromarray(mask).convert('P')
    picture.putpalette(voc_palette())
    with atomic_write(target) as file:
        picture.save(file, format='PNG')


def _read_list(path: Path, expected: int, source: PathLike, where: str) -> Sequence[str]:
    if not path.exists():
        raise UserError(f'{source} has no {"/".join(path.parts[-3:])}: it is not VOC 2012. {where}')
    names = path.read_text(encoding='ascii').split()
    if len(names) != expected:
        raise UserError(f'{path} lists {len(names)} images, VOC 2012 has {expected}: it is another year or split.')
    return names


def members(source: PathLike, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Files whose path, with ``/``, satisfies ``wanted``, in the order of the source.

    Args:
        source: a folder, or an archive that ``tarfile`` reads (.tar, .tgz, ...).
        wanted: asked about paths inside the source.
    Yields:
        Path inside the source, and a function that writes the file to a path, whole or not at all. Only that function
        writes, to where its caller says: names inside an archive cannot lead elsewhere.
    Raises:
        UserError: the source is missing or no such archive.
    """
    source = Path(source)
    if source.is_dir():
        for path in sorted(source.rglob('*')):
            name = path.relative_to(source).as_posix()
            if path.is_file() and wanted(name):
                yield name, partial(_write, partial(path.open, 'rb'))
        return
    if not source.is_file():
        raise UserError(f'{source} does not exist: give the downloaded archive, or the folder it unpacks to.')
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                if member.isfile() and wanted(member.name):
                    yield member.name, partial(_write, partial(archive.extractfile, member))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f'{source} is no whole tar archive ({error}): download it again, or give the folder it '
                         'unpacks to.') from error


def _write(open_source: Callable, target: Path) -> None:
    with open_source() as stream, atomic_write(target) as file:
        shutil.copyfileobj(stream, file)
