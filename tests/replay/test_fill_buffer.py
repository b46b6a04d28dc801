import logging
import re
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from mmseg.registry import HOOKS, MODELS, TASK_UTILS
from torch import nn

from mmseg_hrhf.engine.hooks import seg_inversion as module
from mmseg_hrhf.engine.hooks.seg_inversion import SegInversionHook, fill_buffer
from mmseg_hrhf.replay.buffer import FakeImageBuffer
from mmseg_hrhf.replay.inversion.base import FakeBatch, Inversion, build_inversion
from mmseg_hrhf.replay.inversion.pixels import PixelMap
from mmseg_hrhf.replay.inversion.seg_inversion import SegInversion
from mmseg_hrhf.utils.io import sha256

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
    monkeypatch.setattr(FakeImageBuffer, 'close', lambda self: [])
    for rank in (0, 1):
        monkeypatch.setattr('mmseg_hrhf.engine.hooks.seg_inversion.get_dist_info', lambda rank=rank: (rank, 2))
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


@pytest.mark.parametrize('inversion, is_said', [
    (dict(INVERSION, feature_weight=5.0), True), (dict(INVERSION, feature_weight=0.5), True),
    (dict(INVERSION, feature_weight=0.0), False), (dict(type='GaussianNoise', size=16, batch_size=2), False)],
                         ids=['weight 5', 'weight 0.5', 'weight 0', 'noise'])
def test_an_inversion_without_any_statistics_says_so(teacher, tmp_path, monkeypatch, inversion, is_said):
    said = []
    monkeypatch.setattr('mmseg_hrhf.engine.hooks.seg_inversion.print_log', lambda text, **options: said.append(text))
    for layer in teacher.modules():
        if hasattr(layer, 'track_running_stats'):
            layer.running_mean = layer.running_var = None
    buffer = FakeImageBuffer(tmp_path, 2)
    fill_buffer(buffer, teacher, inversion, seed=0)
    assert ('only the image prior' in said[0]) is is_said
    assert all('feature' not in record['losses'] for record in buffer.records())


def test_what_synthesises_may_be_named_by_its_class(teacher, tmp_path, monkeypatch):
    fill_buffer(FakeImageBuffer(tmp_path, 2), teacher, dict(INVERSION, type=SegInversion), seed=0)
    monkeypatch.setattr(SegInversion, '__call__', lambda *args: pytest.fail('synthesised again'))
    fill_buffer(FakeImageBuffer(tmp_path, 2), teacher, INVERSION, seed=0)


class Bar:
    """A progress bar that keeps its position at the start of each batch."""

    def __init__(self, total, desc, unit, disable, mininterval):
        self.total, self.disable, self.n, self.starts = total, disable, 0, []

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        pass

    def update(self, n=1):
        self.n += n

    def set_description(self, text):
        self.starts.append((text, self.n))

    def set_postfix(self, values, refresh):
        assert 'classification' in values and not refresh


@pytest.fixture
def progress(monkeypatch):
    """``progress(rank, world_size)``: bars and texts from now on; each look at the clock is 10 s after the last."""

    def watch(rank=0, world_size=1):
        bars, texts, clock = [], [], count(100, 10)
        monkeypatch.setattr(module, 'get_dist_info', lambda: (rank, world_size))
        monkeypatch.setattr(module, 'tqdm', lambda **options: bars.append(Bar(**options)) or bars[-1])
        monkeypatch.setattr(module, 'print_log', lambda text, **options: texts.append(text))
        monkeypatch.setattr(module, 'time', SimpleNamespace(time=lambda: next(clock)))
        return bars, texts

    return watch


@pytest.mark.parametrize('options', [{}, dict(loss_threshold=1e3)], ids=['to the end', 'stopped early'])
def test_progress_is_told_batch_by_batch(teacher, tmp_path, progress, options):
    bars, texts = progress()
    fill_buffer(FakeImageBuffer(tmp_path, 5), teacher, dict(INVERSION, **options), seed=0)
    bar, = bars
    assert (bar.total, bar.n, bar.disable) == (9, 9, False)
    assert bar.starts == [('SegInversion 1/3', 0), ('SegInversion 2/3', 3), ('SegInversion 3/3', 6)]
    assert texts[0] == f'SegInversion: 3 of 3 batches of synthetic images to generate into {tmp_path}'
    for i, (text, left) in enumerate(zip(texts[1:], (20, 10, 0))):
        assert re.fullmatch(rf'SegInversion: batch {i + 1}/3, classification \S+, .*; '
                            rf'the teacher finds \d of \d classes, ETA {left} s', text)
    fill_buffer(FakeImageBuffer(tmp_path, 5), teacher, dict(INVERSION, **options), seed=0)
    assert len(texts) == 4


def test_the_first_of_several_processes_alone_tells(teacher, tmp_path, progress, monkeypatch):
    monkeypatch.setattr(FakeImageBuffer, 'close', lambda self: [])
    for rank in (0, 1):
        bars, texts = progress(rank, world_size=2)
        fill_buffer(FakeImageBuffer(tmp_path, 6), teacher, INVERSION, seed=0)
        assert bars[0].disable is (rank == 1)
        assert texts[:1] == [f'SegInversion: 2 of 2 batches of synthetic images to generate by each of 2 processes '
                             f'into {tmp_path}'][rank:]


def test_classes_that_the_teacher_finds_are_counted(teacher, tmp_path, progress, monkeypatch):
    monkeypatch.setattr(module, 'recognised', lambda model, images: torch.tensor([[.5, .25, 0., .123456]] * 2))
    _, texts = progress()
    buffer = FakeImageBuffer(tmp_path, 6)
    fill_buffer(buffer, teacher, dict(INVERSION, classes_per_image=(1, )), seed=0)
    found = [record['teacher_share'] for record in buffer.records()]
    # Six images of three classes; every class twice.
    assert sorted(found) == [[0.], [0.], [.12346], [.12346], [.25], [.25]]
    assert sum(int(re.search(r'finds (\d) of 2', text)[1]) for text in texts[1:]) == 4


def record(*shares, **losses):
    return dict(teacher_share=list(shares), losses=losses or dict(classification=1.0))


@pytest.mark.parametrize('records, counts', [
    ([record(0.2)], None),
    ([record(0.001), *[record(0.0)] * 9], None),
    ([record(0.001), *[record(0.0)] * 10], '1 of 11'),
    ([record(0.0009), *[record(0.0, 0.0)] * 2], '0 of 5'),
    ([record(0.0, tv=1.0)] * 20, None),  # noise: nothing was to be found
    ([], None)])
def test_images_that_hardly_show_what_was_asked_for_are_warned_of(monkeypatch, records, counts):
    said = []
    monkeypatch.setattr(module, 'print_log', lambda text, **options: said.append((text, options['level'])))
    module._warn_if_unrecognised(records)
    assert [text[:text.index(' cases.')] for text, _ in said] == (
        [] if counts is None else [f'SegInversion: the teacher finds the requested class in {counts}'])
    assert all(level == logging.WARNING for _, level in said)


def test_a_pixel_map_is_the_teacher_s_and_part_of_the_fingerprint(teacher, tmp_path):
    pixel_map = PixelMap((2, 1, 0), (1 / 64, ) * 3, (-2.0, ) * 3)
    buffer = FakeImageBuffer(tmp_path, 2)
    fill_buffer(buffer, teacher, INVERSION, seed=0, pixel_map=pixel_map)
    assert teacher.pixel_map == buffer.pixel_map == pixel_map
    with pytest.raises(ValueError, match=r'stale.*pixel_map: .* there, null now'):
        fill_buffer(buffer, teacher, INVERSION, seed=0)
    assert teacher.pixel_map is None
    fields = dict(channels=[2, 1, 0], scale=[1 / 64] * 3, offset=[-2.0] * 3)
    hook = dict(type='SegInversionHook', folder=tmp_path, num_images=2, inversion=INVERSION, seed=0)
    assert HOOKS.build(dict(hook, pixel_map=fields)).pixel_map == pixel_map
    assert HOOKS.build(hook).pixel_map is None


class Training(nn.Module):
    """What the hook looks at of a model in training."""

    def __init__(self, teacher):
        super().__init__()
        self.hidden, self.teacher_statistics = [teacher], None

    @property
    def teacher(self):
        return self.hidden[0]


@pytest.mark.parametrize('wrap', [lambda model: model, nn.DataParallel], ids=['bare', 'wrapped'])
@pytest.mark.parametrize('on_gpu', [False, True], ids=['CPU', 'GPU'])
def test_the_hook_fills_its_buffer_shows_it_and_frees_the_memory_of_a_gpu(teacher, tmp_path, monkeypatch, wrap, on_gpu):
    shown, freed = [], []
    cuda = SimpleNamespace(is_available=lambda: on_gpu, empty_cache=lambda: freed.append(True))
    monkeypatch.setattr(module, 'torch', SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(module, 'show_buffer', lambda *args: shown.append(args))
    hook = SegInversionHook(tmp_path, 2, INVERSION, seed=0)
    dataset = SimpleNamespace(metainfo=dict(palette='palette'))
    runner = SimpleNamespace(model=wrap(Training(teacher)), visualizer='visualizer',
                             train_dataloader=SimpleNamespace(dataset=dataset))
    hook.before_train(runner)
    assert hook.buffer.is_full() and shown == [(hook.buffer, teacher, 'palette', 'visualizer')]
    assert len(freed) == on_gpu


def test_the_hook_needs_a_teacher(tmp_path):
    with pytest.raises(ValueError, match='needs a model with a teacher: leave it out of the first step'):
        SegInversionHook(tmp_path, 2, INVERSION, seed=0).before_train(SimpleNamespace(model=Training(None)))


@pytest.fixture
def patches():
    """An inversion of a user: a grey square for each class, as bright as the class's number."""
    @TASK_UTILS.register_module()
    class GreySquares(Inversion):

        def __init__(self, size: int, brightness: int = 40, batch_size: int = 2) -> None:
            super().__init__(size, batch_size, classes_per_image=(1, 2))
            self.brightness = brightness

        def __call__(self, model, request, on_iteration=None, recorded=None):
            images = torch.zeros(len(request), *self.size, 3, dtype=torch.uint8)
            for image, classes in zip(images, request.classes):
                for c in classes:
                    image[4 * c - 4:4 * c] = self.brightness * c
            on_iteration(dict(squares=float(len(request))))
            return FakeBatch(images, [[] for _ in request.classes], dict(squares=1.0))

    yield GreySquares
    TASK_UTILS.module_dict.pop('GreySquares')


def test_an_inversion_of_a_user_fills_a_buffer(teacher, tmp_path, patches):
    buffer = FakeImageBuffer(tmp_path, 5)
    fill_buffer(buffer, teacher, dict(type='GreySquares', size=16, brightness=50), seed=0)
    records = buffer.records()
    assert buffer.is_full() and {c for record in records for c in record['classes']} == {1, 2, 3}
    for i, record in enumerate(records):
        rows = buffer.load(i)[:, 0, 0].reshape(4, 4)[:3, 0]
        assert rows.tolist() == [50 * c if c in record['classes'] else 0 for c in (1, 2, 3)]
    assert records[0]['losses'] == dict(squares=1.0) and buffer.curves()[0]['squares'] == [2.0]


def test_an_inversion_of_a_user_is_checked_as_ours_are(patches):
    with pytest.raises(ValueError, match=r"replay\.inversion has no option 'brightnes': did you mean 'brightness'"):
        build_inversion(dict(type='GreySquares', size=16, brightnes=3))
    with pytest.raises(ValueError, match=r"inversion\.type='GreySquare' is not one of .*did you mean 'GreySquares'"):
        build_inversion(dict(type='GreySquare', size=16))
    with pytest.raises(ValueError, match=r'inversion\.batch_size=0 must be positive'):
        build_inversion(dict(type='GreySquares', size=16, batch_size=0))
