"""User errors are shown as one line; all other errors keep their traceback."""
from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import signal
import sys
import time
import traceback
from typing import Iterator, NoReturn, Optional

_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
                    'Free some space and run the same command again: it continues from the last complete files.'),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS),
                    'Fix its permissions, or choose another --work-dir.'),
}


class UserError(ValueError):
    """An error that the user can fix. Only its text is shown: it names the thing, its value and the remedy.

    Methods, datasets and hooks of other packages may raise it too.
    """


def explain(error: BaseException) -> Optional[str]:
    """One line for an error that the user can fix (``UserError``, full disk, missing permission), else None.

    Any other error needs its traceback to show where it comes from.
    """
    for link in _chain(error):
        if isinstance(link, OSError) and link.errno in _REMEDIES:
            where = f'{link.filename}: ' if link.filename else ''
            return f'{where}{link.strerror}. {_REMEDIES[link.errno]}'
        if isinstance(link, UserError):
            text = str(link).strip()
            # The error of a data worker arrives as the text of its traceback, which ends with the message.
            return text.rpartition(f'{type(link).__name__}: ')[2] if text.startswith('Caught ') else text
    return None


def reason_of(error: BaseException) -> str:
    """What an error of the toolbox says, on one line: of an assertion without a message, the assertion itself."""
    text = ' '.join(str(error.args[0] if error.args else error).split())
    if not text and error.__traceback__ is not None:
        text = traceback.extract_tb(error.__traceback__)[-1].line or ''
    return text or type(error).__name__


def report_and_exit(error: BaseException) -> NoReturn:
    """Print ``error: ...`` and exit with code 2, or raise the error if ``explain`` returns None.

    If the environment variable ``HRHF_TRACEBACK`` is set, every error is raised. One of several processes exits
    immediately; if ``tools/_launch.py`` started it, the launcher prints the error once for all processes.
    """
    line = None if os.environ.get('HRHF_TRACEBACK') else explain(error)
    told = tell_launcher(error, line)
    if told:
        pass
    elif line is not None:
        print(f'error: {line}', file=sys.stderr)
    elif _is_one_of_several():
        traceback.print_exception(type(error), error, error.__traceback__)  # Python 3.9 needs all three
    else:
        raise error
    code = 1 if line is None else 2
    if _is_one_of_several():
        # A normal exit waits in NCCL's clean-up for the other processes, which wait for this one. The launcher ends
        # them once this process is gone.
        for child in multiprocessing.active_children():
            child.terminate()  # data workers would only notice after 5 s
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _is_one_of_several() -> bool:
    distributed = sys.modules.get('torch.distributed')  # imported by any process that joined a group
    return distributed is not None and distributed.is_available() and distributed.is_initialized()


def _chain(error: Optional[BaseException]) -> Iterator[BaseException]:
    """The error and its causes: the toolbox's registries re-raise errors of constructors."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


LAUNCHER = 'HRHF_LAUNCHER'  # folder for one file per failed process, or 'stderr' for a line that srun forwards
RECORD = '\x1e'  # starts such a line: ASCII's record separator, which no other output contains


def rank() -> int:
    """Rank of this process, also before it joins a group."""
    return int(os.environ.get('RANK') or os.environ.get('SLURM_PROCID') or 0)


def tell_launcher(error: BaseException, line: Optional[str]) -> bool:
    """Pass an error to the launcher, which reports it once for all processes.

    Args:
        error: ends this process.
        line: message of an error that the user can fix; None for a bug.
    Returns:
        False if this process must report the error itself: there is no launcher, the launcher cannot be reached, or it
        will restart all processes.
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
    except OSError:  # the disk for temporary files is full too
        return False
    if again:
        _stop_launcher(launcher)
    return True


def _stop_launcher(folder: str) -> None:
    """Stop the launcher, which ends all processes; only the first caller does. Restarting cannot fix a user error."""
    try:
        os.close(os.open(os.path.join(folder, 'stopped'), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getppid(), signal.SIGTERM)
