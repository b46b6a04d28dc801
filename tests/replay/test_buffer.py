"""The buffer of fake images: lossless, resumable, never stale in silence."""
import json
import os

import numpy as np
import pytest
from PIL import Image

from mmseg_hrhf.replay.buffer import FakeImageBuffer
from mmseg_hrhf.replay.inversion.pixels import PixelMap
from mmseg_hrhf.utils.io import sha256

FINGERPRINT = dict(teacher='a' * 64, options=dict(lr=0.25, stages=[[1.0, 10]]), seed=3)
SIZE = (6, 5)


def images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)


def records(count):
    return [dict(classes=[1 + i % 3], r=[0.5]) for i in range(count)]


def filled(folder, num_images=5, batch_size=2):
    """A full buffer of batches of two."""
    buffer = FakeImageBuffer(folder, num_images)
    buffer.open(FINGERPRINT, SIZE)
    for start in range(0, num_images, batch_size):
        stop = min(start + batch_size, num_images)
        buffer.add_batch(start, images(num_images)[start:stop], records(num_images)[start:stop])
    buffer.close()
    return buffer


def missing_batches(buffer, num_images=5, batch_size=2):
    return [start for start in range(0, num_images, batch_size) if not buffer.has_batch(start)]


def test_images_come_back_exactly(tmp_path):
    buffer = filled(tmp_path)
    np.testing.assert_array_equal(np.stack([buffer.load(i) for i in range(5)]), images(5))


@pytest.mark.parametrize('size', [(1, 1), (7, 5), (512, 300)])
def test_images_of_any_size_and_layout_come_back_exactly(tmp_path, size):
    channels_first = np.random.default_rng(0).integers(0, 256, (1, 3, *size), dtype=np.uint8)
    buffer = FakeImageBuffer(tmp_path, 1)
    buffer.open(FINGERPRINT, size)
    buffer.add_batch(0, channels_first.transpose(0, 2, 3, 1), records(1))
    np.testing.assert_array_equal(buffer.load(0), channels_first[0].transpose(1, 2, 0))


def test_an_image_damaged_during_a_run_is_not_read(tmp_path):
    buffer = filled(tmp_path)
    other_bytes(buffer.image_path(3))
    with pytest.raises(ValueError, match=r'000003\.bmp has changed since it was written: run the same command again'):
        buffer.load(3)


def test_channels_are_stored_as_rgb(tmp_path):
    buffer = FakeImageBuffer(tmp_path, 1)
    buffer.open(FINGERPRINT, SIZE)
    buffer.add_batch(0, np.broadcast_to(np.array([255, 0, 10], np.uint8), (1, *SIZE, 3)), records(1))
    assert Image.open(buffer.image_path(0)).getpixel((0, 0)) == (255, 0, 10)


def test_blank_mask_is_all_background_in_the_size_of_the_images(tmp_path):
    mask = np.asarray(Image.open(filled(tmp_path).blank_mask))
    assert mask.shape == SIZE and mask.dtype == np.uint8 and not mask.any()


def test_manifest_has_the_record_of_every_image_in_order(tmp_path):
    buffer = filled(tmp_path, num_images=25)
    text = buffer.manifest.read_text().splitlines()
    lines = [json.loads(line) for line in text]
    assert lines == buffer.records()
    assert text == [json.dumps(line, sort_keys=True) for line in lines]
    assert [line['image'] for line in lines] == [f'images/{i:06d}.bmp' for i in range(25)]
    assert [line['classes'] for line in lines] == [record['classes'] for record in records(25)]
    assert all(sha256(tmp_path / line['image']) == line['sha256'] for line in lines)


def test_buffer_is_full_only_once_closed(tmp_path):
    buffer = FakeImageBuffer(tmp_path, 2)
    buffer.open(FINGERPRINT, SIZE)
    assert not buffer.is_full() and not buffer.has_batch(0)
    buffer.add_batch(0, images(2), records(2))
    assert not buffer.is_full() and buffer.has_batch(0)
    buffer.close()
    assert buffer.is_full()


def test_losses_of_each_batch_come_back_in_order(tmp_path):
    buffer, curves = FakeImageBuffer(tmp_path, 3), [dict(iteration=[1, 2], tv=[value, 0.5]) for value in (3., 4.)]
    buffer.open(FINGERPRINT, SIZE)
    assert buffer.curves() == []
    buffer.add_batch(2, images(3)[2:], records(3)[2:], curves[1])
    buffer.add_batch(0, images(3)[:2], records(3)[:2], curves[0])
    assert buffer.curves() == curves
    buffer.close()
    assert [record['classes'] for record in buffer.records()] == [[1], [2], [3]]


def test_closing_twice_changes_nothing(tmp_path):
    buffer = filled(tmp_path)
    before = buffer.manifest.read_bytes(), buffer.manifest.stat().st_mtime_ns
    buffer.close()
    assert (buffer.manifest.read_bytes(), buffer.manifest.stat().st_mtime_ns) == before


def test_closing_too_early_says_how_many_are_there(tmp_path):
    buffer = FakeImageBuffer(tmp_path, 5)
    buffer.open(FINGERPRINT, SIZE)
    buffer.add_batch(0, images(2), records(2))
    with pytest.raises(RuntimeError, match='holds 2 of 5 images'):
        buffer.close()
    assert not buffer.manifest.exists()


# -- resuming --------------------------------------------------------------------------------------------------------


def test_stopped_buffer_goes_on_after_its_last_whole_batch(tmp_path):
    buffer = FakeImageBuffer(tmp_path, 5)
    buffer.open(FINGERPRINT, SIZE)
    buffer.add_batch(0, images(2), records(2))
    again = FakeImageBuffer(tmp_path, 5)
    again.open(FINGERPRINT, SIZE)
    assert missing_batches(again) == [2, 4]


def test_batch_killed_before_its_record_is_missing(tmp_path, monkeypatch):
    buffer = FakeImageBuffer(tmp_path, 2)
    buffer.open(FINGERPRINT, SIZE)

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr('mmseg_hrhf.replay.buffer.write_json', killed)
    with pytest.raises(KeyboardInterrupt):
        buffer.add_batch(0, images(2), records(2))
    assert not buffer.has_batch(0)


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    buffer = filled(tmp_path)
    leftover = tmp_path / 'images' / '.000001.bmp.part'
    leftover.write_bytes(b'half')
    buffer.open(FINGERPRINT, SIZE)
    assert not leftover.exists() and buffer.is_full()


def other_bytes(path):
    """One bit flipped in the middle, the size kept."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize('damage', [os.unlink, lambda path: os.truncate(path, 10), lambda path: os.truncate(path, 0),
                                    other_bytes], ids=['missing', 'truncated', 'empty', 'one bit'])
def test_damaged_image_of_a_full_buffer_means_its_batch_alone_is_missing(tmp_path, damage):
    buffer = filled(tmp_path)
    damage(buffer.image_path(3))
    assert not buffer.is_full()
    assert missing_batches(buffer) == [2]
    buffer.add_batch(2, images(5)[2:4], records(5)[2:4])
    buffer.close()
    assert buffer.is_full()
    np.testing.assert_array_equal(buffer.load(3), images(5)[3])


@pytest.mark.parametrize('content', ['', '[{"image": "images/000002.bmp"', '{}', '[]', '[3]', '[{}]',
                                     '[{"image": "../../secret.png", "sha256": ""}]'])
def test_damaged_record_of_a_batch_makes_it_missing(tmp_path, content):
    buffer = filled(tmp_path)
    buffer.manifest.unlink()
    (tmp_path / 'batches' / '000002.json').write_text(content)
    assert missing_batches(buffer) == [2]


def test_damaged_manifest_is_gathered_anew(tmp_path):
    buffer = filled(tmp_path)
    before = buffer.manifest.read_bytes()
    other_bytes(buffer.manifest)
    buffer.close()
    assert buffer.manifest.read_bytes() == before


@pytest.mark.parametrize('damage', [os.unlink, lambda path: os.truncate(path, 5)], ids=['missing', 'truncated'])
def test_images_of_unknown_origin_are_made_again(tmp_path, damage):
    damage(filled(tmp_path).folder / 'fingerprint.json')
    buffer = FakeImageBuffer(tmp_path, 5)
    buffer.open(FINGERPRINT, SIZE)
    assert missing_batches(buffer) == [0, 2, 4] and not buffer.manifest.exists()


def test_blank_mask_of_another_size_or_content_is_made_again(tmp_path):
    buffer = filled(tmp_path)
    blank = Image.fromarray(np.zeros(SIZE, np.uint8))
    for mask in (Image.fromarray(np.ones(SIZE, np.uint8)), blank.crop((0, 0, 2, 2)), blank.convert('P')):
        mask.save(buffer.blank_mask)
        buffer.open(FINGERPRINT, SIZE)
        with Image.open(buffer.blank_mask) as made:
            assert made.mode == 'L'
        np.testing.assert_array_equal(np.asarray(Image.open(buffer.blank_mask)), np.zeros(SIZE))


@pytest.mark.parametrize('name', ['../../secret.png', '/etc/passwd', 'images/000001.bmp', None])
def test_manifest_cannot_name_other_files(tmp_path, name):
    buffer = filled(tmp_path)
    lines = [json.loads(line) for line in buffer.manifest.read_text().splitlines()]
    lines[0]['image'] = name
    buffer.manifest.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    with pytest.raises(ValueError, match=r'manifest\.jsonl, line 1, is not a record of images/000000\.bmp: delete'):
        buffer.records()


def test_remade_buffer_equals_the_first(tmp_path):
    one, two = filled(tmp_path / 'one'), filled(tmp_path / 'two')
    os.unlink(two.image_path(0))
    assert missing_batches(two) == [0]
    two.add_batch(0, images(5)[:2], records(5)[:2])
    two.close()
    assert one.manifest.read_bytes() == two.manifest.read_bytes()


def test_folder_stopped_before_its_blank_mask_gets_one(tmp_path, monkeypatch):

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr('mmseg_hrhf.replay.buffer.Image.fromarray', killed)
        with pytest.raises(KeyboardInterrupt):
            FakeImageBuffer(tmp_path, 2).open(FINGERPRINT, SIZE)
    buffer = FakeImageBuffer(tmp_path, 2)
    buffer.open(FINGERPRINT, SIZE)
    assert buffer.blank_mask.exists()


# -- fingerprint and declared size -----------------------------------------------------------------------------------


def test_same_fingerprint_opens_again(tmp_path):
    filled(tmp_path)
    buffer = FakeImageBuffer(tmp_path, 5)
    # JSON knows no tuples: the same options must be the same after a round trip.
    buffer.open(json.loads(json.dumps(FINGERPRINT)), SIZE)
    assert buffer.is_full()


@pytest.mark.parametrize('key, value', [('teacher', 'b' * 64), ('options', dict(lr=0.1)), ('seed', 4), ('more', 1)])
def test_stale_buffer_names_what_differs_and_the_remedy(tmp_path, key, value):
    filled(tmp_path)
    with pytest.raises(ValueError, match=rf'are stale.* \({key}: .* there, .* now\).*Delete that folder') as error:
        FakeImageBuffer(tmp_path, 5).open({**FINGERPRINT, key: value}, SIZE)
    assert str(tmp_path) in str(error.value)


def test_long_values_are_shortened_in_the_message(tmp_path):
    filled(tmp_path)
    there, *now = ('"' + letter * 17 + '...' + letter * 17 + '"' for letter in 'abc')
    for value, shown in (('b' * 64, now[0]), ('c' * 39, now[1]), ('d' * 38, '"' + 'd' * 38 + '"')):
        with pytest.raises(ValueError, match=f'teacher: {there} there, {shown} now'):
            FakeImageBuffer(tmp_path, 5).open(dict(FINGERPRINT, teacher=value), SIZE)


def test_what_the_teacher_was_fed_is_told_by_the_fingerprint(tmp_path):
    buffer, fields = FakeImageBuffer(tmp_path, 2), dict(channels=[2, 0, 1], scale=[0.5, 1, 2], offset=[0, -1, 1])
    assert buffer.pixel_map is None
    buffer.open(dict(FINGERPRINT, pixel_map=fields), SIZE)
    assert buffer.pixel_map == PixelMap((2, 0, 1), (0.5, 1, 2), (0, -1, 1))
    assert filled(tmp_path / 'without').pixel_map is None


def test_stale_buffer_names_an_option_that_is_gone(tmp_path):
    filled(tmp_path)
    with pytest.raises(ValueError, match='seed: 3 there, null now'):
        FakeImageBuffer(tmp_path, 5).open(dict(teacher='a' * 64, options=FINGERPRINT['options']), SIZE)


def test_stale_buffer_is_left_as_it_is(tmp_path):
    buffer = filled(tmp_path)
    with pytest.raises(ValueError):
        buffer.open(dict(FINGERPRINT, seed=4), SIZE)
    buffer.open(FINGERPRINT, SIZE)
    assert buffer.is_full()


@pytest.mark.parametrize('declared', [4, 6])
def test_other_declared_size_gives_both_numbers(tmp_path, declared):
    filled(tmp_path)
    with pytest.raises(ValueError, match=f'lists 5 images, but {declared} are declared.*delete'):
        FakeImageBuffer(tmp_path, declared).is_full()


def test_damaged_manifest_is_named(tmp_path):
    buffer = filled(tmp_path)
    os.truncate(buffer.manifest, buffer.manifest.stat().st_size // 2)
    with pytest.raises(ValueError, match=r'manifest\.jsonl is damaged .*delete'):
        buffer.records()
