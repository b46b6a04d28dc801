import pytest
import torch
from mmseg.registry import MODELS, TASK_UTILS

from mmseg_hrhf.files import sha256
from mmseg_hrhf.inversion import SegInversion
from mmseg_hrhf.replay import FakeImageBuffer
from mmseg_hrhf.replay.seg_inversion_hook import fill_buffer

INVERSION = dict(type='SegInversion', size=16, stages=[(1.0, 3)], batch_size=2)


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    norm = dict(type='BN', requires_grad=True)
    return MODELS.build(dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[127.5] * 3, std=[64.] * 3, bgr_to_rgb=True),
        backbone=dict(type='ResNet', depth=18, base_channels=4, stem_channels=4, num_stages=1, out_indices=(0, ),
                      strides=(1, ), dilations=(1, ), norm_cfg=norm),
        decode_head=dict(type='FCNHead', in_channels=4, in_index=0, channels=4, num_convs=1, num_classes=4,
                         norm_cfg=norm))).eval().requires_grad_(False)


def hashes(buffer):
    return [sha256(buffer.image_path(i)) for i in range(buffer.num_images)]


def test_a_stopped_fill_continues_at_the_first_missing_image_with_the_same_result(teacher, tmp_path, monkeypatch):
    whole, stopped = FakeImageBuffer(tmp_path / 'whole', 5), FakeImageBuffer(tmp_path / 'stopped', 5)
    fill_buffer(whole, teacher, INVERSION, seed=3)
    original, calls = SegInversion.__call__, []

    def stop_at_the_second(self, model, request, *args):
        calls.append(request)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, model, request, *args)

    monkeypatch.setattr(SegInversion, '__call__', stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        fill_buffer(stopped, teacher, INVERSION, seed=3)
    assert not stopped.is_full() and stopped.has_batch(0) and not stopped.has_batch(2)
    fill_buffer(stopped, teacher, INVERSION, seed=3)
    assert len(calls) == 4  # one before the stop, the stopped one, and the two that were missing
    assert hashes(stopped) == hashes(whole) and stopped.records() == whole.records()


def test_a_full_buffer_costs_no_inversion(teacher, tmp_path, monkeypatch):
    buffer = FakeImageBuffer(tmp_path, 3)
    fill_buffer(buffer, teacher, INVERSION, seed=0)
    monkeypatch.setattr(SegInversion, '__call__', lambda *args: pytest.fail('synthesised again'))
    fill_buffer(buffer, teacher, INVERSION, seed=0)


def test_two_ranks_share_the_work_and_make_what_one_makes(teacher, tmp_path, monkeypatch):
    alone, shared_by_two = FakeImageBuffer(tmp_path / 'one', 6), FakeImageBuffer(tmp_path / 'two', 6)
    fill_buffer(alone, teacher, INVERSION, seed=0)
    # The ranks run after each other here: rank 1 must find rank 0's buffer, and rank 0 closes in the end.
    monkeypatch.setattr(FakeImageBuffer, 'close', lambda self: None)
    for rank in (0, 1):
        monkeypatch.setattr('mmseg_hrhf.replay.seg_inversion_hook.get_dist_info', lambda rank=rank: (rank, 2))
        monkeypatch.setattr(FakeImageBuffer, 'has_batch', lambda self, start: False)
        fill_buffer(shared_by_two, teacher, INVERSION, seed=0)
    assert hashes(shared_by_two) == hashes(alone)


@pytest.mark.parametrize('change, key', [
    (lambda teacher: teacher.decode_head.conv_seg.weight.add_(1), 'teacher'),
    (lambda teacher: INVERSION.update(lr=0.01), 'inversion'),
])
def test_another_teacher_or_other_options_make_the_buffer_stale(teacher, tmp_path, change, key, monkeypatch):
    monkeypatch.setitem(INVERSION, 'lr', 0.1)
    buffer = FakeImageBuffer(tmp_path, 2)
    fill_buffer(buffer, teacher, INVERSION, seed=0)
    change(teacher)
    with pytest.raises(ValueError, match=rf'stale.*{key}: .* there, .* now.*Delete that folder'):
        fill_buffer(buffer, teacher, INVERSION, seed=0)


def test_records_say_what_each_image_shows(teacher, tmp_path):
    buffer = FakeImageBuffer(tmp_path, 4)
    fill_buffer(buffer, teacher, INVERSION, seed=0)
    generator = TASK_UTILS.build(INVERSION)
    for record in buffer.records():
        assert set(record['classes']) <= {1, 2, 3} and len(record['r']) == len(record['classes'])
        assert set(record['r']) <= set(generator.aggregation.r)
        assert len(record['teacher_share']) == len(record['classes'])
        assert {'classification', 'feature', 'tv', 'iterations'} <= set(record['losses'])


def recorded_for(layer, channels):
    return {layer: dict(mean=torch.zeros(channels), var=torch.ones(channels))}


def test_recorded_statistics_are_compared_with_and_part_of_the_fingerprint(teacher, tmp_path):
    recorded = recorded_for('decode_head.conv_seg', 4)
    without, given = FakeImageBuffer(tmp_path / 'without', 2), FakeImageBuffer(tmp_path / 'given', 2)
    fill_buffer(without, teacher, INVERSION, seed=0)
    fill_buffer(given, teacher, INVERSION, seed=0, recorded=recorded)
    assert hashes(given) != hashes(without)
    fill_buffer(given, teacher, INVERSION, seed=0, recorded=recorded)
    recorded['decode_head.conv_seg']['mean'] += 1
    with pytest.raises(ValueError, match=r'stale.*statistics: .* there, .* now'):
        fill_buffer(given, teacher, INVERSION, seed=0, recorded=recorded)


def test_an_inversion_without_any_statistics_says_so(teacher, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('mmseg_hrhf.replay.seg_inversion_hook.print_log', lambda text, **options: said.append(text))
    for module in teacher.modules():
        if hasattr(module, 'track_running_stats'):
            module.running_mean = module.running_var = None
    buffer = FakeImageBuffer(tmp_path, 2)
    fill_buffer(buffer, teacher, INVERSION, seed=0)
    assert 'with the image prior alone' in said[0]
    assert all('feature' not in record['losses'] for record in buffer.records())


def test_what_synthesises_may_be_named_by_its_class(teacher, tmp_path, monkeypatch):
    fill_buffer(FakeImageBuffer(tmp_path, 2), teacher, dict(INVERSION, type=SegInversion), seed=0)
    monkeypatch.setattr(SegInversion, '__call__', lambda *args: pytest.fail('synthesised again'))
    fill_buffer(FakeImageBuffer(tmp_path, 2), teacher, INVERSION, seed=0)
