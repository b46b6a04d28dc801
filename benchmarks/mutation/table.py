"""Table of a Cosmic Ray session: mutants, killed and survived by module; with --survivors, the changes as well."""
from __future__ import annotations

import argparse
from collections import Counter

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('session', help='file that `cosmic-ray init` made')
    parser.add_argument('--survivors', action='store_true', help='show the changes that no test noticed')
    args = parser.parse_args()
    with use_db(args.session, WorkDB.Mode.open) as database:
        missing = len(database.pending_work_items)
        # What the filters left out has a result, too: that it was skipped.
        done = [(item.mutations[0], result) for item, result in database.completed_work_items
                if result.worker_outcome == WorkerOutcome.NORMAL]
    counts = Counter((spec.module_path.as_posix(), result.test_outcome) for spec, result in done)
    modules = sorted({module for module, _ in counts})
    print('| module | mutants | killed | survived | killed, share |\n|---|---|---|---|---|')
    for name, chosen in [*((module, [module]) for module in modules), ('all', modules)]:
        killed, survived = (sum(counts[module, outcome] for module in chosen)
                            for outcome in (TestOutcome.KILLED, TestOutcome.SURVIVED))
        print(f'| {name} | {killed + survived} | {killed} | {survived} | {killed / (killed + survived):.1%} |')
    if missing:
        print(f'\n{missing} mutants were not run.')
    if args.survivors:
        for _, result in sorted(done, key=lambda item: (item[0].module_path, item[0].start_pos)):
            if result.test_outcome == TestOutcome.SURVIVED:
                print(f'\n{result.diff}')


if __name__ == '__main__':
    main()
