"""Start several processes and, if they fail, end with one line that names the cause.

    python tools/_launch.py torchrun [torchrun's options] SCRIPT [options]     (tools/dist_train.sh, tools/dist_test.sh)
    python tools/_launch.py srun [srun's options] -- python -u SCRIPT [options]     (tools/slurm_train.sh)

A failed process passes its error to this script (mmseg_hrhf/utils/errors.py) instead of printing it. Among all errors,
exit codes and signals, this script finds the cause and prints its traceback, if it is a bug, and one line.
"""
import contextlib
import json
import logging
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NamedTuple, Optional

_LAUNCHER = 'HRHF_LAUNCHER'
_RECORD = b'\x1e'
# Errors of the other processes after one has died.
_LOST_PEER = re.compile(r'connection (closed|reset|refused)|broken pipe|socket|nccl|gloo|remote process|TCPStore', re.I)
_USUALLY = {
    signal.SIGKILL: 'Usually memory ran out (check `dmesg` or the batch system): request more, or use fewer data '
                    'workers (train_dataloader.num_workers) or smaller batches, and run the same command again.',
    signal.SIGBUS: 'Usually shared memory (/dev/shm) is full: enlarge it (Docker: --shm-size), or use fewer data '
                   'workers (train_dataloader.num_workers), and run the same command again.',
    signal.SIGXCPU: 'It reached its CPU time limit: raise the limit and run the same command again.',
    signal.SIGTERM: 'Usually the batch system, another node or a user stopped it: run the same command again.',
    signal.SIGINT: 'Run the same command again.',
}
_CRASH = 'Usually compiled code crashed: set PYTHONFAULTHANDLER=1 to see where.'


class Failure(NamedTuple):
    """Failure of one process; ``code`` is its exit code, or the negative number of the signal that killed it."""
    code: int
    rank: Optional[int] = None
    record: Optional[dict] = None

    @property
    def lost_peer(self) -> bool:
        record = self.record
        return record is not None and record['line'] is None and bool(_LOST_PEER.search(record['error']))

    @property
    def precedence(self) -> tuple[int, float]:
        """Sort key, smallest for the cause; the other failures are its consequences."""
        if self.record is not None:
            return (4 if self.lost_peer else 1), self.record['time']
        if self.code > 0:
            return 3, 0
        return {signal.SIGABRT: 2, signal.SIGTERM: 5, signal.SIGINT: 5}.get(-self.code, 0), 0


def report(failures: list[Failure]) -> int:
    """Print why the job failed; returns the exit code."""
    failure = min(failures, key=lambda failure: failure.precedence)
    who = 'a process' if failure.rank is None else f'rank {failure.rank}'
    if failure.record is None and failure.code < 0:
        return say(f'{who} was killed by {signal_name(-failure.code)}. {_USUALLY.get(-failure.code, _CRASH)}',
                   128 - failure.code)
    if failure.record is None:
        return say(f'{who} exited with code {failure.code} and without a message.', failure.code)
    if failure.record['line'] is not None:
        return say(failure.record['line'], 2)
    text, error = failure.record['traceback'].rstrip(), failure.record['error']
    if '\n' not in error:
        text = text.removesuffix(error).rstrip()  # it is part of our line
    print(text, file=sys.stderr)
    elsewhere = ' If a process on another node failed first, see the output of that node for the cause.'
    return say(f'{who} failed: {error.splitlines()[0]}{elsewhere if failure.lost_peer else ""}', 1)


def say(line: str, code: int) -> int:
    sys.stdout.flush()
    print(f'error: {line}', file=sys.stderr, flush=True)
    return code


def signal_name(number: int) -> str:
    try:
        return f'{signal.Signals(number).name} (signal {number})'
    except ValueError:
        return f'signal {number}'


def interrupted(number: int) -> int:
    return say(f'stopped by {signal_name(number)}. Run the same command again to continue.', 128 + number)


def check_options(script: str, options: list[str]) -> None:
    """Parse the script's options here, so that --help or a wrong option prints only once and starts nothing."""
    sys.argv = [script, *options]
    runpy.run_path(script)['parse_args']()


def torchrun(argv: list[str]) -> int:
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    args = run.parse_args(argv)
    if not re.fullmatch(r'[1-9]\d*|auto|gpu|cpu', str(args.nproc_per_node)):
        return say(f'GPUS={args.nproc_per_node!r} must be the number of processes on this node: see the arguments at '
                   f'the top of tools/dist_{Path(args.training_script).stem}.sh.', 2)
    check_options(args.training_script, args.training_script_args)
    if not os.environ.get('HRHF_TRACEBACK'):
        # Hide torchrun's messages about the processes that it stops, but not the reasons for restarts.
        logging.disable(logging.WARNING if args.max_restarts else logging.ERROR)
    with tempfile.TemporaryDirectory(prefix='hrhf_launch_') as folder:
        os.environ[_LAUNCHER] = folder
        try:
            run.run(args)
        except ChildFailedError as error:
            failures = [Failure(failure.exitcode, rank) for rank, failure in error.failures.items()]
            return report([failure._replace(record=read(folder, failure.rank)) for failure in failures])
        except (SignalException, KeyboardInterrupt) as error:
            records = [read(folder, int(path.stem)) for path in Path(folder).glob('*.json')]
            if records:  # a process failed with an error that a restart would not fix
                return report([Failure(2, record['rank'], record) for record in records])
            return interrupted(int(getattr(error, 'sigval', signal.SIGINT)))
        except Exception as error:
            if re.search('EADDRINUSE|address already in use', str(error), re.I):
                return say(f'port {args.master_port} of this machine is in use: set a free one, such as PORT=29501.',
                           2)
            traceback.print_exc()
            name = traceback.format_exception_only(type(error), error)[0].splitlines()[0]
            return say(f'the processes could not be started: {name}', 1)
    return 0


def read(folder: str, rank: int) -> Optional[dict]:
    path = Path(folder, f'{rank}.json')
    return json.loads(path.read_text(encoding='utf-8')) if path.exists() else None


def srun(argv: list[str]) -> int:
    end = argv.index('--')
    script, *options = argv[end + 3:]
    check_options(script, options)
    if shutil.which('srun') is None:
        return say('srun not found: run this on a Slurm cluster, or use tools/dist_train.sh without Slurm.', 2)
    command = ['srun', *argv[:end], *argv[end + 1:]]
    if {'SLURM_STDOUTMODE', 'SLURM_STDERRMODE'} & os.environ.keys() or any(
            re.match(r'-[oe]|--(output|error)\b', option) for option in argv[:end]):
        os.execvp('srun', command)  # each process reports its error in the file that srun writes
    os.environ[_LAUNCHER] = 'stderr'
    records = []
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # srun also receives it, and decides
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        held = b''
        while chunk := os.read(process.stderr.fileno(), 1 << 16):
            held = pass_on(held + chunk, records)
    code = process.returncode
    if code in (-signal.SIGINT, 128 + signal.SIGINT):
        return interrupted(signal.SIGINT)
    failures = [Failure(1, record['rank'], record) for record in records]
    # After a failure srun kills the other processes, so its exit code only helps if every known failure is a lost peer.
    if code and all(failure.precedence[0] > 1 for failure in failures):
        failures.append(Failure(128 - code if code > 128 else code))
    return report(failures) if code else 0


def pass_on(data: bytes, records: list[dict]) -> bytes:
    """Print ``data`` without the records in it, which are appended to ``records``; returns the unfinished last one."""
    while data:
        text, mark, rest = data.partition(_RECORD)
        sys.stderr.buffer.write(text)
        sys.stderr.buffer.flush()
        line, newline, data = rest.partition(b'\n')
        if mark and not newline:
            return mark + line
        if mark:
            with contextlib.suppress(ValueError):
                records.append(json.loads(line))
    return b''


if __name__ == '__main__':
    try:
        sys.exit(dict(torchrun=torchrun, srun=srun)[sys.argv[1]](sys.argv[2:]))
    except KeyboardInterrupt:
        sys.exit(interrupted(signal.SIGINT))
