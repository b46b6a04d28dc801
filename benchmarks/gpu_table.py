"""Write the section "On a GPU" of docs/performance.md, between its two comments, from results of gpu_check.py.

    python benchmarks/gpu_table.py [docs/tables/gpu_check.json]
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Iterable, Optional, Sequence

REPO = Path(__file__).parents[1]
PAGE, RESULTS = REPO / 'docs/performance.md', REPO / 'docs/tables/gpu_check.json'
BEGIN, END = '<!-- gpu: made by benchmarks/gpu_table.py -->\n', '<!-- gpu: end -->\n'
NOT_YET = ('No GPU has been measured yet. `benchmarks/gpu_check.py` measures one in ten minutes (see '
           '`benchmarks/notes/gpu_check.md`), and `benchmarks/gpu_table.py` writes its figures here.\n')


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f'| {" | ".join(header)} |', '|' + '---|' * len(header)]
    return '\n'.join([*lines, *(f'| {" | ".join(row)} |' for row in rows)]) + '\n'


def number(value: float) -> str:
    return f'{value:.3g}' if abs(value) < 1000 else f'{value:.0f}'


def bar(row: dict) -> tuple[str, str]:
    """The bar of a figure, and whether the figure meets it."""
    if row['at_most'] is not None:
        return f'≤ {row["at_most"]:g}', 'yes' if row['value'] <= row['at_most'] else '**no**'
    if row['at_least'] is not None:
        return f'≥ {row["at_least"]:g}', 'yes' if row['value'] >= row['at_least'] else '**no**'
    return '', ''


def figure(row: dict) -> str:
    spread = '' if row['rounds'] == 1 else f' ({number(row["low"])} to {number(row["high"])})'
    return number(row['value']) + spread


def worst(checks: list[dict]) -> str:
    """Number of passed checks, and the check closest to its bound or furthest beyond it."""
    if not checks:
        return ''
    closest = max(checks, key=lambda each: each['value'] / each['at_most'] if each['at_most'] else each['value'])
    return (f'{sum(each["holds"] for each in checks)} of {len(checks)} hold; closest: {closest["what"]}, '
            f'{number(closest["value"])} (at most {number(closest["at_most"])})')


def remark(record: dict) -> str:
    """The last line of an error, a reason, or a summary of the checks."""
    result = record.get('result', {})
    said = (record.get('reason') or record.get('error') or result.get('refused') or '').strip().splitlines()
    return (said[-1] if said else worst(result.get('checks', []))).replace('|', '\\|')


def machine(held: dict, device: Optional[dict]) -> str:
    """Description of the measured machine."""
    kind = ' Small networks: to see that all runs, no figures.' if held['tiny'] else ''
    if device is None:
        return f'Measured on an unnamed {held["device"]} device.{kind}\n'
    figures = device['figures']
    versions = ', '.join(f'{name} {value}' for name, value in figures['environment'].items()
                         if name in ('Python', 'torch') or name.startswith(('mm', 'onedl')))
    memory = f', {figures["memory_gib"]:.0f} GiB' if 'memory_gib' in figures else ''
    rates = ', '.join(f'{precision} {number(rate)}' for precision, rate in device['teraflops_of_products'].items())
    commit = f' at commit {figures["commit"]}' if figures['commit'] else ''
    return (f'Measured{commit} on {figures.get("name", held["device"])}{memory}, {figures["cpu_cores"]} cores; '
            f'{versions}. A product of matrices runs at (TFLOP/s): {rates}.{kind}\n')


def section(held: Optional[dict]) -> str:
    """Markdown of the section; one sentence if there are no results."""
    if held is None:
        return NOT_YET
    parts = held['parts']
    results = {name: record['result'] for name, record in parts.items() if 'result' in record}
    blocks = [machine(held, results.get('device')), markdown(
        ('part', 'outcome', 'seconds', 'remark'),
        ((name, record['status'] if record['status'] == 'passed' else f'**{record["status"]}**',
          number(record.get('seconds', 0)), remark(record)) for name, record in parts.items()))]
    rows = [row for result in results.values() for row in result.get('rows', ())]
    if rows:
        blocks.append(markdown(('figure', 'bar', 'value (quartiles)', 'holds'),
                               ((row['what'], bar(row)[0], figure(row), bar(row)[1]) for row in rows)))
    faster = {name: result['faster'] for name, result in results.items() if 'faster' in result}
    if faster:
        blocks.append('Faster losses in a whole step: '
                      + '; '.join(f'{name.split(", ", 1)[1]}: {kind}' for name, kind in faster.items()) + '.\n')
    if 'memory' in results:
        largest, unit = results['memory']['largest_batch'], results['memory']['unit']
        limits = list(next(iter(largest.values())))
        blocks.append(markdown(
            ('largest batch in training, HRHF', *(f'{limit} {"GiB" if unit == 2**30 else "MiB"}' for limit in limits)),
            ((precision, *(str(each[limit]) for limit in limits)) for precision, each in largest.items())))
    if 'minutes' in results.get('estimate', {}):
        minutes = results['estimate']['minutes']
        names = list(next(iter(minutes.values())))
        blocks.append(f'{results["estimate"]["run"]} in minutes, extrapolated from these figures:\n\n' + markdown(
            ('precision, synthesis', *names),
            ((name, *(number(each[key]) for key in names)) for name, each in minutes.items())))
    return '\n'.join(blocks)


def replaced(page: str, text: str) -> str:
    """The page with ``text`` between its comments.

    Raises:
        ValueError: the page does not have them.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f'The page must hold {BEGIN.strip()} and then {END.strip()}, each once.')
    before, rest = page.split(BEGIN)
    return f'{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}'


def main():
    from gpu.parts import read
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('results', nargs='?', type=Path, default=RESULTS, metavar='FILE',
                        help='of gpu_check.py; where there is none, the page says so')
    parser.add_argument('--page', type=Path, default=PAGE, metavar='FILE')
    args = parser.parse_args()
    held = read(args.results) if args.results.exists() else None
    args.page.write_text(replaced(args.page.read_text(), section(held)))


if __name__ == '__main__':
    sys.exit(main())
