"""What the user can mend is said in one line; what nobody expected keeps its traceback."""
from __future__ import annotations

import errno
import os
import sys
from typing import Iterator, NoReturn, Optional

_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
                    'Make room there and run the same command again: it goes on from its last whole files.'),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS),
                    'See to its permissions, or choose another --work-dir.'),
}


def explain(error: BaseException) -> Optional[str]:
    """One line for an error that a user can mend: a check of ours, a full disk, a missing permission; else None.

    A check of ours is a ``ValueError`` or ``FloatingPointError`` raised by this package's own code. Others of their
    kind, from torch or numpy, are not: without their traceback nobody could tell where they come from.
    """
    for link in _chain(error):
        if isinstance(link, OSError) and link.errno in _REMEDIES:
            where = f'{link.filename}: ' if link.filename else ''
            return f'{where}{link.strerror}. {_REMEDIES[link.errno]}'
        if isinstance(link, (ValueError, FloatingPointError)):
            text = str(link).strip()
            if text.startswith('Caught '):
                # A data worker's error comes wrapped in its traceback, of which the last line is the error.
                if f'{os.sep}{__package__}{os.sep}' in text:
                    return text.splitlines()[-1].split(': ', 1)[-1]
            elif _is_ours(link):
                return text
    return None


def report_and_exit(error: BaseException) -> NoReturn:
    """Print ``error: ...`` and exit with code 2, or raise what :func:`explain` does not know.

    With ``HRHF_TRACEBACK`` set in the environment every error is raised.
    """
    line = None if os.environ.get('HRHF_TRACEBACK') else explain(error)
    if line is None:
        raise error
    print(f'error: {line}', file=sys.stderr)
    sys.exit(2)


def _chain(error: Optional[BaseException]) -> Iterator[BaseException]:
    """The error and what it was raised from: the toolbox's registries raise constructors' errors anew."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_ours(error: BaseException) -> bool:
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    module = traceback.tb_frame.f_globals.get('__name__', '') if traceback is not None else ''
    return module.split('.')[0] == __package__
