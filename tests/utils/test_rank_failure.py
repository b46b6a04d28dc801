"""What a failed process hands over to tools/_launch.py, and when it prints its error itself instead."""
import json
import os
import signal
import sys

import pytest

from mmseg_hrhf.utils import errors as rank_failure
from mmseg_hrhf.utils.errors import report_and_exit, tell_launcher


def fault():
    try:
        raise RuntimeError('the sky fell\non us')
    except RuntimeError as error:
        return error


@pytest.fixture
def folder(monkeypatch, tmp_path):
    for name in ('RANK', 'SLURM_PROCID', 'TORCHELASTIC_RESTART_COUNT', 'TORCHELASTIC_MAX_RESTARTS', 'GROUP_WORLD_SIZE'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('HRHF_LAUNCHER', str(tmp_path))
    return tmp_path


@pytest.fixture
def signals(monkeypatch):
    sent = []
    monkeypatch.setattr(rank_failure.os, 'kill', lambda *args: sent.append(args))
    return sent


def test_no_launcher_listens(monkeypatch):
    monkeypatch.delenv('HRHF_LAUNCHER', raising=False)
    assert not tell_launcher(fault(), None)


def test_a_file_for_torchrun(folder, monkeypatch, capsys):
    monkeypatch.setenv('RANK', '3')
    with pytest.raises(SystemExit) as info:
        report_and_exit(fault())
    assert info.value.code == 1
    assert capsys.readouterr().err == ''
    record = json.loads((folder / '3.json').read_text())
    assert record['rank'] == 3 and record['line'] is None
    assert record['error'] == 'RuntimeError: the sky fell\non us'
    assert record['traceback'].startswith('Traceback') and record['traceback'].rstrip().endswith(record['error'])
    assert os.listdir(folder) == ['3.json']


def test_a_launcher_that_cannot_be_told(folder, monkeypatch):
    monkeypatch.setenv('HRHF_LAUNCHER', str(folder / 'gone'))
    with pytest.raises(RuntimeError, match='the sky fell'):
        report_and_exit(fault())


def test_a_line_for_srun(folder, monkeypatch, capsys):
    monkeypatch.setenv('HRHF_LAUNCHER', 'stderr')
    monkeypatch.setenv('SLURM_PROCID', '2')
    assert tell_launcher(fault(), 'do this')
    said = capsys.readouterr().err
    assert said.startswith('\x1e') and said.count('\n') == 1
    assert json.loads(said[1:])['rank'] == 2 and json.loads(said[1:])['line'] == 'do this'


@pytest.mark.parametrize('attempt, nodes, line, told, stops', [
    ('0', '1', None, False, False),  # a fault is tried again, and printed where it arose
    ('2', '1', None, True, False),
    ('0', '1', 'do this', True, True),
    ('2', '1', 'do this', True, False),
    ('0', '2', 'do this', False, False),  # launchers on other nodes would wait for this one
])
def test_restarts(folder, monkeypatch, signals, attempt, nodes, line, told, stops):
    for name, value in dict(RESTART_COUNT=attempt, MAX_RESTARTS='2').items():
        monkeypatch.setenv(f'TORCHELASTIC_{name}', value)
    monkeypatch.setenv('GROUP_WORLD_SIZE', nodes)
    assert tell_launcher(fault(), line) is told
    assert (folder / '0.json').exists() is told
    assert signals == ([(os.getppid(), signal.SIGTERM)] if stops else [])
    tell_launcher(fault(), line)  # of another process
    assert len(signals) == stops


def test_the_toolbox_is_imported_in_silence(monkeypatch, capsys):
    import logging
    import warnings

    from mmseg_hrhf.utils.environment import quiet_import

    def warn():  # pytest records what is really warned of
        sys.stderr.write(warnings.formatwarning('that is missing', UserWarning, 'file.py', 1))

    monkeypatch.setenv('RANK', '1')
    streams = sys.stdout, sys.stderr
    with quiet_import():
        print('Could not import this')
        warn()
        handler = logging.StreamHandler(sys.stderr)
    assert (sys.stdout, sys.stderr) == streams
    assert capsys.readouterr() == ('', '')
    handler.emit(logging.LogRecord('name', logging.INFO, 'file.py', 1, 'later', (), None))
    assert capsys.readouterr().err == 'later\n'
    monkeypatch.setenv('RANK', '0')
    with quiet_import():
        print('Could not import this')
        warn()
    printed = capsys.readouterr()
    assert not printed.out and 'UserWarning: that is missing' in printed.err
