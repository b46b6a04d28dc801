"""Sizes from JPEG headers: Pillow's, or none."""
import io

import numpy as np
import pytest
from PIL import Image

from mmseg_hrhf.datasets.image_check import jpeg_size


def jpeg(size=(37, 21), mode='RGB', **options):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, 'JPEG', **options)
    return out.getvalue()


@pytest.mark.parametrize('mode', ['RGB', 'L', 'CMYK'])
@pytest.mark.parametrize('options', [{}, dict(progressive=True), dict(optimize=True), dict(comment=b'x' * 500),
                                     dict(icc_profile=b'p' * 700), dict(restart_marker_blocks=2), dict(quality=100)],
                         ids=lambda options: next(iter(options), 'plain'))
def test_size_is_that_of_the_library(mode, options):
    data = jpeg(mode=mode, **options)
    assert jpeg_size(data[:4096]) == Image.open(io.BytesIO(data)).size == (37, 21)


@pytest.mark.parametrize('orientation', [1, 6])
def test_exif_is_left_to_the_library(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert jpeg_size(jpeg(exif=exif)) is None


def test_a_header_that_ends_later_or_never_is_left_to_the_library():
    data = jpeg()
    scan = data.index(b'\xff\xda')
    assert jpeg_size(data[:scan + 4]) == (37, 21)
    assert {jpeg_size(data[:end]) for end in range(scan + 4)} == {None}
    assert jpeg_size(data.replace(b'\xff\xdb', b'\x00\xdb')) is None


@pytest.mark.parametrize('kind', ['PNG', 'BMP', 'GIF', 'WEBP'])
def test_other_formats_are_left_to_the_library(kind):
    out = io.BytesIO()
    Image.new('RGB', (8, 8)).save(out, kind)
    assert jpeg_size(out.getvalue()) is None


@pytest.mark.parametrize('change', [
    lambda frame: frame[:4] + b'\x0c' + frame[5:],  # 12 bits a sample
    lambda frame: frame[:1] + b'\xc9' + frame[2:],  # arithmetic coding
    lambda frame: frame[:5] + b'\x00\x00' + frame[7:],  # a height that comes later
    lambda frame: frame[:5] + b'\xff\xff\xff\xff' + frame[9:],  # a decompression bomb
    lambda frame: frame + frame,  # two frames
], ids=['12 bits', 'arithmetic', 'no height', 'bomb', 'two frames'])
def test_frames_out_of_the_ordinary_are_left_to_the_library(change):
    data = jpeg()
    at = data.index(b'\xff\xc0')
    end = at + 2 + int.from_bytes(data[at + 2:at + 4], 'big')
    assert jpeg_size(data[:at] + data[at:end] + data[end:]) == (37, 21)
    assert jpeg_size(data[:at] + change(data[at:end]) + data[end:]) is None
