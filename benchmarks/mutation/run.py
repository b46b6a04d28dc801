"""Run the mutants of a Cosmic Ray session, each in a process forked from one that has the toolbox imported.

Importing the toolbox takes longer than most tests. No file is changed: the mutated source is what the forked process
imports in the module's place.
"""
from __future__ import annotations

import argparse
import contextlib
import difflib
import gc
import importlib.machinery
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple, Optional

import cosmic_ray.plugins
import hypothesis
import mmcv.transforms  # noqa: F401
import mmengine.runner  # noqa: F401
import mmseg.apis
import mmseg.engine  # noqa: F401
import PIL.Image  # noqa: F401
import pytest
import toml
from cosmic_ray.mutating import mutate_code
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult

REPO = Path(__file__).resolve().parents[2]
_MEMORY = 16 << 30
_NOT_IMPORTED = 99


class Outcome(NamedTuple):
    """Exit status of the tests (None: killed by the timeout), their output, and the seconds they took."""
    status: Optional[int]
    output: str
    seconds: float


def run_tests(tests: list[str], timeout: float, mutated: Optional[tuple[Path, str]] = None) -> Outcome:
    """Run tests in a forked process until one fails.

    Args:
        tests: arguments of pytest.
        timeout: seconds.
        mutated: a module's file, and the source to import in its place.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / 'output'
        pid = os.fork()
        if pid == 0:
            _tests_in_child(tests, folder, output, mutated)
        status = _wait(pid, began + timeout)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # what a test left running
        return Outcome(status, output.read_text(errors='replace'), time.monotonic() - began)


def _tests_in_child(tests: list[str], folder: str, output: Path, mutated: Optional[tuple[Path, str]]) -> None:
    status = 1
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        with open(output, 'wb') as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        imported = [] if mutated is None else _import_instead(*mutated)
        # Hypothesis is imported before pytest could rewrite its assertions.
        status = int(pytest.main(['-x', '-q', '--tb=line', '--no-header', '-p', 'no:cacheprovider', '-n', '0',
                                  '-W', 'ignore::pytest.PytestAssertRewriteWarning',
                                  f'--basetemp={folder}/tests', *tests]))
        if status == 0 and mutated is not None and not imported:
            status = _NOT_IMPORTED
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _import_instead(path: Path, source: str) -> list[str]:
    """Have ``source`` imported in the place of a file. The list that is returned gets the module's name then."""
    own, imported = importlib.machinery.SourceFileLoader.get_code, []

    def get_code(loader, name):
        if loader.path != str(path):
            return own(loader, name)
        imported.append(name)
        return compile(source, str(path), 'exec', dont_inherit=True)

    importlib.machinery.SourceFileLoader.get_code = get_code
    return imported


def _wait(pid: int, deadline: float) -> Optional[int]:
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def tests_of(module: str, table: dict[str, list[str]]) -> list[str]:
    """Tests of the longest path in ``table`` that ``module`` begins with."""
    return table[max((path for path in table if module.startswith(path)), key=len)]


def run(database: WorkDB, table: dict[str, list[str]], only: str, sample: Optional[int], survivors: bool) -> None:
    """Test every mutant without a result, or those that survived, in the modules whose path begins with ``only``.

    Args:
        sample: mutants of each module to have results of, drawn at random; None: all.
    """
    results = {item.job_id: result for item, result in database.completed_work_items}
    modules: dict[str, list] = {}
    for item in database.work_items:
        module = item.mutations[0].module_path.as_posix()
        if module.startswith(only):
            modules.setdefault(module, []).append(item)
    pending = {}
    for module, items in modules.items():
        outcomes = (TestOutcome.SURVIVED, ) if survivors else (None, )
        drawn = [item for item in _shuffled(items) if not _skipped(results.get(item.job_id))][:sample]
        chosen = [item for item in drawn if getattr(results.get(item.job_id), 'test_outcome', None) in outcomes]
        if chosen:
            pending[module] = chosen
    for module, items in sorted(pending.items()):
        tests = tests_of(module, table)
        whole = run_tests(tests, timeout=600)
        if whole.status != 0:
            raise SystemExit(f'{" ".join(tests)} fail without a mutation:\n{whole.output}')
        print(f'{module}: {len(items)} mutants, {whole.seconds:.1f} s for {" ".join(tests)}', flush=True)
        source = Path(module).read_text(encoding='utf-8')
        for item in items:
            _test(database, item, module, source, tests, timeout=10 + 4 * whole.seconds)


def _shuffled(items: list) -> list:
    """In an order that is the same in every session, so that a part of a module's mutants is a random sample."""
    ordered = sorted(items, key=lambda item: (item.mutations[0].operator_name, str(item.mutations[0].operator_args),
                                              item.mutations[0].occurrence))
    random.Random(0).shuffle(ordered)
    return ordered


def _skipped(result: Optional[WorkResult]) -> bool:
    return result is not None and result.worker_outcome != WorkerOutcome.NORMAL


def _test(database: WorkDB, item, module: str, source: str, tests: list[str], timeout: float) -> None:
    spec = item.mutations[0]
    operator = cosmic_ray.plugins.get_operator(spec.operator_name)(**spec.operator_args)
    try:
        mutated = mutate_code(source, operator, spec.occurrence)
    except AttributeError:  # Cosmic Ray 8.7 trips over `except module.Error`
        database.set_result(item.job_id, WorkResult(WorkerOutcome.SKIPPED))
        return
    diff = '\n'.join(difflib.unified_diff(source.splitlines(), mutated.splitlines(), module, module, 'own', 'mutated',
                                          n=0, lineterm=''))
    done = run_tests(tests, timeout, (REPO / module, mutated))
    if done.status == _NOT_IMPORTED:
        raise SystemExit(f'{" ".join(tests)} do not import {module}.')
    outcome = TestOutcome.SURVIVED if done.status == 0 else TestOutcome.KILLED
    output = done.output if done.status is not None else f'{done.output}\ntimeout'
    database.set_result(item.job_id, WorkResult(WorkerOutcome.NORMAL, output[-2000:], outcome, diff))
    if outcome == TestOutcome.SURVIVED:
        print(diff, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('session', help='file that `cosmic-ray init` made')
    parser.add_argument('--survivors', action='store_true', help='test again what survived, after tests were added')
    parser.add_argument('--only', default='', metavar='PATH', help='modules whose path begins with this')
    parser.add_argument('--sample', type=int, metavar='N', help='of each module, N mutants drawn at random')
    args = parser.parse_args()
    os.chdir(REPO)
    # A failing example need not be made small, nor kept for the next mutant.
    hypothesis.settings.register_profile('mutants', database=None, phases=[hypothesis.Phase.explicit,
                                                                           hypothesis.Phase.generate])
    hypothesis.settings.load_profile('mutants')
    # pytest collects garbage five times as it ends; what is imported need not be gone through.
    gc.collect()
    gc.freeze()
    table = toml.load(Path(__file__).with_name('cosmic_ray.toml'))['tests']
    with use_db(args.session, WorkDB.Mode.open) as database:
        run(database, table, args.only, args.sample, args.survivors)


if __name__ == '__main__':
    main()
