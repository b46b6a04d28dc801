"""The toolbox from a folder of wheels, on a machine without a network."""
from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

# On the machine before anything is carried to it, with what they need themselves.
PROVIDED = ('torch', 'numpy')
# What the toolbox's wheels ask for, and what is carried in its place. None: a stand-in without functions, since the
# real one is too large and nothing that is measured calls it.
REPLACED = {'opencv-python': 'opencv-python-headless', 'scipy': None}
# What mmseg imports from SciPy as it is imported itself.
SCIPY = {'ndimage': ('gaussian_filter', 'distance_transform_edt'), 'optimize': ('linear_sum_assignment', ),
         'interpolate': ()}
STAND_IN = '''
def {name}(*args, **kwargs):
    raise ImportError('scipy.{module}.{name} was called, but SciPy is a stand-in here: install it.')
'''


def canonical(name: str) -> str:
    """A project's name as PEP 503 normalises it."""
    return re.sub(r'[-_.]+', '-', name).lower()


def project(wheel: Path) -> str:
    """Canonical name of the project that a wheel is of."""
    return canonical(wheel.name.split('-')[0])


def is_installed(name: str) -> bool:
    """Whether a distribution, or one that stands for it, is installed."""
    for each in {name, *(asked for asked, carried in REPLACED.items() if carried == name)}:
        try:
            metadata.version(each)
        except metadata.PackageNotFoundError:
            continue
        return True
    return False


def write_scipy(folder: Path) -> None:
    """A ``scipy`` that can be imported and raises where it is called."""
    package = folder / 'scipy'
    package.mkdir(parents=True, exist_ok=True)
    (package / '__init__.py').write_text('"""Stands in for SciPy."""\n')
    for module, names in SCIPY.items():
        text = ''.join(STAND_IN.format(module=module, name=name) for name in names)
        (package / f'{module}.py').write_text(text.lstrip('\n'))


def install(wheels: Path, folder: Path) -> list[str]:
    """Install into ``folder`` what of ``wheels`` this Python lacks. Returns the names; none if it was done before.

    Raises:
        ValueError: there are no wheels, or pip cannot install one.
    """
    found = sorted(wheels.glob('*.whl'))
    if not found:
        raise ValueError(f'mmseg is not installed, and {wheels} holds no wheels: fill it with benchmarks/gpu_wheels.py '
                         'where there is a network, carry it along and name it by --wheels.')
    done = folder / '.complete'
    if done.exists():
        return []
    missing = [wheel for wheel in found if not is_installed(project(wheel))]
    command = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-index', '--no-deps', '--no-compile',
               '--no-cache-dir', '--disable-pip-version-check', '--find-links', str(wheels), '--upgrade', '--target',
               str(folder), *map(str, missing)]
    finished = subprocess.run(command, capture_output=True, text=True) if missing else None
    if finished is not None and finished.returncode:
        raise ValueError(f'pip cannot install the wheels of {wheels}: {finished.stderr.strip()[-2000:]}')
    if importlib.util.find_spec('scipy') is None:
        write_scipy(folder)
    done.parent.mkdir(parents=True, exist_ok=True)
    done.touch()
    return [project(wheel) for wheel in missing]


def use(*folders: Path) -> None:
    """Let this process and those that it starts import from ``folders``, the first before the others."""
    for folder in reversed(folders):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    held = os.environ.get('PYTHONPATH', '').split(os.pathsep)
    new = [str(folder) for folder in folders if str(folder) not in held]
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [*new, *held]))
