"""However a job of several processes fails, the last line on screen says why, once."""
import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

# Counts the processes that are started; rank 1 fails in its third iteration, as the environment has it.
HOOK = '''
import os
import signal
import time
from pathlib import Path
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

Path(__file__).with_name(f'started_{os.getpid()}').touch()
HOW = os.environ.get('FAILS')
if HOW == 'at import on task 1' and os.environ['SLURM_PROCID'] == '1':
    raise RuntimeError('the sky fell on task 1')
if HOW == 'task 1 is killed' and os.environ['SLURM_PROCID'] == '1':
    os.kill(os.getpid(), signal.SIGKILL)
if HOW is not None and 'task 1' in HOW:
    time.sleep(60)


@HOOKS.register_module()
class FailOnRank1(Hook):

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 2 and HOW == 'wait':
            Path(__file__).with_name(f'waits_{get_rank()}').touch()
            time.sleep(60)
        if runner.iter == 2 and get_rank() == 1:
            if HOW == 'killed':
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError('the sky fell')
'''
CONFIG = '''
custom_imports = dict(imports=['mmseg_hrhf', 'fail_on_rank_1'], allow_failed_imports=False)
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=2)
default_hooks['failing'] = dict(type='FailOnRank1')
'''
# As Slurm: all tasks share its error stream, the others are killed once one has failed, and then it says a lot itself.
SRUN = f'''#!{sys.executable}
import os, signal, subprocess, sys, time
number = int(next(option for option in sys.argv if option.startswith('--ntasks=')).split('=')[1])
command = sys.argv[sys.argv.index('python'):]
slurm = dict(os.environ, SLURM_NTASKS=str(number), SLURM_NODELIST='localhost')
tasks = [subprocess.Popen(command, env=dict(slurm, SLURM_PROCID=str(i), SLURM_LOCALID=str(i))) for i in range(number)]
while all(task.poll() is None for task in tasks):
    time.sleep(0.05)
time.sleep(1)
for i, task in enumerate(tasks):
    if task.poll() is None:
        task.kill()
    code = task.wait()
    if code:
        print(f'srun: error: localhost: task {{i}}: exited with {{code}}', file=sys.stderr)
sys.exit(max(128 - task.returncode if task.returncode < 0 else task.returncode for task in tasks))
'''


@pytest.fixture
def screen(tiny_config_file, tmp_path, repo, free_port):
    """Runs a tool and returns its exit code and all that it printed."""
    tiny_config_file.write_text(tiny_config_file.read_text() + CONFIG)
    (tmp_path / 'fail_on_rank_1.py').write_text(HOOK)
    binaries = tmp_path / 'bin'
    binaries.mkdir()
    (binaries / 'srun').write_text(SRUN)
    (binaries / 'srun').chmod(0o755)
    paths = os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')])
    python = Path(sys.executable).parent
    base = dict(os.environ, OMP_NUM_THREADS='1', PORT=str(free_port), PYTHONPATH=paths, GPUS='2', GPUS_PER_NODE='2',
                PATH=os.pathsep.join([str(binaries), str(python), os.environ['PATH']]))

    def run(tool, *arguments, interrupt_at=None, **env):
        command = ['bash' if tool.endswith('.sh') else sys.executable, str(repo / 'tools' / tool), *map(str, arguments)]
        with subprocess.Popen(command, cwd=tmp_path, env=dict(base, **env), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, start_new_session=True) as process:
            try:
                if interrupt_at is not None:
                    deadline = time.monotonic() + 120
                    while not (tmp_path / interrupt_at).exists() and time.monotonic() < deadline:
                        time.sleep(0.1)
                    os.killpg(process.pid, signal.SIGINT)
                said = process.communicate(timeout=240)[0]
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        return process.returncode, said

    return run


def last_line(said, begins):
    """The last line, which is the only one of its kind, and the only report of an error on the screen."""
    assert said.count('\nerror: ') + said.startswith('error: ') == 1, said
    assert 'Root Cause' not in said and 'ChildFailedError' not in said, said
    line = said.rstrip('\n').splitlines()[-1]
    assert line.startswith(f'error: {begins}'), said
    return line


MISSING = 'train_dataloader.dataset.data_root=nowhere'


@pytest.mark.parametrize('tool, arguments, env', [
    ('dist_train.sh', ['2', '--cfg-options', MISSING], {}),
    pytest.param('dist_train.sh', ['2', '--dry-run', '--cfg-options', MISSING], {}, marks=pytest.mark.slow),
    ('dist_train.sh', ['1', '--cfg-options', MISSING], {}),
    pytest.param('dist_train.sh', ['2', '--cfg-options', MISSING], {'MAX_RESTARTS': '2'}, marks=pytest.mark.slow),
    ('train.py', ['--cfg-options', MISSING], {}),
    ('slurm_train.sh', [], {'CUDA_VISIBLE_DEVICES': ''}),
], ids=['train', 'dry run', 'one process of a launcher', 'restarts', 'one process', 'slurm'])
def test_what_a_user_can_mend(screen, tiny_config_file, tmp_path, tool, arguments, env):
    before = ['a', 'job'] if tool.startswith('slurm') else []
    code, said = screen(tool, *before, tiny_config_file, *arguments, **env)
    assert code == 2 and 'Traceback' not in said, said
    last_line(said, '--launcher slurm needs GPUs' if before else "data_root 'nowhere' of BaseSegDataset does not exist")
    for noise in ('Could not import', 'UserWarning: Fail to import', 'NUM_THREADS'):
        assert said.count(noise) <= 1, said
    # No restart mends it, so none is tried.
    processes = 1 if tool == 'train.py' or arguments[:1] == ['1'] else 2
    assert len(list(tmp_path.glob('started_*'))) == processes


def test_the_test_tool(screen, tiny_config_file):
    code, said = screen('dist_test.sh', tiny_config_file, 'nothing.pth', '2')
    assert code == 2 and 'Traceback' not in said
    assert 'nothing.pth' in last_line(said, '')


def test_a_fault_of_one_rank_in_training(screen, tiny_config_file):
    code, said = screen('dist_train.sh', tiny_config_file, '2')
    assert code == 1
    last_line(said, 'rank 1 failed: RuntimeError: the sky fell')
    assert said.count('RuntimeError: the sky fell') == 1 and said.count('Traceback') == 1
    assert 'fail_on_rank_1.py' in said.split('Traceback')[1]


@pytest.mark.slow
def test_a_killed_rank(screen, tiny_config_file):
    code, said = screen('dist_train.sh', tiny_config_file, '2', FAILS='killed')
    assert code == 128 + signal.SIGKILL
    assert 'memory ran out' in last_line(said, 'rank 1 was killed by SIGKILL (signal 9).')
    assert 'Traceback' not in said


@pytest.mark.slow
@pytest.mark.parametrize('tool, arguments', [('dist_train.sh', ['2']), ('train.py', [])])
def test_an_interrupt(screen, tiny_config_file, tool, arguments):
    code, said = screen(tool, tiny_config_file, *arguments, interrupt_at='waits_0', FAILS='wait')
    assert code == 128 + signal.SIGINT
    last_line(said, 'stopped by SIGINT (signal 2). Run the same command again to continue.')
    assert 'Traceback' not in said


@pytest.mark.slow
def test_a_fault_of_one_task_of_slurm(screen, tiny_config_file):
    code, said = screen('slurm_train.sh', 'a', 'job', tiny_config_file, FAILS='at import on task 1')
    assert code == 1
    last_line(said, 'rank 1 failed: RuntimeError: the sky fell on task 1')
    assert said.count('RuntimeError: the sky fell on task 1') == 1 and said.count('Traceback') == 1
    assert 'srun: error: localhost: task 0' in said


@pytest.mark.slow
def test_a_killed_task_of_slurm(screen, tiny_config_file):
    code, said = screen('slurm_train.sh', 'a', 'job', tiny_config_file, FAILS='task 1 is killed')
    assert code == 128 + signal.SIGKILL and 'memory ran out' in last_line(said, 'a process was killed by SIGKILL')


@pytest.mark.parametrize('tool, before', [('dist_train.sh', []), ('slurm_train.sh', ['a', 'job'])])
def test_a_wrong_option_starts_nothing(screen, tiny_config_file, tmp_path, tool, before):
    arguments = ['2', '--stpe', '1'] if tool == 'dist_train.sh' else ['--stpe', '1']
    code, said = screen(tool, *before, tiny_config_file, *arguments)
    assert code == 2 and said.count('unrecognized arguments: --stpe 1') == 1
    assert said.rstrip().splitlines()[-1].startswith('train.py: error: ')
    assert not list(tmp_path.glob('started_*'))


def test_numbers_and_ports(screen, tiny_config_file, free_port):
    code, said = screen('dist_train.sh', tiny_config_file)
    assert code == 2
    last_line(said, "GPUS='' must be the number of processes on this node")
    with socket.create_server(('', free_port)):
        code, said = screen('dist_train.sh', tiny_config_file, '2')
    assert code == 2
    last_line(said, f'port {free_port} of this machine is in use')


def test_no_slurm(screen, tiny_config_file, tmp_path):
    (tmp_path / 'bin' / 'srun').unlink()
    code, said = screen('slurm_train.sh', 'a', 'job', tiny_config_file)
    assert code == 2
    last_line(said, 'srun not found')


@pytest.fixture(scope='module')
def launch(repo):
    spec = importlib.util.spec_from_file_location('launch', repo / 'tools' / '_launch.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(rank, time, error='RuntimeError: broken', line=None):
    return dict(rank=rank, time=time, line=line, error=error, traceback=f'Traceback\n  there\n{error}\n')


LOST = 'RuntimeError: [gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1234'


@pytest.mark.parametrize('failures, code, said', [
    # All at once: the earliest.
    ([(2, 0, record(0, 5., line='b')), (2, 1, record(1, 4., line='a'))], 2, 'error: a\n'),
    # Who was killed, not who lost it.
    ([(1, 0, record(0, 5., LOST)), (-9, 1, None)], 137, 'error: rank 1 was killed by SIGKILL'),
    # Who failed, not those that torchrun or NCCL ended then.
    ([(-15, 0, None), (1, 1, record(1, 5.)), (-6, 2, None)], 1,
     'Traceback\n  there\nerror: rank 1 failed: RuntimeError: broken\n'),
    ([(1, 0, record(0, 4., LOST)), (2, 1, record(1, 5., line='a'))], 2, 'error: a\n'),
    ([(-15, 0, None), (-11, 1, None)], 139, 'error: rank 1 was killed by SIGSEGV (signal 11). Usually compiled code'),
    ([(-15, 0, None), (3, 1, None)], 3, 'error: rank 1 exited with code 3 and without a message.'),
    ([(1, 0, record(0, 4., LOST))], 1, f'Traceback\n  there\nerror: rank 0 failed: {LOST} If a process on another'),
    # A message of several lines stays whole above the first of them.
    ([(1, 0, record(0, 4., 'E: a\nb'))], 1, 'Traceback\n  there\nE: a\nb\nerror: rank 0 failed: E: a\n'),
])
def test_the_cause_of_several_failures(launch, capsys, failures, code, said):
    assert launch.report([launch.Failure(*failure) for failure in failures]) == code
    assert capsys.readouterr().err.startswith(said)


def test_records_among_other_output(launch, capfdbinary):
    """In pieces of any size, and after a progress bar that has not ended its line."""
    data, held, records = b'a\nbar 50%\x1e{"rank": 1}\nmore\x1e{"rank": 0}\nend', b'', []
    for i in range(len(data)):
        held = launch.pass_on(held + data[i:i + 1], records)
    assert held == b'' and [record['rank'] for record in records] == [1, 0]
    sys.stderr.flush()
    assert capfdbinary.readouterr().err == b'a\nbar 50%moreend'
