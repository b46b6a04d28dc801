"""A disk that fills up ends a run in one line, and once there is room the run goes on."""
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from mmseg.registry import RUNNERS

from mmseg_hrhf.utils.errors import explain
from mmseg_hrhf.work_dir.checkpoint import load_checkpoint


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB; skipped where none may be mounted."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f'no file system may be mounted here: {mounted.stderr.decode().strip()}')
    yield folder
    subprocess.run(['umount', '-l', str(folder)], check=True)


def fill(folder, left):
    """Leave ``left`` bytes; gives the file that takes the rest."""
    ballast = folder / 'ballast'
    free = os.statvfs(folder)
    ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - left))
    return ballast


# Room for: nothing at all; the class index, but no checkpoint.
@pytest.mark.parametrize('left', [0, 50_000])
def test_run_goes_on_once_there_is_room(tiny_config, small_disk, left, monkeypatch, capfd):
    tiny_config.only_step = 0
    tiny_config.train_cfg.max_epochs = tiny_config.train_cfg.val_interval = 1
    tiny_config.default_hooks.checkpoint.interval = 1
    monkeypatch.setattr('logging.raiseExceptions', False)  # as tools/train.py does
    tiny_config.work_dir = str(small_disk / 'work')
    ballast = fill(small_disk, left)
    with pytest.raises(Exception) as info:
        RUNNERS.build(tiny_config).train()
    line = explain(info.value)
    assert line is not None, repr(info.value)
    assert 'No space left on device' in line and 'Free some space' in line
    assert 'Traceback' not in capfd.readouterr().err
    assert not list(small_disk.rglob('.*.*')), 'a half-written file was left'
    ballast.unlink()
    assert len(RUNNERS.build(tiny_config).train()) == 1
    load_checkpoint(small_disk / 'work' / 'step_0' / 'checkpoint.pth')


@pytest.fixture
def read_only_disk(small_disk):
    subprocess.run(['mount', '-o', 'remount,ro', str(small_disk)], check=True)
    return small_disk


def test_read_only_work_dir(tiny_config, read_only_disk):
    tiny_config.work_dir = str(read_only_disk / 'work')
    with pytest.raises(ValueError, match=r'disk/work cannot be written \(Read-only file system\): choose another'):
        RUNNERS.build(tiny_config)


def test_tool_with_a_limit_on_files(tiny_config_file, tmp_path, repo):
    """What a quota does, where no file system may be mounted: files end at 60 kB, less than a checkpoint."""
    command = [sys.executable, str(repo / 'tools/train.py'), str(tiny_config_file), '--work-dir',
               str(tmp_path / 'work'), '--step', '0']
    done = subprocess.run(command, capture_output=True, text=True, timeout=300,
                          env=dict(os.environ, OMP_NUM_THREADS='1'),
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)))
    assert done.returncode == 2, done.stderr[-2000:]
    assert 'Traceback' not in done.stderr
    assert 'File too large. Free some space' in done.stderr.strip().splitlines()[-1]
    assert not (Path(tmp_path) / 'work/step_0/result.json').exists()
