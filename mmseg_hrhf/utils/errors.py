"""Errors that a user can mend are shown as one line; all others keep their traceback."""
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
                    'Make room there and run the same command again: it goes on from its last whole files.'),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS),
                    'See to its permissions, or choose another --work-dir.'),
}


class UserError(ValueError):
    """An error that the user can mend: its text names the thing, its value and the remedy, and is all that is shown.

    Methods, datasets and hooks of other packages may raise it, too.
    """


def explain(error: BaseException) -> Optional[str]:
    """One line for an error that a user can mend: a ``UserError``, a full disk, a missing permission; else None.

    Any other error keeps its traceback, without which nobody could tell where it comes from.
    """
    for link in _chain(error):
        if isinstance(link, OSError) and link.errno in _REMEDIES:
            where = f'{link.filename}: ' if link.filename else ''
            return f'{where}{link.strerror}. {_REMEDIES[link.errno]}'
        if isinstance(link, UserError):
            text = str(link).strip()
            # A data worker's error comes as the text of its traceback, which ends in the error.
            return text.rpartition(f'{type(link).__name__}: ')[2] if text.startswith('Caught ') else text
    return None


def reason_of(error: BaseException) -> str:
    """What an error of the toolbox says, on one line: of an assertion without a message, the assertion itself."""
    text = ' '.join(str(error.args[0] if error.args else error).split())
    if not text and error.__traceback__ is not None:
        text = traceback.extract_tb(error.__traceback__)[-1].line or ''
    return text or type(error).__name__


def report_and_exit(error: BaseException) -> NoReturn:
    """Print ``error: ...`` and exit with code 2, or raise what ``explain`` does not know.

    With ``HRHF_TRACEBACK`` set in the environment every error is raised. One process of several ends at once; where
    ``tools/_launch.py`` started it, that prints the error, once for all processes.
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
        # The usual exit waits in NCCL's clean-up for the others, who wait for this process; its launcher ends them
        # once it is gone.
        for child in multiprocessing.active_children():
            child.terminate()  # data workers would notice only after 5 s
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _is_one_of_several() -> bool:
    distributed = sys.modules.get('torch.distributed')  # whoever joined a group has imported it
    return distributed is not None and distributed.is_available() and distributed.is_initialized()


def _chain(error: Optional[BaseException]) -> Iterator[BaseException]:
    """The error and what it was raised from: the toolbox's registries raise constructors' errors anew."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


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
