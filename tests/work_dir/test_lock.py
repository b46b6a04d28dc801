"""One job a work dir, and no lock of a dead one."""
import errno
import gc
import multiprocessing
import os
import signal
import socket
import time
from contextlib import contextmanager

import pytest

import mmseg_hrhf.work_dir.lock as module
from mmseg_hrhf.work_dir.lock import WorkDirLock, lock_work_dir

FORK = multiprocessing.get_context('fork') if hasattr(os, 'fork') else None
pytestmark = [pytest.mark.skipif(FORK is None, reason='locks are those of POSIX'),
              pytest.mark.filterwarnings('ignore:.*use of fork.*:DeprecationWarning')]


def hold(folder, ready, user=None):
    if user is not None:
        os.setgid(user)
        os.setuid(user)
    module._HELD.clear()
    try:
        lock = WorkDirLock(folder)
        ready.send('held')
        time.sleep(60)
        lock.release()
    except ValueError as error:
        ready.send(str(error))


@contextmanager
def other_process(folder, user=None):
    """Another process that tries to lock ``folder``; gives it and what became of it."""
    mine, theirs = FORK.Pipe()
    process = FORK.Process(target=hold, args=(folder, theirs, user), daemon=True)
    process.start()
    try:
        assert mine.poll(20)
        yield process, mine.recv()
    finally:
        process.kill()
        process.join()


def test_second_job_is_told_host_and_pid_of_the_first(tmp_path):
    with other_process(tmp_path) as (process, said):
        assert said == 'held'
        with pytest.raises(ValueError, match=rf'in use by process {process.pid} on host {socket.gethostname()}: '
                                             r'wait for that job .* another --work-dir'):
            WorkDirLock(tmp_path)


def test_a_killed_job_leaves_no_lock(tmp_path):
    with other_process(tmp_path) as (process, _):
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert (tmp_path / '.lock').exists()
    WorkDirLock(tmp_path).release()


def test_a_data_worker_that_outlives_its_job_holds_no_lock(tmp_path):
    mine, theirs = FORK.Pipe()

    def job():
        module._HELD.clear()
        lock = WorkDirLock(tmp_path)
        if os.fork():
            os._exit(0)
        theirs.send(os.getpid())
        time.sleep(60)
        lock.release()

    process = FORK.Process(target=job)
    process.start()
    process.join()
    worker = mine.recv()
    try:
        WorkDirLock(tmp_path).release()
    finally:
        os.kill(worker, signal.SIGKILL)


def test_released_with_its_owner(tmp_path):
    lock = WorkDirLock(tmp_path)
    with other_process(tmp_path) as (_, said):
        assert f'in use by process {os.getpid()} on' in said
    del lock
    gc.collect()
    with other_process(tmp_path) as (_, said):
        assert said == 'held'


def test_one_process_may_hold_it_twice(tmp_path):
    first, second = WorkDirLock(tmp_path), WorkDirLock(tmp_path)
    first.release()
    with other_process(tmp_path) as (_, said):
        assert 'in use' in said
    second.release()
    with other_process(tmp_path) as (_, said):
        assert said == 'held'


def test_lock_of_another_folder_does_not_matter(tmp_path):
    with other_process(tmp_path / 'one'):
        WorkDirLock(tmp_path / 'two').release()


def test_damaged_lock_file_still_names_another_process(tmp_path):
    with other_process(tmp_path):
        (tmp_path / '.lock').write_text('{')
        with pytest.raises(ValueError, match='in use by another process'):
            WorkDirLock(tmp_path)


def test_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):

    def no_locks(*args):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(module.fcntl, 'lockf', no_locks)
    WorkDirLock(tmp_path).release()


def test_folder_without_permission(tmp_path):
    if os.getuid() != 0:
        (tmp_path / 'locked').mkdir(mode=0o555)
        with pytest.raises(ValueError, match=r'locked cannot be written \(Permission denied\)'):
            WorkDirLock(tmp_path / 'locked')
        return
    # Nothing is forbidden to root: another user tries.
    tmp_path.chmod(0o755)
    with other_process(tmp_path / 'new', user=65534) as (_, said):
        assert said.startswith(f'Work dir {tmp_path}/new cannot be written (Permission denied): choose another')


def test_file_in_place_of_the_folder(tmp_path):
    (tmp_path / 'a').write_text('')
    with pytest.raises(ValueError, match=r'a cannot be written \((File exists|Not a directory)\)'):
        WorkDirLock(tmp_path / 'a')


def test_only_rank_0_locks_and_all_ranks_hear_of_a_refusal(tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'is_main_process', lambda: False)
    assert lock_work_dir(tmp_path / 'a') is None and not (tmp_path / 'a').exists()

    def refused(message):
        message[0] = 'in use'

    monkeypatch.setattr(module, 'broadcast_object_list', refused)
    with pytest.raises(ValueError, match='in use'):
        lock_work_dir(tmp_path / 'a')
