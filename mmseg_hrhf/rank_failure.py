"""What a process of several tells the launcher that started it (``tools/_launch.py``), which alone reports it."""
from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from typing import Optional

LAUNCHER = 'HRHF_LAUNCHER'  # a folder for a file per failed process; or 'stderr': srun brings a line of it
RECORD = '\x1e'  # begins such a line: ASCII's record separator, of which nothing else on the screen has one


def rank() -> int:
    """Of this process, before it has joined a group, too."""
    return int(os.environ.get('RANK') or os.environ.get('SLURM_PROCID') or 0)


def tell_launcher(error: BaseException, line: Optional[str]) -> bool:
    """Hand an error over to be reported once for all processes.

    Args:
        error: that ends this process.
        line: what a user can mend about it; None for a fault.
    Returns:
        False where this process has to report it: no launcher of ours listens or can be told, or it will start all
        processes again.
    """
    launcher = os.environ.get(LAUNCHER)
    if not launcher:
        return False
    again = int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)) < int(os.environ.get('TORCHELASTIC_MAX_RESTARTS', 0))
    if again and (line is None or os.environ.get('GROUP_WORLD_SIZE') != '1'):
        return False
    text = ''.join(traceback.format_exception(type(error), error, error.__traceback__))
    name = ''.join(traceback.format_exception_only(type(error), error)).strip()
    record = json.dumps(dict(rank=rank(), time=time.time(), line=line, error=name, traceback=text))
    if launcher == 'stderr':
        sys.stderr.write(f'{RECORD}{record}\n')
        sys.stderr.flush()
        return True
    path = os.path.join(launcher, f'{rank()}.json')
    try:
        with open(f'{path}.tmp', 'w', encoding='utf-8') as file:
            file.write(record)
        os.replace(f'{path}.tmp', path)
    except OSError:  # the disk of temporary files is full, too
        return False
    if again:
        _stop_launcher(launcher)
    return True


def _stop_launcher(folder: str) -> None:
    """No restart mends what the user has to mend. The first process to say so ends the launcher, which ends all."""
    try:
        os.close(os.open(os.path.join(folder, 'stopped'), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getppid(), signal.SIGTERM)
