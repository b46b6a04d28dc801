"""Small archives in the layout of the published ones."""
import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from mmseg_hrhf.datasets.preparation.check import check_ade, check_voc
from mmseg_hrhf.datasets.preparation.voc import prepare_voc, voc_palette

savemat = pytest.importorskip('scipy.io').savemat

# VOC: two train, one val, and one image that only SBD labels. SBD labels VOC's val image and a train image too.
TRAIN, VAL, SBD_ONLY = ['2007_000032', '2007_000039'], ['2007_000033'], ['2008_000001', '2010_000002']
COUNTS = dict(train=2, val=1, train_aug=4)


def encode(kind, array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


def mat(label):
    stream = io.BytesIO()
    mask = np.full((6, 5), label, dtype=np.uint8)
    savemat(stream, dict(GTcls=dict(Segmentation=mask, Boundaries=np.zeros((20, 1)))))
    return stream.getvalue()


def voc_files():
    root = 'VOCdevkit/VOC2012'
    files = {f'{root}/JPEGImages/{name}.jpg': encode('jpeg', np.zeros((6, 5, 3), dtype=np.uint8))
             for name in TRAIN + VAL + SBD_ONLY}
    own = np.full((6, 5), 1, dtype=np.uint8)
    own[0] = 255  # VOC's border, which SBD does not have
    files.update({f'{root}/SegmentationClass/{name}.png': encode('png', own) for name in TRAIN + VAL})
    for split, names in dict(train=TRAIN, val=VAL, trainval=TRAIN + VAL).items():
        files[f'{root}/ImageSets/Segmentation/{split}.txt'] = '\n'.join(names).encode()
    return files


def sbd_files():
    root = 'benchmark_RELEASE/dataset'
    files = {f'{root}/cls/{name}.mat': mat(7) for name in [TRAIN[0], *VAL, *SBD_ONLY]}
    files[f'{root}/train.txt'] = f'{TRAIN[0]}\n{SBD_ONLY[1]}\n'.encode()
    files[f'{root}/val.txt'] = f'{VAL[0]}\n{SBD_ONLY[0]}\n'.encode()
    return files


def archive(path, files):
    with tarfile.open(path, 'w:gz' if path.suffix == '.tgz' else 'w') as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def unpack(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def pixels(root, name):
    with Image.open(root / 'SegmentationClassAug' / f'{name}.png') as mask:
        return mask.mode, np.asarray(mask)


@pytest.fixture(params=['archives', 'folders'])
def sources(request, tmp_path):
    if request.param == 'archives':
        return archive(tmp_path / 'voc.tar', voc_files()), archive(tmp_path / 'benchmark.tgz', sbd_files())
    return unpack(tmp_path / 'voc', voc_files()), unpack(tmp_path / 'sbd', sbd_files())


def test_voc_s_own_masks_where_there_are_any_sbd_s_elsewhere(sources, tmp_path):
    root = tmp_path / 'VOC2012'
    text = prepare_voc(*sources, root, COUNTS, report=lambda line: None)
    assert 'train_aug: 4 images with masks; val: 1 images with masks' in text
    listed = (root / 'ImageSets/Segmentation/train_aug.txt').read_text().split()
    assert listed == sorted(TRAIN + SBD_ONLY)
    assert (root / 'ImageSets/Segmentation/aug.txt').read_text().split() == sorted(SBD_ONLY)
    for name in TRAIN + VAL:
        assert set(np.unique(pixels(root, name)[1])) == {1, 255}
    for name in SBD_ONLY:
        mode, mask = pixels(root, name)
        assert mode == 'P' and mask.shape == (6, 5) and (mask == 7).all()
    assert sorted(path.name for path in (root / 'SegmentationClassAug').iterdir()) == sorted(
        f'{name}.png' for name in TRAIN + VAL + SBD_ONLY)


def test_a_stopped_preparation_continues_and_leaves_finished_files_alone(sources, tmp_path):
    root = tmp_path / 'VOC2012'
    prepare_voc(*sources, root, COUNTS, report=lambda line: None)
    kept, lost = (root / 'SegmentationClassAug' / f'{name}.png' for name in SBD_ONLY)
    before = kept.stat().st_mtime_ns
    lost.unlink()
    prepare_voc(*sources, root, COUNTS, report=lambda line: None)
    assert kept.stat().st_mtime_ns == before and lost.exists()


def test_an_unpacked_voc_is_completed_in_place(tmp_path):
    folder = unpack(tmp_path, voc_files()) / 'VOCdevkit' / 'VOC2012'
    prepare_voc(folder, archive(tmp_path / 'benchmark.tgz', sbd_files()), folder, COUNTS, report=lambda line: None)
    assert (folder / 'SegmentationClassAug' / f'{SBD_ONLY[0]}.png').exists()


def test_colours_of_voc():
    colours = np.array(voc_palette()).reshape(256, 3)
    assert colours[[0, 1, 8, 15, 20, 255]].tolist() == [
        [0, 0, 0], [128, 0, 0], [64, 0, 0], [192, 128, 128], [0, 64, 128], [224, 224, 192]]


@pytest.mark.parametrize('spoil, message', [
    (lambda files: {}, r'is not SBD: it contains no train\.txt and val\.txt\. SBD: benchmark\.tgz .* from https'),
    (lambda files: {k: v for k, v in files.items() if not k.endswith('val.txt')}, r'are 3 images, but should be 4'),
])
def test_an_incomplete_sbd_is_named(tmp_path, spoil, message):
    voc, sbd = archive(tmp_path / 'voc.tar', voc_files()), archive(tmp_path / 'sbd.tgz', spoil(sbd_files()))
    with pytest.raises(ValueError, match=message):
        prepare_voc(voc, sbd, tmp_path / 'out', COUNTS, report=lambda line: None)


def test_wrong_archives_are_named(tmp_path):
    sbd = archive(tmp_path / 'sbd.tgz', sbd_files())
    with pytest.raises(ValueError, match=r'absent\.tar does not exist'):
        prepare_voc(tmp_path / 'absent.tar', sbd, tmp_path / 'out', COUNTS, report=lambda line: None)
    (tmp_path / 'page.tar').write_text('<html>not found</html>')
    with pytest.raises(ValueError, match=r'page\.tar is not a complete tar archive'):
        prepare_voc(tmp_path / 'page.tar', sbd, tmp_path / 'out', COUNTS, report=lambda line: None)
    with pytest.raises(ValueError, match=r'is not VOC 2012: it contains no .*\. VOC 2012: VOCtrainval'):
        prepare_voc(sbd, sbd, tmp_path / 'out', COUNTS, report=lambda line: None)
    with pytest.raises(ValueError, match=r'train\.txt lists 2 images, but VOC 2012 has 1464'):
        prepare_voc(archive(tmp_path / 'voc.tar', voc_files()), sbd, tmp_path / 'other', report=lambda line: None)


def test_names_inside_an_archive_cannot_lead_out_of_the_target(tmp_path):
    files = dict(voc_files(), **{'../../JPEGImages/evil.jpg': b'', '/tmp/SegmentationClass/evil.png': b''})
    root = tmp_path / 'a' / 'b' / 'VOC2012'
    prepare_voc(archive(tmp_path / 'voc.tar', files), archive(tmp_path / 'sbd.tgz', sbd_files()), root, COUNTS,
                report=lambda line: None)
    assert not list(tmp_path.glob('JPEGImages')) and (root / 'JPEGImages' / 'evil.jpg').exists()


def test_check_voc_says_all_that_is_wrong(sources, tmp_path):
    root = tmp_path / 'VOC2012'
    prepare_voc(*sources, root, COUNTS, report=lambda line: None)
    (root / 'JPEGImages' / f'{VAL[0]}.jpg').unlink()
    Image.fromarray(np.full((6, 5), 99, dtype=np.uint8)).save(root / 'SegmentationClassAug' / f'{SBD_ONLY[0]}.png')
    with pytest.raises(ValueError) as error:
        check_voc(root, dict(COUNTS, train_aug=5))
    for part in ('lists 4 images, but should list 5', '1 images of val are not in', '2007_000033', 'contains label 99',
                 'VOCtrainval_11-May-2012.tar', 'benchmark.tgz'):
        assert part in str(error.value)


def test_check_ade(tmp_path):
    with pytest.raises(ValueError, match=r'images/training is missing(.|\n)*ADEChallengeData2016\.zip'):
        check_ade(tmp_path)
    files = {}
    for split, number in dict(training=3, validation=2).items():
        for i in range(number):
            files[f'images/{split}/ADE_{i:08d}.jpg'] = encode('jpeg', np.zeros((4, 4, 3), dtype=np.uint8))
            files[f'annotations/{split}/ADE_{i:08d}.png'] = encode('png', np.full((4, 4), 150, dtype=np.uint8))
    unpack(tmp_path, files)
    assert 'training: 3 images with masks; validation: 2' in check_ade(tmp_path, dict(training=3, validation=2))
    (tmp_path / 'annotations/training/ADE_00000001.png').unlink()
    with pytest.raises(ValueError, match=r'1 masks are not in .*annotations/training, such as ADE_00000001'):
        check_ade(tmp_path, dict(training=3, validation=2))
    with pytest.raises(ValueError, match=r'contains 3 images, but should contain 20210'):
        check_ade(tmp_path)
