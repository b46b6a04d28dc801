"""The order of the rooms (pyproject.toml), and the size of the house."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MOST_AT_THE_TOP, MOST_MODULES, MOST_LINES = 10, 90, 300


def lint_imports(folder: Path) -> subprocess.CompletedProcess:
    """Check the package in ``folder`` by the contracts of the ``pyproject.toml`` there."""
    code = 'from importlinter.cli import lint_imports_command; lint_imports_command()'
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get('PYTHONPATH')])])
    return subprocess.run([sys.executable, '-c', code, '--no-cache'], cwd=folder, capture_output=True, text=True,
                          env=dict(os.environ, PYTHONPATH=path))


def modules(repo: Path) -> list:
    return [path for path in (repo / 'mmseg_hrhf').rglob('*.py') if path.name != '__init__.py']


def test_modules_import_in_one_direction(repo):
    done = lint_imports(repo)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ' 0 broken' in done.stdout


@pytest.mark.parametrize('module, imported, contract, told', [
    ('evaluation/summary.py', 'from ..engine.runner import IncrementalRunner', 'Rooms',
     'mmseg_hrhf.evaluation is not allowed to import mmseg_hrhf.engine'),
    ('models/losses/upsampling.py', 'from ..heads import predicted_logits', 'Models',
     'mmseg_hrhf.models.losses is not allowed to import mmseg_hrhf.models.heads'),
    ('replay/inversion/pixels.py', 'def late():\n    from ..buffer import FakeImageBuffer', 'Replay',
     'mmseg_hrhf.replay.inversion is not allowed to import mmseg_hrhf.replay.buffer'),
    ('new_room/__init__.py', '', 'Rooms', 'new_room'),
])
def test_a_forbidden_import_is_found(repo, tmp_path, module, imported, contract, told):
    shutil.copytree(repo / 'mmseg_hrhf', tmp_path / 'mmseg_hrhf', ignore=shutil.ignore_patterns('__pycache__'))
    shutil.copy(repo / 'pyproject.toml', tmp_path)
    path = tmp_path / 'mmseg_hrhf' / module
    path.parent.mkdir(exist_ok=True)
    with open(path, 'a') as file:
        file.write(f'\n{imported}\n')
    done = lint_imports(tmp_path)
    text = ' '.join(done.stdout.split())
    assert done.returncode == 1 and f'{contract} BROKEN' in text and told in text, done.stdout + done.stderr


def test_the_package_has_few_rooms(repo):
    aside = {'__init__.py', '__main__.py', 'version.py', 'py.typed', '__pycache__'}
    top = sorted({path.name for path in (repo / 'mmseg_hrhf').iterdir()} - aside)
    assert 0 < len(top) <= MOST_AT_THE_TOP, top


def test_modules_are_few_and_short(repo):
    lines = {str(path.relative_to(repo)): len(path.read_text(encoding='utf-8').splitlines()) for path in modules(repo)}
    assert 0 < len(lines) <= MOST_MODULES, len(lines)
    assert {name: number for name, number in lines.items() if number > MOST_LINES} == {}
