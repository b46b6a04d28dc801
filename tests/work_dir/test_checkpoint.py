"""Plain checkpoints: what cannot be loaded is named, and nothing in them runs."""
import os
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.runner import CheckpointLoader

from mmseg_hrhf.work_dir.checkpoint import (
    is_intact,
    load_checkpoint,
    load_weights,
    only_data,
    save_checkpoint,
    weights_fingerprint,
)

META = dict(dataset_meta=dict(classes=('background', 'cat', 'dog')), step=1)


def state():
    return {'conv.weight': torch.arange(6.).view(2, 3), 'bn.num_batches_tracked': torch.tensor(7)}


@pytest.fixture
def path(tmp_path):
    save_checkpoint(tmp_path / 'a.pth', state(), META)
    return tmp_path / 'a.pth'


def test_round_trip(path):
    checkpoint = load_checkpoint(path, num_classes=3)
    assert checkpoint['meta'] == META
    assert list(checkpoint['state_dict']) == list(state())
    for name, tensor in state().items():
        torch.testing.assert_close(checkpoint['state_dict'][name], tensor, rtol=0, atol=0)


def test_saved_weights_carry_no_graph(tmp_path):
    save_checkpoint(tmp_path / 'a.pth', {'w': torch.ones(2, requires_grad=True) * 2}, {})
    assert not load_checkpoint(tmp_path / 'a.pth')['state_dict']['w'].requires_grad


def test_missing_checkpoint_names_the_remedy(tmp_path):
    with pytest.raises(ValueError, match=r'a\.pth does not exist: train the step'):
        load_checkpoint(tmp_path / 'a.pth')


@pytest.mark.parametrize('share', [0, 0.1, 0.5, 0.9, 0.99])
def test_truncated_checkpoint_is_named(path, share):
    size = int(path.stat().st_size * share)
    os.truncate(path, size)
    with pytest.raises(ValueError, match=rf'a\.pth \({size} bytes\) is truncated'):
        load_checkpoint(path)


# torch warns of an odd protocol number before it meets the rest of the damage.
@pytest.mark.filterwarnings('ignore:Detected pickle protocol:UserWarning')
def test_damaged_byte_either_loads_or_is_named(path):
    # Not every byte of a zip file matters, but none may surface as an internal error of pickle or zip.
    content = path.read_bytes()
    for position in range(0, len(content), 5):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x55]) + content[position + 1:])
        try:
            load_checkpoint(path)
        except ValueError as error:
            assert 'a.pth' in str(error), f'byte {position}'


class Payload:
    """Pickles as a call that creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


@pytest.mark.parametrize('where', ['state_dict', 'meta'])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, where):
    content = dict(state_dict=state(), meta={})
    content[where]['x'] = Payload(tmp_path / 'ran')
    torch.save(content, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r'a\.pth holds more than tensors and plain data'):
        load_checkpoint(tmp_path / 'a.pth')
    assert not (tmp_path / 'ran').exists()


def test_wrong_class_count_gives_both_numbers(path):
    with pytest.raises(ValueError, match=r'a\.pth has 3 classes .* but 5 are needed'):
        load_checkpoint(path, num_classes=5)


def test_checkpoint_that_does_not_say_its_classes_is_taken(tmp_path):
    torch.save(dict(state_dict=state()), tmp_path / 'a.pth')
    assert set(load_checkpoint(tmp_path / 'a.pth', num_classes=5)['state_dict']) == set(state())


@pytest.mark.parametrize('content', [dict(weights=1), [1, 2], torch.zeros(2), 'text'], ids=lambda c: type(c).__name__)
def test_file_without_state_dict_is_named(tmp_path, content):
    torch.save(content, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r"a\.pth has no 'state_dict'"):
        load_checkpoint(tmp_path / 'a.pth')


# -- fingerprint -----------------------------------------------------------------------------------------------------


def test_equal_weights_have_one_fingerprint_whatever_their_order():
    reversed_state = dict(reversed(list(state().items())))
    assert weights_fingerprint(state()) == weights_fingerprint(reversed_state)


def test_fingerprint_survives_saving(path):
    assert weights_fingerprint(load_checkpoint(path)['state_dict']) == weights_fingerprint(state())


def test_layout_in_memory_does_not_matter():
    tensor = torch.arange(6.).view(2, 3)
    assert weights_fingerprint({'w': tensor.t().contiguous().t()}) == weights_fingerprint({'w': tensor})


def changed_value(s):
    s['conv.weight'][1, 2] = torch.nextafter(s['conv.weight'][1, 2], torch.tensor(9.))
    return s


@pytest.mark.parametrize('change', [
    changed_value,
    lambda s: {**s, 'conv.weight': s['conv.weight'].view(3, 2)},
    lambda s: {**s, 'conv.weight': s['conv.weight'].int()},
    lambda s: {name.replace('conv', 'cone'): value for name, value in s.items()},
    lambda s: {**s, 'bn.num_batches_tracked': torch.tensor(8)},
    lambda s: {**s, 'more': torch.zeros(0)},
    lambda s: {'conv.weight': s['conv.weight']},
], ids=['value', 'shape', 'dtype', 'name', 'scalar', 'added', 'removed'])
def test_any_change_changes_the_fingerprint(change):
    assert weights_fingerprint(change(state())) != weights_fingerprint(state())


def test_fingerprint_of_a_value_moved_between_tensors_differs():
    ones, zeros = torch.ones(2), torch.zeros(2)
    assert weights_fingerprint({'a': ones, 'b': zeros}) != weights_fingerprint({'a': zeros, 'b': ones})


def test_fingerprint_of_half_precision_and_bool():
    state_dict = {'h': torch.ones(3, dtype=torch.bfloat16), 'm': torch.tensor([True, False])}
    other = {'h': torch.ones(3, dtype=torch.bfloat16), 'm': torch.tensor([True, True])}
    assert weights_fingerprint(state_dict) != weights_fingerprint(other)


# -- mmengine's own loading ------------------------------------------------------------------------------------------


@pytest.mark.parametrize('protocol', ['zip', 'legacy'])
def test_mmengine_loads_no_code_inside(tmp_path, protocol):
    content = dict(state_dict={'x': Payload(tmp_path / 'ran')})
    torch.save(content, tmp_path / 'a.pth', _use_new_zipfile_serialization=protocol == 'zip')
    with pytest.raises(ValueError, match='holds more than tensors and plain data'), only_data():
        CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'), map_location='cpu')
    assert not (tmp_path / 'ran').exists()


def test_not_even_where_code_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    torch.save(Payload(tmp_path / 'ran'), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='holds more than'), only_data():
        CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'), map_location='cpu')
    assert not (tmp_path / 'ran').exists()


def test_what_mmengine_saves_is_data(tmp_path):
    hub = MessageHub('data')
    hub.update_scalar('train/loss', 1.5)
    hub.update_info('some', np.float64(2))
    torch.save(dict(state_dict=state(), message_hub=hub.state_dict(), meta=dict(a=np.arange(2))), tmp_path / 'a.pth')
    with only_data():
        loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'), map_location='cpu')
    assert loaded['message_hub']['log_scalars']['train/loss'].current() == 1.5
    load_weights('load_from', tmp_path / 'a.pth')


def rename_in_pickle(path, old, new):
    """Replace text within the pickle of a file of torch.save, as another version of a library would have written it."""
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    pickled, = (name for name in held if name.endswith('/data.pkl'))
    assert old in held[pickled]
    held[pickled] = held[pickled].replace(old, new)
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in held.items():
            archive.writestr(name, content)


# The module's name under this NumPy, and under either.
HERE = np.float64(0).__reduce__()[0].__module__.encode()
CORES = [b'numpy.core.multiarray', b'numpy._core.multiarray']


@pytest.mark.parametrize('core', CORES)
def test_what_mmengine_saved_under_any_numpy_is_data(tmp_path, core):
    hub = MessageHub('old')
    hub.update_scalar('train/loss', 1.5)
    hub.update_scalar('train/count', np.int64(3), count=2)
    arrays = {kind: np.ones((2, 2), kind) for kind in ('f2', 'f4', 'f8', 'i4', 'i8', 'u1', '?')}
    content = dict(state_dict=state(), message_hub=hub.state_dict(), meta=dict(arrays=arrays, best=np.float32(0.5)))
    torch.save(content, tmp_path / 'a.pth')
    rename_in_pickle(tmp_path / 'a.pth', b'c' + HERE + b'\n', b'c' + core + b'\n')
    with only_data():
        by_mmengine = CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'), map_location='cpu')
    for loaded in (by_mmengine, load_weights('load_from', tmp_path / 'a.pth')):
        assert loaded['message_hub']['log_scalars']['train/loss'].current() == 1.5
        assert loaded['meta']['best'] == np.float32(0.5)
        for kind, array in arrays.items():
            np.testing.assert_array_equal(loaded['meta']['arrays'][kind], array)


@pytest.mark.parametrize('core', CORES)
@pytest.mark.parametrize('name', [b'fromfile', b'frombuffer', b'set_typeDict', b'add_docstring'])
def test_nothing_else_of_numpy_can_be_called(tmp_path, core, name):
    torch.save(dict(state_dict=state(), meta=dict(best=np.float64(2))), tmp_path / 'a.pth')
    rename_in_pickle(tmp_path / 'a.pth', b'c' + HERE + b'\nscalar\n', b'c' + core + b'\n' + name + b'\n')
    with pytest.raises(ValueError, match=rf'holds more than tensors .*{name.decode()}'):
        load_weights('load_from', tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='holds more than tensors'), only_data():
        CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'), map_location='cpu')


def test_arrays_of_objects_are_no_data(tmp_path):
    torch.save(dict(state_dict=state(), meta=dict(a=np.array([None, 'b'], dtype=object))), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='holds more than tensors'):
        load_weights('load_from', tmp_path / 'a.pth')


def test_a_flipped_bit_is_noticed(path):
    content = bytearray(path.read_bytes())
    values = content.find(torch.arange(6.).numpy().tobytes())
    content[values + 5] ^= 1
    path.write_bytes(content)
    assert not is_intact(path)
    with pytest.raises(ValueError, match='truncated or not a checkpoint'):
        load_checkpoint(path)
