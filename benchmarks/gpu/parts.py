"""Parts of a check, one after another against a clock, each written down as it ends."""
from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

# How a part can end. PASSED and WRONG have a result, UNAVAILABLE has a reason, FAILED an error.
PASSED, WRONG, UNAVAILABLE, FAILED, NOT_REACHED = 'passed', 'wrong', 'not available', 'failed', 'not reached'
FINAL = (PASSED, WRONG, UNAVAILABLE)


@dataclass(frozen=True)
class Part:
    """A piece of a check.

    Args:
        name: in the file of results.
        work: ``module:function``, which takes a ``Place`` and ``options`` and returns JSON data:
            ``checks`` (``check``), ``rows`` (``timing.row``), or ``unavailable``: why there is nothing to do.
        seconds: the most that it may take; it is ended then.
        options: of the function.
        always: run it each time, however late: it takes no time and looks at what the others found.
        needed: where it fails, nothing else can run.
    """
    name: str
    work: str
    seconds: float
    options: Mapping[str, Any] = field(default_factory=dict)
    always: bool = False
    needed: bool = False


class Overtime(Exception):
    """A part was ended since its time was up."""


def check(what: str, value: float, at_most: float) -> dict:
    """A value that is held against a bound; one that is not a number does not hold."""
    return dict(what=what, value=float(value), at_most=float(at_most), holds=bool(value <= at_most))


def ended(result: dict) -> dict:
    """The record of a part that returned ``result``."""
    if 'unavailable' in result:
        return dict(status=UNAVAILABLE, reason=result['unavailable'])
    holds = all(each['holds'] for each in result.get('checks', ()))
    return dict(status=PASSED if holds else WRONG, result=result)


def read(path: Path) -> dict:
    """The file of results; of none, an empty one."""
    return json.loads(path.read_text()) if path.exists() else dict(parts={})


def write(path: Path, held: dict) -> None:
    """Replace the file of results: it is whole at any moment."""
    aside = path.with_suffix('.writing')
    with open(aside, 'w') as file:
        json.dump(held, file, indent=1)
        file.write('\n')
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def open_results(path: Path, circumstances: dict) -> dict:
    """The results so far, which must be of the same device and sizes.

    Raises:
        ValueError: they are of others.
    """
    held = read(path)
    for key, value in circumstances.items():
        if held.get(key, value) != value:
            raise ValueError(f'{path} was begun with {key}={held[key]!r}, not {value!r}: give another --out.')
    held.update(circumstances)
    return held


def run_parts(parts: Sequence[Part], path: Path, held: dict, call: Callable[[Part, float], dict], minutes: float,
              clock: Callable[[], float] = time.monotonic, say: Callable[[str], object] = print) -> dict:
    """Run what ``held`` lacks: first what was never tried, then what failed, in the order given.

    Args:
        parts: all there are.
        path: file of results, written after each part.
        held: what ``open_results`` gave.
        call: runs a part, for at most so many seconds, and gives what it returns; raises ``Overtime``.
        minutes: in all. What is not begun or not ended by then is recorded as not reached.
        clock: in seconds.
        say: told of each part.
    """
    end, records = clock() + 60 * minutes, held['parts']
    left = [part for part in parts if part.always or records.get(part.name, {}).get('status') not in FINAL]
    left.sort(key=lambda part: (not part.needed, part.always, records.get(part.name, {}).get('status') == FAILED))
    for part in left:
        began = clock()
        if began >= end and not part.always:
            if records.get(part.name, {}).get('status') != FAILED:
                records[part.name] = dict(status=NOT_REACHED)
            continue
        cut = part.seconds > end - began and not part.always
        try:
            record = ended(call(part, end - began if cut else part.seconds))
        except Overtime:
            record = dict(status=NOT_REACHED, reason='the time was up') if cut else dict(
                status=FAILED, error=f'It was ended after {part.seconds:.0f} s.')
        except Exception as error:  # the next part may do: whatever it was is on record
            record = dict(status=FAILED, error=str(error) or repr(error))
        record['seconds'] = round(clock() - began, 1)
        records[part.name] = record
        write(path, held)
        say(f'{part.name}: {record["status"]} ({record["seconds"]:.0f} s)'
            + ''.join(f'\n  {line}' for line in remarks(record)))
        if part.needed and record['status'] == FAILED:
            break
    write(path, held)
    return held


def remarks(record: dict) -> list[str]:
    """What to say of a part at once: bounds that do not hold, figures, the end of an error."""
    result = record.get('result', {})
    lines = [f'{each["what"]}: {each["value"]:.3g}, at most {each["at_most"]:.3g}: WRONG'
             for each in result.get('checks', ()) if not each['holds']]
    lines += [f'{row["what"]}: {row["value"]:.4g}' for row in result.get('rows', ())]
    said = record.get('reason') or record.get('error')
    return lines + (said.strip().splitlines()[-3:] if said else [])


def exit_code(held: dict) -> int:
    """1 where a part failed or is wrong, 2 where one was not reached, else 0."""
    found = {record['status'] for record in held['parts'].values()}
    return 1 if found & {FAILED, WRONG} else 2 if NOT_REACHED in found else 0
