"""Table of Cosmic Ray sessions: mutants, killed and survived by module; with --survivors, the changes as well."""
from __future__ import annotations

import argparse
from collections import Counter

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('sessions', nargs='+', metavar='SESSION[=COMMIT]',
                        help='files that `cosmic-ray init` made, and the commits they were run at; a module that is in '
                        'several counts in the last of them')
    parser.add_argument('--survivors', action='store_true', help='show the changes that no test noticed')
    args = parser.parse_args()
    modules: dict[str, tuple[str, list]] = {}
    for argument in args.sessions:
        path, _, commit = argument.partition('=')
        modules.update({module: (commit, results) for module, results in _results(path).items()})
    print('| module | commit | mutants | run | killed | survived | killed, share |\n|---|---|---|---|---|---|---|')
    total: Counter = Counter()
    for module, (commit, results) in sorted(modules.items()):
        counts = Counter(_outcome(result) for result in results)
        print(_row(module, commit, counts))
        total += counts
    print(_row('all', '', total))
    if args.survivors:
        for _, results in modules.values():
            for result in results:
                if _outcome(result) == TestOutcome.SURVIVED:
                    print(f'\n{result.diff}')


def _results(session: str) -> dict[str, list]:
    """Results of each module of which a mutant was run, in the order of its lines; None for a mutant not run."""
    with use_db(session, WorkDB.Mode.open) as database:
        results = {item.job_id: result for item, result in database.completed_work_items}
        items = sorted(database.work_items, key=lambda item: item.mutations[0].start_pos)
    modules: dict[str, list] = {}
    for item in items:
        result = results.get(item.job_id)
        # What the filters left out has a result, too: that it was skipped.
        if result is None or result.worker_outcome == WorkerOutcome.NORMAL:
            modules.setdefault(item.mutations[0].module_path.as_posix(), []).append(result)
    return {module: found for module, found in modules.items() if any(found)}


def _outcome(result):
    return None if result is None else result.test_outcome


def _row(module: str, commit: str, counts: Counter) -> str:
    killed, survived = counts[TestOutcome.KILLED], counts[TestOutcome.SURVIVED]
    run = killed + survived
    return f'| {module} | {commit} | {run + counts[None]} | {run} | {killed} | {survived} | {killed / run:.1%} |'


if __name__ == '__main__':
    main()
