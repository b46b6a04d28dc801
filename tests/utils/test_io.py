"""Files are whole or absent."""
import hashlib
import os
import stat

import pytest

from mmseg_hrhf.utils.io import atomic_write, read_json, sha256, write_json, write_text


def test_file_appears_only_when_the_block_ends(tmp_path):
    path = tmp_path / 'new' / 'a.bin'
    with atomic_write(path) as file:
        file.write(b'abc')
        assert not path.exists()
    assert path.read_bytes() == b'abc'


def test_error_in_the_block_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), atomic_write(tmp_path / 'a.bin') as file:
        file.write(b'abc')
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_error_in_the_block_keeps_the_old_file(tmp_path):
    path = tmp_path / 'a.bin'
    path.write_bytes(b'old')
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write(b'new')
        raise KeyboardInterrupt
    assert path.read_bytes() == b'old' and list(tmp_path.iterdir()) == [path]


def test_whole_file_replaces_the_old_one_without_leftovers(tmp_path):
    path = tmp_path / 'a.bin'
    path.write_bytes(b'a longer old file')
    with atomic_write(path) as file:
        file.write(b'new')
    assert path.read_bytes() == b'new' and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != 'posix', reason='file modes are those of POSIX')
def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / 'plain').write_text('')
    write_text(tmp_path / 'a.txt', '')
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ('plain', 'a.txt')]
    assert modes[0] == modes[1]


def test_text_is_utf8_whatever_the_locale(tmp_path):
    write_text(tmp_path / 'a.txt', 'größe\n')
    assert (tmp_path / 'a.txt').read_bytes() == 'größe\n'.encode()


def test_json_round_trip_has_sorted_keys(tmp_path):
    data = dict(b=[1, None, 'x'], a=dict(c=0.5))
    write_json(tmp_path / 'a.json', data)
    text = (tmp_path / 'a.json').read_text()
    assert read_json(tmp_path / 'a.json') == data
    assert text.index('"a"') < text.index('"b"')


@pytest.mark.parametrize('content', [b'', b'{"a": 1', b'\xff\xfe'])
def test_damaged_json_names_the_file_and_the_remedy(tmp_path, content):
    (tmp_path / 'a.json').write_bytes(content)
    with pytest.raises(ValueError, match=r'a\.json is damaged .*delete it'):
        read_json(tmp_path / 'a.json')


def test_data_that_json_cannot_hold_leaves_the_old_file(tmp_path):
    write_json(tmp_path / 'a.json', 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / 'a.json', {'a': object()})
    assert read_json(tmp_path / 'a.json') == 1


def test_sha256_of_a_file_larger_than_one_block(tmp_path):
    content = b'0123456789abcdef' * 70_000
    (tmp_path / 'a').write_bytes(content)
    assert sha256(tmp_path / 'a') == hashlib.sha256(content).hexdigest()
