"""Labels of unfiltered PNG masks without Pillow: the same labels, or none at all."""
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmseg_hrhf.datasets.class_index import read_mask
from mmseg_hrhf.datasets.unfiltered_png import unfiltered_labels


def chunk(name, content):
    return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))


def png(labels, colour=3, depth=8, interlace=0, filters=None, parts=1, stream=None, size=None):
    """A PNG file of labels (H, W) whose rows are stored as they are, under any header."""
    height, width = labels.shape
    filters = filters or [0] * height
    if stream is None:
        stream = zlib.compress(b''.join(bytes([kind]) + row.tobytes() for kind, row in zip(filters, labels)))
    header = struct.pack('>IIBBBBB', *(size or (width, height)), depth, colour, 0, 0, interlace)
    bounds = [len(stream) * part // parts for part in range(parts + 1)]
    return b''.join([
        b'\x89PNG\r\n\x1a\n',
        chunk(b'IHDR', header),
        chunk(b'PLTE', bytes(range(256)) * 3) if colour == 3 else b'',
        *(chunk(b'IDAT', stream[start:end]) for start, end in zip(bounds, bounds[1:])),
        chunk(b'IEND', b''),
    ])


def regions(height, width, seed):
    """Labels in rectangles, as masks have them, and a few lone pixels."""
    rng = np.random.default_rng(seed)
    labels = np.full((height, width), rng.integers(256), dtype=np.uint8)
    for _ in range(4):
        top, left = rng.integers(height), rng.integers(width)
        labels[top:top + rng.integers(1, 12), left:left + rng.integers(1, 12)] = rng.integers(256)
    for _ in range(rng.integers(3)):
        labels[rng.integers(height), rng.integers(width)] = rng.integers(256)
    return labels


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1 << 30), st.sampled_from([0, 3]), st.integers(1, 5))
def test_same_labels_as_counting(height, width, seed, colour, parts):
    labels = regions(height, width, seed)
    data = png(labels, colour, parts=parts)
    present, size = unfiltered_labels(data)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(np.asarray(image), labels)
    assert size == (width, height)
    assert np.flatnonzero(present).tolist() == np.unique(labels).tolist()


@given(st.integers(0, 255), st.integers(0, 255), st.integers(1, 30), st.integers(1, 30), st.data())
def test_one_pixel_is_enough(ground, label, height, width, data):
    labels = np.full((height, width), ground, dtype=np.uint8)
    labels[data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))] = label
    assert np.flatnonzero(unfiltered_labels(png(labels))[0]).tolist() == np.unique(labels).tolist()


def test_masks_as_pillow_writes_them(tmp_path, monkeypatch):
    labels = regions(375, 500, 7)
    image = Image.fromarray(labels)
    image.putpalette([c for c in range(256) for _ in range(3)])
    image.save(tmp_path / 'mask.png')
    monkeypatch.setattr(Image, 'open', lambda *args: pytest.fail('Pillow was asked'))
    present, size = read_mask(str(tmp_path / 'mask.png'))
    assert size == (500, 375) and np.flatnonzero(present).tolist() == np.unique(labels).tolist()


def test_filtered_rows_go_to_pillow(tmp_path):
    labels = np.add.outer(np.arange(60), np.arange(50)).astype(np.uint8)
    Image.fromarray(labels).save(tmp_path / 'mask.png')
    assert unfiltered_labels((tmp_path / 'mask.png').read_bytes()) is None
    assert np.flatnonzero(read_mask(str(tmp_path / 'mask.png'))[0]).tolist() == np.unique(labels).tolist()


@pytest.mark.parametrize('row', [0, 1, 15, 16, 17, 39])
def test_one_filtered_row(row):
    filters = [0] * 40
    filters[row] = 2
    assert unfiltered_labels(png(regions(40, 30, 3), filters=filters)) is None


@pytest.mark.parametrize('header', [
    dict(depth=1), dict(depth=2), dict(depth=4), dict(depth=16, colour=0), dict(colour=2), dict(colour=4),
    dict(colour=6), dict(interlace=1), dict(size=(0, 20)), dict(size=(20, 0)), dict(size=(19, 20)),
    dict(size=(20, 19)), dict(size=(20, 21)), dict(size=(1 << 14, 1 << 14))
], ids=str)
def test_another_header(header):
    labels = regions(20, 20, 5)
    assert unfiltered_labels(png(labels)) is not None
    assert unfiltered_labels(png(labels, **header)) is None


@pytest.mark.parametrize('stream', [
    b'', b'no stream', zlib.compress(bytes(9 * 8))[:-1], zlib.compress(bytes(9 * 8 - 1)),
    zlib.compress(bytes(9 * 8 + 1)), zlib.compress(bytes(9 * 8))[:-4] + b'\0\0\0\0'
], ids=['none', 'another', 'cut', 'short', 'long', 'checksum'])
def test_another_stream(stream):
    labels = np.zeros((8, 8), dtype=np.uint8)
    assert unfiltered_labels(png(labels, stream=zlib.compress(bytes(9 * 8)))) is not None
    assert unfiltered_labels(png(labels, stream=stream)) is None


def test_no_damaged_byte_is_overlooked():
    data = png(regions(12, 10, 11), parts=2)
    for at in range(len(data)):
        assert unfiltered_labels(data[:at]) is None
        for flip in (1, 128):
            assert unfiltered_labels(data[:at] + bytes([data[at] ^ flip]) + data[at + 1:]) is None
