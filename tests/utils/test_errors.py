"""One line for what a user can mend, a traceback for what nobody expected."""
import errno
import multiprocessing
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from mmseg_hrhf.datasets.class_index import scan
from mmseg_hrhf.replay.sampler import split_batch
from mmseg_hrhf.utils.errors import UserError, explain, report_and_exit


def raised(run):
    try:
        run()
    except Exception as error:
        return error
    raise AssertionError('nothing was raised')


def ours():
    split_batch(5, '1:1')


def test_a_check_of_ours_is_its_text():
    assert explain(raised(ours)).startswith('train_dataloader.batch_size=5 cannot be divided 1:1')


@pytest.mark.parametrize('run', [lambda: np.zeros(3).reshape(2), lambda: torch.zeros(3).view(2), lambda: {}['a'],
                                 lambda: int('a')])
def test_others_keep_their_traceback(run):
    error = raised(run)
    assert explain(error) is None
    with pytest.raises(type(error)) as info:
        report_and_exit(error)
    assert info.value is error


def test_the_error_behind_another_one_is_found():

    def build():
        try:
            ours()
        except ValueError as error:
            raise RuntimeError('cannot build X') from error

    assert explain(raised(build)).startswith('train_dataloader.batch_size=5')


def test_errors_of_other_packages_are_shown_like_ours():

    class TheirError(UserError):
        pass

    assert explain(TheirError('scan.tif has no georeference')) == 'scan.tif has no georeference'


@pytest.mark.parametrize('message', ['Image a.png is broken', 'two\nlines: of one message'])
def test_a_data_workers_error_is_its_message(message):
    text = (f'Caught UserError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n'
            f'  File "/x/incremental.py", line 9, in load_sample\nmmseg_hrhf.utils.errors.UserError: {message}')
    assert explain(UserError(text)) == message
    assert explain(ValueError(text)) is None


def not_ours(_):
    return np.zeros(3).reshape(2)


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded')
def test_a_check_in_a_process_of_a_pool_is_its_text(tmp_path):
    paths = [str(tmp_path / f'{i}.png') for i in range(70)]
    for path in paths[:-1]:
        Image.new('L', (4, 4)).save(path)
    error = raised(lambda: scan(paths, {0}, num_workers=2))
    assert type(error.__cause__).__name__ == '_RemoteTraceback'
    assert explain(error) == f'Mask {paths[-1]!r} cannot be read: No such file or directory.'
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('fork')) as pool:
        assert explain(raised(lambda: list(pool.map(not_ours, [0])))) is None


@pytest.mark.parametrize('code, remedy', [(errno.ENOSPC, 'Free some space and run the same command again'),
                                          (errno.EDQUOT, 'Free some space'), (errno.EFBIG, 'Free some space'),
                                          (errno.EROFS, 'another --work-dir'), (errno.EACCES, 'another --work-dir')])
def test_disk_and_permissions(code, remedy):
    line = explain(OSError(code, 'what the system says', 'runs/a.pth'))
    assert line.startswith('runs/a.pth: what the system says. ') and remedy in line


def test_a_full_disk_beneath_another_error_is_found():

    def save():
        try:
            raise OSError(errno.ENOSPC, 'No space left on device')
        except OSError:
            raise RuntimeError('PytorchStreamWriter failed')

    assert explain(raised(save)).startswith('No space left on device. Free some space')


def test_other_system_errors_keep_their_traceback():
    assert explain(OSError(errno.ECONNRESET, 'Connection reset by peer')) is None


def test_exit_code_and_line(capsys, monkeypatch):
    monkeypatch.delenv('HRHF_TRACEBACK', raising=False)
    with pytest.raises(SystemExit) as info:
        report_and_exit(raised(ours))
    assert info.value.code == 2
    assert capsys.readouterr().err.startswith('error: train_dataloader.batch_size=5')
    monkeypatch.setenv('HRHF_TRACEBACK', '1')
    with pytest.raises(ValueError):
        report_and_exit(raised(ours))


ONE_OF_SEVERAL = """
import atexit, sys
import torch
from mmseg_hrhf.utils.errors import report_and_exit
torch.distributed.init_process_group('gloo', init_method=f'file://{sys.argv[1]}', rank=0, world_size=1)
atexit.register(print, 'clean-up')
try:
    exec(sys.argv[2])
except Exception as error:
    report_and_exit(error)
"""


@pytest.mark.parametrize('work, code, message', [
    ("from mmseg_hrhf.replay.sampler import split_batch; split_batch(5, '1:1')", 2, 'error: .*batch_size=5'),
    ("raise RuntimeError('the sky fell')", 1, 'Traceback.*RuntimeError: the sky fell'),
])
def test_one_process_of_several_leaves_without_the_group_s_clean_up(tmp_path, work, code, message):
    done = subprocess.run([sys.executable, '-c', ONE_OF_SEVERAL, str(tmp_path / 'store'), work],
                          capture_output=True, text=True)
    assert done.returncode == code and re.search(message, done.stderr, re.DOTALL), done.stderr
    assert 'clean-up' not in done.stdout
