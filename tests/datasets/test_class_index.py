"""The class index: every label of every mask, scanned once, and no mask misread in silence."""
import contextlib
import os
import signal
import struct
import sys
import tarfile
import time
import zlib
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from mmseg_hrhf.datasets.class_index import class_index, fingerprint, label_counts, scan
from mmseg_hrhf.scenario import Scenario

# The package's attribute of this name is the function.
module = sys.modules[class_index.__module__]
SHARED = Path(os.environ.get('HRHF_SHARED', Path(__file__).resolve().parents[3] / 'shared'))
VOC_LABELS = {*range(21), 255}


def grey(*labels):
    """4 x 4 greyscale mask that holds the labels."""
    return Image.fromarray(np.resize(np.array(labels, dtype=np.uint8), (4, 4)))


def palette(*labels):
    """4 x 4 palette mask, the colour of label c far from (c, c, c)."""
    image = grey(*labels)
    image.putpalette([(37 * c + k) % 256 for c in range(256) for k in (200, 90, 10)])
    return image


def save(folder, images):
    paths = [str(folder / f'{i}.png') for i in range(len(images))]
    for path, image in zip(paths, images):
        image.save(path)
    return paths


def labels_of(row):
    return np.flatnonzero(row).tolist()


@pytest.fixture
def no_scan(monkeypatch):
    """From the call on, a scan is an error."""

    def forbid():
        monkeypatch.setattr(module, 'scan', lambda *args: pytest.fail('scanned in spite of a fresh cache'))

    return forbid


@pytest.mark.parametrize('image', [grey(0, 3, 255), palette(0, 3, 255)], ids=['grey', 'palette'])
def test_labels_of_a_mask(tmp_path, image):
    path, = save(tmp_path, [image])
    counts, size = label_counts(path)
    assert counts.shape == (256, ) and size == (4, 4)
    # The labels of `grey` and `palette` repeat in 16 pixels.
    assert {label: counts[label] for label in np.flatnonzero(counts)} == {0: 6, 3: 5, 255: 5}


def test_a_single_pixel_counts(tmp_path):
    mask = np.zeros((300, 200), dtype=np.uint8)
    mask[299, 199] = 17
    path, = save(tmp_path, [Image.fromarray(mask)])
    assert labels_of(label_counts(path)[0]) == [0, 17]


@pytest.mark.parametrize('image', [grey(0, 1), palette(0, 7), grey(0, 1).point(lambda c: c, '1')],
                         ids=['grey', 'palette', 'black and white'])
def test_labels_are_those_that_training_reads(tmp_path, image):
    path, = save(tmp_path, [image])
    sample = dict(seg_map_path=path, label_map=None, reduce_zero_label=False, seg_fields=[])
    row, = scan([path], VOC_LABELS)
    assert labels_of(row) == np.unique(LoadAnnotations()(sample)['gt_seg_map']).tolist()


@pytest.mark.parametrize('image, mode', [
    (Image.new('RGB', (4, 4)), 'RGB'),
    (Image.new('RGBA', (4, 4)), 'RGBA'),
    (Image.new('LA', (4, 4)), 'LA'),
    (Image.fromarray(np.full((4, 4), 300, dtype=np.uint16)), 'I;16'),
])
def test_masks_that_are_not_one_8_bit_channel_are_refused_by_name(tmp_path, image, mode):
    path, = save(tmp_path, [image])
    with pytest.raises(ValueError, match=rf"0\.png' has mode '{mode}'; .*Convert colour masks"):
        label_counts(path)


def test_missing_mask_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no\.png' cannot be read: No such file or directory\.$"):
        label_counts(str(tmp_path / 'no.png'))


def test_mask_that_its_store_does_not_give_is_named(monkeypatch):
    def fail(path, backend_args):
        raise ConnectionError('timed out')

    monkeypatch.setattr(module, 'read_bytes', fail)
    with pytest.raises(ValueError, match=r"^Mask 's3://a\.png' cannot be read: timed out\.$"):
        label_counts('s3://a.png', dict(backend='petrel'))


def png(width, height):
    """A grey PNG that claims a size and holds no pixel."""

    def chunk(name, data):
        return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))

    header = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')


@pytest.mark.parametrize('side, reason', [(50000, 'decompression bomb'), (4, 'truncated')])
def test_mask_without_the_pixels_it_claims_is_named(tmp_path, side, reason):
    (tmp_path / 'a.png').write_bytes(png(side, side))
    with pytest.raises(ValueError, match=rf"a\.png' is not a readable image \(65 bytes\): .*{reason}.*[^.]\.$"):
        label_counts(str(tmp_path / 'a.png'))


def test_zero_byte_mask_is_named_with_its_size(tmp_path):
    (tmp_path / 'a.png').touch()
    with pytest.raises(ValueError, match=r"a\.png' is not a readable image \(0 bytes\)"):
        label_counts(str(tmp_path / 'a.png'))


def test_every_truncation_is_named_or_harmless(tmp_path):
    path, = save(tmp_path, [palette(*range(16))])
    content = Path(path).read_bytes()
    for size in range(1, len(content)):
        Path(path).write_bytes(content[:size])
        try:
            labels = labels_of(label_counts(path)[0])
        except ValueError as error:
            assert '0.png' in str(error), f'{size} bytes'
        else:
            assert labels == list(range(16)), f'{size} bytes'


@pytest.mark.parametrize('length', [0, 12])
def test_short_png_header_is_named(tmp_path, length):
    path, = save(tmp_path, [grey(0, 1)])
    content = bytearray(Path(path).read_bytes())
    content[11] = length
    Path(path).write_bytes(content)
    with pytest.raises(ValueError, match=r'0\.png'):
        label_counts(path)


def test_scan_is_one_row_per_mask_in_order(tmp_path):
    paths = save(tmp_path, [grey(0, 1), grey(2), grey(0, 255)])
    matrix = scan(paths, VOC_LABELS)
    assert matrix.shape == (3, 256)
    assert [labels_of(row) for row in matrix] == [[0, 1], [2], [0, 255]]


def test_label_out_of_range_names_mask_label_and_known_ones(tmp_path):
    paths = save(tmp_path, [grey(0, 1), grey(0, 21, 30), grey(22)])
    with pytest.raises(ValueError, match=r"1\.png' holds label 21, .*known: 0-20, 255"):
        scan(paths, VOC_LABELS)


@pytest.mark.parametrize('num_masks', [64, 65, 150])
def test_many_masks_keep_their_order_whatever_decodes_them(tmp_path, num_masks):
    paths = save(tmp_path, [grey(i % 21) for i in range(num_masks)])
    matrix = scan(paths, VOC_LABELS, num_workers=2)
    assert [labels_of(row) for row in matrix] == [[i % 21] for i in range(num_masks)]


@pytest.mark.parametrize('num_masks, num_workers, kind', [
    (64, 2, ThreadPoolExecutor), (65, 2, ProcessPoolExecutor), (65, 1, ThreadPoolExecutor)])
def test_processes_are_started_for_many_masks_and_several_cores_alone(num_masks, num_workers, kind):
    with module._workers(num_masks, num_workers, reader=None) as pool:
        assert type(pool) is kind and pool._max_workers == num_workers


@pytest.mark.parametrize('labels, text', [
    ([], ''), ([7], '7'), ([0, 1], '0-1'), ([0, 2], '0, 2'), ([0, 1, 2, 255], '0-2, 255'), ([3, 5, 6, 9], '3, 5-6, 9')])
def test_known_labels_are_listed_by_ranges(labels, text):
    assert module._ranges(labels) == text


@pytest.mark.parametrize('backend_args', [None, dict(backend='local')])
def test_size_of_a_mask_is_its_width_and_height(tmp_path, backend_args, monkeypatch):
    own, asked = module.read_bytes, []
    monkeypatch.setattr(module, 'read_bytes', lambda path, backend_args: (asked.append(backend_args),
                                                                          own(path, backend_args=backend_args))[1])
    path, = save(tmp_path, [Image.fromarray(np.zeros((3, 8), np.uint8))])
    row, size = module.label_counts(path, backend_args)
    assert size == (8, 3) and labels_of(row) == [0]
    assert asked == ([] if backend_args is None else [backend_args])


def test_each_image_is_checked_against_its_mask(tmp_path):
    paths = save(tmp_path, [grey(0), grey(1)])
    assert [labels_of(row) for row in scan(paths, VOC_LABELS, images=paths)] == [[0], [1]]
    Image.new('RGB', (4, 5)).save(tmp_path / 'image.png')
    with pytest.raises(ValueError, match=r"image\.png' is 4 x 5 pixels, but its mask .*1\.png' is 4 x 4"):
        class_index(paths, VOC_LABELS, images=[paths[0], str(tmp_path / 'image.png')])


def test_error_in_a_worker_process_reaches_the_user(tmp_path):
    paths = save(tmp_path, [grey(1) for _ in range(140)])
    os.truncate(paths[130], 20)
    with pytest.raises(ValueError, match=r"130\.png' is not a readable image \(20 bytes\)"):
        scan(paths, VOC_LABELS, num_workers=2)


# -- cache -----------------------------------------------------------------------------------------------------------


def test_no_cache_folder_writes_nothing(tmp_path):
    paths = save(tmp_path, [grey(3)])
    assert labels_of(class_index(paths, VOC_LABELS)[0]) == [3]
    assert [path.name for path in tmp_path.iterdir()] == ['0.png']


def test_second_call_reads_the_cache(tmp_path, no_scan):
    paths = save(tmp_path, [grey(0, 1), grey(255)])
    first = class_index(paths, VOC_LABELS, tmp_path / 'cache')
    no_scan()
    np.testing.assert_array_equal(class_index(paths, VOC_LABELS, tmp_path / 'cache'), first)


def touch(path):
    stat = os.stat(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


def grow(path):
    stat = os.stat(path)
    with open(path, 'ab') as file:
        file.write(b'\0')
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize('change', [touch, grow], ids=['modification time', 'size'])
def test_changed_mask_changes_the_fingerprint(tmp_path, change):
    paths = save(tmp_path, [grey(1), grey(2)])
    before = fingerprint(paths)
    change(paths[1])
    assert fingerprint(paths) != before


def test_files_that_are_elsewhere_are_known_by_their_names():
    assert fingerprint(['s3://a', 's3://b']) == fingerprint(['s3://a', 's3://b'])
    others = (['s3://b', 's3://a'], ['s3://a'], ['s3://a', 's3://b', 's3://b'], ['s3://as3://b'])
    assert fingerprint(['s3://a', 's3://b']) not in map(fingerprint, others)


def test_fingerprint_depends_on_the_order(tmp_path):
    paths = save(tmp_path, [grey(1), grey(2)])
    assert fingerprint(paths) != fingerprint(paths[::-1])


def test_rewritten_mask_is_scanned_again(tmp_path):
    paths = save(tmp_path, [grey(1), grey(2)])
    class_index(paths, VOC_LABELS, tmp_path / 'cache')
    grey(5).save(paths[1])
    touch(paths[1])
    assert labels_of(class_index(paths, VOC_LABELS, tmp_path / 'cache')[1]) == [5]


@pytest.mark.parametrize('damage', [
    lambda file: file.write_bytes(b''),
    lambda file: os.truncate(file, file.stat().st_size // 2),
    lambda file: file.write_bytes(b'not an archive'),
    lambda file: np.savez(file, counts=np.zeros((1, 1)), labels=np.zeros(1, int), key=np.load(file)['key']),
    lambda file: np.savez(file, other=np.zeros(3)),
    lambda file: np.savez(file, counts=np.array([{}], dtype=object), labels=[0], key=np.load(file)['key']),
], ids=['empty', 'truncated', 'foreign', 'other length', 'other key', 'pickled'])
def test_damaged_cache_is_made_again(tmp_path, no_scan, damage):
    paths = save(tmp_path, [grey(0, 1), grey(255)])
    first = class_index(paths, VOC_LABELS, tmp_path / 'cache')
    damage(next((tmp_path / 'cache').iterdir()))
    np.testing.assert_array_equal(class_index(paths, VOC_LABELS, tmp_path / 'cache'), first)
    no_scan()
    np.testing.assert_array_equal(class_index(paths, VOC_LABELS, tmp_path / 'cache'), first)


def test_cache_of_other_masks_is_not_taken_for_that_of_these(tmp_path):
    paths, cache = save(tmp_path, [grey(0, 1), grey(2)]), tmp_path / 'cache'
    class_index(paths, VOC_LABELS, cache)
    of_these = next(cache.iterdir())
    class_index(paths[::-1], VOC_LABELS, cache)
    of_others, = set(cache.iterdir()) - {of_these}
    of_these.write_bytes(of_others.read_bytes())
    assert [labels_of(row) for row in class_index(paths, VOC_LABELS, cache)] == [[0, 1], [2]]


class Payload:
    """Pickles as a call that creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_nothing_in_a_cache_is_unpickled(tmp_path):
    paths, cache = save(tmp_path, [grey(0, 1)]), tmp_path / 'cache'
    class_index(paths, VOC_LABELS, cache)
    file, = cache.iterdir()
    payload = np.array([Payload(tmp_path / 'ran')], dtype=object)
    np.savez(file, key=payload, presence=payload)
    assert labels_of(class_index(paths, VOC_LABELS, cache)[0]) == [0, 1]
    assert not (tmp_path / 'ran').exists()


def test_refused_mask_leaves_no_cache(tmp_path):
    paths = save(tmp_path, [grey(77)])
    with pytest.raises(ValueError, match='holds label 77'):
        class_index(paths, VOC_LABELS, tmp_path / 'cache')
    assert not (tmp_path / 'cache').exists()


def test_cached_label_is_checked_against_the_dataset_that_asks(tmp_path):
    paths = save(tmp_path, [grey(0, 20)])
    class_index(paths, VOC_LABELS, tmp_path / 'cache')
    with pytest.raises(ValueError, match=r'holds label 20, .*known: 0-10, 255'):
        class_index(paths, {*range(11), 255}, tmp_path / 'cache')


def test_other_ranks_are_told(tmp_path, monkeypatch, no_scan):
    paths, told = save(tmp_path, [grey(0, 1), grey(2)]), []
    monkeypatch.setattr(module, 'broadcast_object_list', told.extend)
    first = class_index(paths, VOC_LABELS, tmp_path / 'cache')
    assert len(told) == 1
    monkeypatch.setattr(module, 'is_main_process', lambda: False)
    monkeypatch.setattr(module, 'broadcast_object_list', lambda held: held.__setitem__(0, told[0]))
    no_scan()
    np.testing.assert_array_equal(class_index(paths, VOC_LABELS, tmp_path / 'of_another_node'), first)
    assert not (tmp_path / 'of_another_node').exists()


# -- all masks of VOC ------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def voc_presence(tmp_path_factory):
    archive = SHARED / 'data' / 'voc_train_aug_masks.tar'
    if not archive.exists():
        pytest.skip(f'{archive} is absent (HRHF_SHARED names the folder with the masks of VOC)')
    folder = tmp_path_factory.mktemp('voc')
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter='data') if sys.version_info >= (3, 12) else tar.extractall(folder)
    names = (folder / 'train_aug.txt').read_text().split()
    return scan([str(folder / 'SegmentationClassAug' / f'{name}.png') for name in names], VOC_LABELS)


@pytest.mark.parametrize('task, setting, counts', [
    ('19-1', 'disjoint', [10034, 548]),
    ('15-5', 'overlapped', [9568, 2145]),
    ('15-1', 'disjoint', [8437, 378, 299, 420, 500, 548]),
    ('15-1', 'overlapped', [9568, 487, 299, 491, 500, 548]),
    ('10-1', 'overlapped', [6139, 528, 1177, 444, 482, 3898, 487, 299, 491, 500, 548]),
])
def test_real_masks_give_the_published_counts(voc_presence, task, setting, counts):
    scenario = Scenario.build({f'class {c}': c for c in range(1, 21)}, task=task, setting=setting)
    assert [len(scenario.select_train(voc_presence, t)) for t in range(scenario.num_steps)] == counts


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded')
def test_workers_end_when_the_scanning_process_is_killed(tmp_path):
    # Masks that take for ever: named pipes that nobody writes to.
    os.mkfifo(tmp_path / 'mask.png')
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        scan([str(tmp_path / 'mask.png')] * 200, range(256), num_workers=2)
        os._exit(0)
    wait_for(lambda: num_processes(group=pid) == 3)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    wait_for(lambda: num_processes(group=pid) == 0)


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def num_processes(group):
    found = 0
    for folder in Path('/proc').glob('[0-9]*'):
        with contextlib.suppress(OSError):
            fields = (folder / 'stat').read_text().rsplit(')', 1)[1].split()
            found += int(fields[2]) == group and fields[0] != 'Z'
    return found


@pytest.mark.skipif(not hasattr(os, 'sched_setaffinity'), reason='no affinity on this system')
def test_no_more_workers_than_cores_of_the_job():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert module._cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize('options, num_workers', [({}, 7), (dict(num_workers=3), 3)])
def test_masks_are_read_by_as_many_workers_as_cores_unless_told(tmp_path, monkeypatch, options, num_workers):
    own, asked = module._workers, []
    monkeypatch.setattr(module, '_cores', lambda: 7)
    monkeypatch.setattr(module, '_workers', lambda *args: (asked.append(args[:2]), own(*args))[1])
    scan(save(tmp_path, [grey(0), grey(1)]), VOC_LABELS, **options)
    assert asked == [(2, num_workers)]


def test_a_worker_process_decodes_in_one_thread():
    with module._workers(65, 2, reader=None) as pool:
        assert pool.submit(eval, "__import__('cv2').getNumThreads()").result() == 1


@pytest.mark.parametrize('held, cores', [(6, 6), (None, 1)])
def test_all_cores_are_used_where_the_job_s_are_not_told(monkeypatch, held, cores):
    monkeypatch.delattr(module.os, 'sched_getaffinity', raising=False)
    monkeypatch.setattr(module.os, 'cpu_count', lambda: held)
    assert module._cores() == cores
