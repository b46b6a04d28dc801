"""Collect the wheels for benchmarks/gpu_check.py on a machine with Python 3.12, torch and numpy but no network.

    python benchmarks/gpu_wheels.py --out .wheels             # download, pack and check
    python benchmarks/gpu_wheels.py --out .wheels --check     # only check that they are complete and small enough

Large wheels are recompressed with LZMA, which pip supports: OpenCV's shrinks from 48 to 30 MiB. Packages released only
as source (two pure Python packages of the toolbox) are built. Prints a table; exits with 1 if a wheel is missing or the
total size, including the source tree, exceeds the limit.
"""
from __future__ import annotations

import argparse
import email
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from gpu.offline import PROVIDED, REPLACED, canonical, project
from packaging.requirements import Requirement
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

REPO = Path(__file__).parents[1]
LIMIT = 64 * 2**20
PYTHON = '3.12'
PLATFORMS = ('manylinux_2_28_x86_64', 'manylinux_2_27_x86_64', 'manylinux_2_17_x86_64', 'manylinux2014_x86_64')
WANTED = ('onedl-mmengine==0.10.12', 'onedl-mmcv==2.3.6', 'onedl-mmsegmentation==1.4.2', 'Pillow>=9.1', 'tqdm>=4.60',
          'matplotlib>=3.5', 'Jinja2>=3.0',
          # The last version with a small wheel built for numpy 2.
          'opencv-python-headless==4.11.0.86')
# Released only as source.
BUILT = ('onedl-mmcv', 'onedl-mmsegmentation')
# Their wheels with compiled parts are several times larger, and their speed is not needed.
PURE = ('fonttools', 'wcwidth')
# Larger wheels are recompressed.
REPACKED_FROM = 2**20
ENVIRONMENT = dict(python_version=PYTHON, python_full_version=f'{PYTHON}.0', sys_platform='linux', os_name='posix',
                   platform_system='Linux', platform_machine='x86_64', implementation_name='cpython',
                   platform_python_implementation='CPython', extra='')


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=REPO / '.wheels', metavar='DIR')
    parser.add_argument('--check', action='store_true', help='download nothing')
    return parser.parse_args()


def needs(wheel: Path) -> list[Requirement]:
    """Requirements of a wheel on that machine, with replacements by ``REPLACED``, without installed packages."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith('.dist-info/METADATA'))
        declared = email.message_from_bytes(archive.read(name)).get_all('Requires-Dist') or []
    found = []
    for requirement in map(Requirement, declared):
        if requirement.marker is not None and not requirement.marker.evaluate(ENVIRONMENT):
            continue
        name = canonical(requirement.name)
        if name in PROVIDED or REPLACED.get(name, name) is None:
            continue
        found.append(requirement if name not in REPLACED else Requirement(REPLACED[name]))
    return found


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, '-m', 'pip', *arguments], check=True)


def fetch(requirements: list[Requirement], folder: Path) -> None:
    """Download or build wheels for that machine, without their dependencies."""
    groups: dict[str, list[str]] = dict(built=[], pure=[], compiled=[])
    for requirement in requirements:
        name = canonical(requirement.name)
        groups['built' if name in BUILT else 'pure' if name in PURE else 'compiled'].append(str(requirement))
    foreign = ['download', '--quiet', '--no-deps', '--only-binary=:all:', '--python-version', PYTHON,
               '--implementation', 'cp', '--dest', str(folder)]
    if groups['built']:
        pip('wheel', '--quiet', '--no-deps', '--wheel-dir', str(folder), *groups['built'])
    if groups['pure']:
        pip(*foreign, '--platform', 'any', *groups['pure'])
    if groups['compiled']:
        pip(*foreign, *(f'--platform={platform}' for platform in PLATFORMS), *groups['compiled'])


def repack(wheel: Path) -> None:
    """Recompress a wheel with LZMA; names, contents and modes are unchanged."""
    packed = wheel.with_suffix('.packing')
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(packed, 'w') as new:
        for item in old.infolist():
            new.writestr(item, old.read(item), compress_type=zipfile.ZIP_LZMA)
    packed.replace(wheel)


def download(folder: Path) -> None:
    """Download ``WANTED`` and its dependencies into ``folder``: each round fetches the requirements of the last."""
    wanted, have = list(map(Requirement, WANTED)), {project(wheel) for wheel in folder.glob('*.whl')}
    while True:
        missing = {canonical(each.name): each for each in wanted if canonical(each.name) not in have}
        if not missing:
            return
        with tempfile.TemporaryDirectory(dir=folder) as fresh:
            fetch(list(missing.values()), Path(fresh))
            for wheel in Path(fresh).glob('*.whl'):
                if wheel.stat().st_size >= REPACKED_FROM:
                    repack(wheel)
                wheel.rename(folder / wheel.name)
        have = {project(wheel) for wheel in folder.glob('*.whl')}
        wanted = [each for wheel in folder.glob('*.whl') for each in needs(wheel)]


def unmet(folder: Path) -> list[str]:
    """One line per requirement that no wheel in ``folder`` meets, and per wheel that the machine cannot install."""
    wheels = sorted(folder.glob('*.whl'))
    versions = {project(wheel): parse_wheel_filename(wheel.name)[1] for wheel in wheels}
    number = tuple(map(int, PYTHON.split('.')))
    tags = {*cpython_tags(number, platforms=PLATFORMS), *compatible_tags(number, platforms=PLATFORMS)}
    lines = [f'{wheel.name} is not for Python {PYTHON} on {PLATFORMS[0]}' for wheel in wheels
             if tags.isdisjoint(parse_wheel_filename(wheel.name)[3])]
    asked = [(Requirement(each), 'benchmarks/gpu_check.py') for each in WANTED]
    for requirement, by in asked + [(each, wheel.name) for wheel in wheels for each in needs(wheel)]:
        version = versions.get(canonical(requirement.name))
        if version is None:
            lines.append(f'{requirement}, needed by {by}, is not there')
        elif not requirement.specifier.contains(version, prereleases=True):
            lines.append(f'{requirement}, needed by {by}, is there as {version}')
    return lines


def source_bytes(root: Path = REPO) -> int:
    """Total bytes of the files tracked by git."""
    names = subprocess.run(['git', 'ls-files', '-z'], cwd=root, check=True, capture_output=True, text=True).stdout
    return sum((root / name).stat().st_size for name in names.split('\0') if name and (root / name).is_file())


def report(folder: Path, source: int) -> tuple[str, bool]:
    """A table of sizes followed by the problems, and whether there are none."""
    sizes = {wheel.name: wheel.stat().st_size for wheel in folder.glob('*.whl')}
    lines = [f'{size / 2**20:7.2f} MiB  {name}' for name, size in sorted(sizes.items(), key=lambda item: -item[1])]
    total, wrong = sum(sizes.values()) + source, unmet(folder)
    lines += [f'{source / 2**20:7.2f} MiB  the source', f'{total / 2**20:7.2f} MiB  in all']
    if total > LIMIT:
        wrong.append(f'more than the {LIMIT / 2**20:.0f} MiB that may be carried')
    return '\n'.join([*lines, *wrong, 'All requirements are met.' if not wrong else '']).rstrip() + '\n', not wrong


def main():
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.check:
        download(args.out)
    text, well = report(args.out, source_bytes())
    print(text, end='')
    return 0 if well else 1


if __name__ == '__main__':
    sys.exit(main())
