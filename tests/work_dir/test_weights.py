"""Weights that a user names by mmengine's schemes, or that other toolboxes wrote: data is read, code is not run."""
import pickle
import shutil

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint

from mmseg_hrhf.work_dir import weights
from mmseg_hrhf.work_dir.checkpoint import load_weights, only_data
from mmseg_hrhf.work_dir.weights import load_from_data_only, log_statistic, read_data

from .test_checkpoint import Payload, rename_in_pickle

URL = 'https://example.invalid/models/net.pth'
STATE = {'backbone.conv.weight': torch.arange(3.), 'head.weight': torch.ones(2)}
# Names by which one published file is found.
SCHEMES = ['https://example.invalid/models/net.pth', 'torchvision://net', 'modelzoo://net', 'open-mmlab://net',
           'openmmlab://old_net', 'mmcls://net']


def hub_state():
    hub = MessageHub('weights')
    hub.update_scalar('train/loss', 1.5)
    return hub.state_dict()


@pytest.fixture
def online(tmp_path, monkeypatch):
    """A place on the net whose files lie in a folder; the names asked of it."""
    asked = []

    def download(url, path, **kwargs):
        asked.append(url)
        shutil.copy(tmp_path / 'online' / url.rpartition('/')[2], path)

    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path / 'mmengine'))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    for name in ('get_torchvision_models', 'get_mmcls_models'):
        monkeypatch.setattr(weights, name, lambda: {'net': URL})
    monkeypatch.setattr(weights, 'get_external_models', lambda: {'net': URL, 'mine': 'own/net.pth'})
    monkeypatch.setattr(weights, 'get_deprecated_model_names', lambda: {'old_net': 'net'})
    (tmp_path / 'online').mkdir()
    return asked


@pytest.mark.parametrize('name', SCHEMES)
def test_every_scheme_gives_data(tmp_path, online, name):
    torch.save(dict(state_dict=STATE), tmp_path / 'online/net.pth')
    for _ in range(2):
        with only_data():
            loaded = CheckpointLoader.load_checkpoint(name, map_location='cpu')['state_dict']
    expected = {'conv.weight': torch.arange(3.)} if name.startswith('mmcls') else STATE
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[key], value) for key, value in expected.items())
    assert online == [URL]  # the second time it is there


@pytest.mark.parametrize('name', SCHEMES)
def test_no_scheme_runs_code(tmp_path, online, name):
    torch.save(dict(state_dict=STATE, x=Payload(tmp_path / 'ran')), tmp_path / 'online/net.pth')
    with pytest.raises(ValueError, match=f'(?s){name}.*holds more than tensors.*contains io.open'), only_data():
        CheckpointLoader.load_checkpoint(name, map_location='cpu')
    assert not (tmp_path / 'ran').exists()


def test_a_model_in_mmengines_own_folder(tmp_path, online):
    (tmp_path / 'mmengine/own').mkdir(parents=True)
    torch.save(dict(state_dict=STATE), tmp_path / 'mmengine/own/net.pth')
    assert load_from_data_only('open-mmlab://mine')['state_dict'].keys() == STATE.keys()
    assert not online


def test_what_is_fetched_as_mmengine_would_fetch_it(tmp_path, online):
    """Files that are in torch's folder already are not fetched again, by either."""
    torch.save(dict(state_dict=STATE), tmp_path / 'online/net.pth')
    load_from_data_only(URL)
    assert mmengine_checkpoint.load_from_http(URL)['state_dict'].keys() == STATE.keys()
    assert online == [URL]


def test_an_object_store_is_read_as_data(tmp_path, monkeypatch):
    torch.save(dict(x=Payload(tmp_path / 'ran')), tmp_path / 'net.pth')

    class Local:
        def __init__(self, name, backend_args):
            assert (name, backend_args) == ('s3://bucket/net.pth', dict(backend='petrel'))

        def __enter__(self):
            return str(tmp_path / 'net.pth')

        def __exit__(self, *args):
            pass

    monkeypatch.setattr(weights, 'get_local_path', Local)
    with pytest.raises(ValueError, match=r's3://bucket/net.pth.* holds more than'), only_data():
        CheckpointLoader.load_checkpoint('s3://bucket/net.pth')
    assert not (tmp_path / 'ran').exists()


def test_a_scheme_that_cannot_be_checked_is_refused():
    with pytest.raises(ValueError, match=r'pavi:// is not supported. Download the file'), only_data():
        CheckpointLoader.load_checkpoint('pavi://net')


def test_a_missing_file_is_as_in_mmengine(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'net\.pth can not be found'), only_data():
        CheckpointLoader.load_checkpoint(str(tmp_path / 'net.pth'))


def test_afterwards_mmengine_loads_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    torch.save(dict(state_dict=STATE), tmp_path / 'a.pth')
    with pytest.raises(KeyError), only_data():
        raise KeyError
    used = []
    CheckpointLoader.register_scheme('mine://', lambda name, map_location: used.append(name))
    with only_data():
        CheckpointLoader.load_checkpoint('mine://net')
    CheckpointLoader.load_checkpoint('mine://net')
    assert used == ['mine://net'] * 2
    before = mmengine_checkpoint.load_from_local(str(tmp_path / 'a.pth'), 'cpu')
    assert CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))['state_dict'].keys() == before['state_dict'].keys()


# -- mmengine's log --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('zipped', [True, False])
def test_a_log_is_read_from_files_of_either_format(tmp_path, zipped):
    content = dict(state_dict=STATE, message_hub=hub_state(), best=np.float64(0.25))
    torch.save(content, tmp_path / 'a.pth', _use_new_zipfile_serialization=zipped)
    loaded = read_data(tmp_path / 'a.pth')
    assert loaded['message_hub']['log_scalars']['train/loss'].statistics('mean') == 1.5 and loaded['best'] == 0.25
    assert all(torch.equal(loaded['state_dict'][key], value) for key, value in STATE.items())


def test_text_that_looks_like_a_name_stays_as_it_is(tmp_path):
    content = dict(message_hub=hub_state(), text='cbuiltins\ngetattr\n', other='c__builtin__\ngetattr\n')
    torch.save(content, tmp_path / 'a.pth')
    loaded = read_data(tmp_path / 'a.pth')
    assert (loaded['text'], loaded['other']) == (content['text'], content['other'])


def test_nothing_but_its_methods_is_fetched_from_a_log(tmp_path):
    torch.save(dict(message_hub=hub_state()), tmp_path / 'a.pth')
    rename_in_pickle(tmp_path / 'a.pth', b'\x03\x00\x00\x00min', b'\x08\x00\x00\x00__init__')
    with pytest.raises(pickle.UnpicklingError, match=r'getattr.*__init__'):
        read_data(tmp_path / 'a.pth')


@pytest.mark.parametrize('owner, name', [(HistoryBuffer, '__class__'), (HistoryBuffer, 'update'), (object, 'min'),
                                         (torch, 'load')])
def test_a_stand_in_gives_no_other_attribute(owner, name):
    with pytest.raises(pickle.UnpicklingError):
        log_statistic(owner, name)


@pytest.mark.parametrize('content', [b'', b'no weights', b'x' * 99, pickle.dumps([1]), pickle.dumps(Payload('never'))])
def test_a_file_of_another_kind_is_named(tmp_path, content):
    (tmp_path / 'a.pth').write_bytes(content)
    with pytest.raises(ValueError, match=r"load_from='.*a\.pth' (is truncated|holds more)"):
        load_weights('load_from', tmp_path / 'a.pth')
    with pytest.raises(ValueError if content else EOFError, match=r'a\.pth' if content else None), only_data():
        CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))


def test_torch_keeps_nothing_of_it(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    torch.save(dict(message_hub=hub_state()), tmp_path / 'a.pth')
    read_data(tmp_path / 'a.pth')
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'a.pth', weights_only=True)
