"""Write the page docs/model_zoo_compat.md from the results of the families."""
from __future__ import annotations

import json
import os
import platform
from pathlib import Path

from zoo_families import FAMILIES

MARKS = '<!-- zoo table begins -->', '<!-- zoo table ends -->'
CHECKS = ('step_0', 'step_1', 'inversion', 'distilled', 'teacher_unchanged', 'plain_checkpoint')


def passed(result: dict) -> bool:
    return result['plain'] and 'error' not in result and all(result[name] for name in CHECKS)


def group_of(result: dict) -> str:
    return result['needs'] or 'bare stack'


def mark(result: dict, name: str) -> str:
    return 'yes' if result.get(name) else 'no' if 'error' not in result else '-'


def kept(result: dict) -> str:
    """Whether growth preserved the old classes' probabilities."""
    growth = result.get('growth')
    if growth is None:
        return '-'
    return 'yes' if growth['probability'] < 1e-4 else f'shifts by {growth["probability"]:.2g}'


def row(result: dict) -> str:
    notes = list(result.get('notes', []))
    if not result['plain'] and result.get('needs') and 'Import' in result['error']:
        notes.append(f'needs {result["needs"]}, which is not installed here')
    elif 'error' in result:
        notes.append(('trains without us, but: ' if result['plain'] else 'does not train without us here: ')
                     + result['error'].replace('|', '/').replace('\n', ' '))
    elif not all(result[name] for name in CHECKS):
        notes.append('failed: ' + ', '.join(name for name in CHECKS if not result[name]))
    cells = [result['family'], f'`{result["config"]}`', 'yes' if result['plain'] else 'no', mark(result, 'step_0'),
             mark(result, 'step_1'), mark(result, 'inversion'), kept(result), '; '.join(notes)]
    return '| ' + ' | '.join(cells) + ' |'


def write_page(folder: Path, page: Path) -> str:
    """Replace the part of ``page`` between the markers with the table of all results. Returns the counts."""
    results = [json.loads((folder / f'{name}.json').read_text()) for name in FAMILIES
               if (folder / f'{name}.json').exists()]
    counts = []
    groups = list(dict.fromkeys(group_of(result) for result in results))
    for group in sorted(groups, key=lambda name: name != 'bare stack'):
        members = [result for result in results if group_of(result) == group]
        counts.append(f'| {group} | {len(members)} | {sum(result["plain"] for result in members)} | '
                      f'{sum(map(passed, members))} |')
    counts.append(f'| **all** | {len(results)} | {sum(result["plain"] for result in results)} | '
                  f'**{sum(map(passed, results))}** |')
    missing = [name for name in FAMILIES if not (folder / f'{name}.json').exists()]
    stacks = sorted({', '.join(f'{name} {number}' for name, number in result['versions'].items())
                     for result in results if result['versions']})
    text = '\n'.join([
        f'Machine: {os.cpu_count()} cores of an {platform.machine()} CPU, no GPU; one thread a process. Stacks: '
        + '; '.join(stacks) + '.' + (f' Not run yet: {", ".join(missing)}.' if missing else ''), '',
        '| needs | families | trainable without us | pass with us |', '|---|---|---|---|', *counts, '',
        '| family | config | trains without us | step 0 | step 1 | inversion | old probabilities kept at growth | note '
        '|', '|---|---|---|---|---|---|---|---|', *map(row, results)
    ])
    replace_between(page, MARKS, text)
    return '\n'.join(counts)


def replace_between(page: Path, marks: tuple[str, str], text: str) -> None:
    """Replace the text between two markers."""
    before, _, rest = page.read_text().partition(marks[0])
    after = rest.partition(marks[1])[2]
    page.write_text(f'{before}{marks[0]}\n{text}\n{marks[1]}{after}')
