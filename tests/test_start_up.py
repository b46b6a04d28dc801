"""What is loaded when: ``--help`` loads nothing heavy, a config finds everything registered."""
import subprocess
import sys

import pytest

import mmseg_hrhf
from mmseg_hrhf import engine
from mmseg_hrhf.engine import runner

HEAVY = {'torch', 'numpy', 'mmengine', 'mmcv', 'mmseg', 'matplotlib', 'PIL', 'cv2', 'scipy', 'tqdm'}
EVERYTHING = '''
from mmengine.registry import HOOKS, LOOPS
from mmseg.registry import DATASETS, METRICS, MODELS, RUNNERS, TASK_UTILS
for registry, name in ((RUNNERS, 'IncrementalRunner'), (LOOPS, 'ResumableIterLoop'), (HOOKS, 'ResumeHook'),
                       (DATASETS, 'IncrementalDataset'), (DATASETS, 'RealFakeDataset'), (MODELS, 'HRHF'),
                       (TASK_UTILS, 'SegInversion'), (METRICS, 'IncrementalIoUMetric')):
    assert registry.get(name) is not None, name
'''


def run(repo, code, *arguments):
    """Standard output of Python code in a process of its own."""
    done = subprocess.run([sys.executable, '-c', code, *arguments], cwd=repo, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded(output):
    return set(output.splitlines()[-1].split())


@pytest.mark.parametrize('command', ['tools/train.py', 'tools/test.py', 'tools/report.py', 'tools/compare.py',
                                     'mmseg_hrhf train', 'mmseg_hrhf'])
def test_help_waits_for_nothing_heavy(repo, command):
    started, *arguments = command.split()
    start = 'run_path' if started.endswith('.py') else 'run_module'
    output = run(repo, f'import runpy, sys\ntry:\n    runpy.{start}("{started}", run_name="__main__")\n'
                 'except SystemExit as done:\n    assert not done.code\nprint(*sys.modules)', *arguments, '--help')
    assert 'usage:' in output
    assert 'runpy' in loaded(output) and not loaded(output) & HEAVY


@pytest.mark.parametrize('code', [
    'import mmengine\nimport mmseg_hrhf',
    'import mmseg_hrhf\nmmseg_hrhf.UserError',
    'import mmseg_hrhf\nfrom mmengine.config import Config\nConfig.fromfile("configs/hrhf/shapes_3-1.py")',
    'from mmseg_hrhf.config.load import load_config\nload_config("configs/_base_/models/fcn_small.py")',
], ids=['after mmengine', 'a name', 'our config', 'a config of the user'])
def test_everything_is_registered(repo, code):
    run(repo, code + EVERYTHING)


def test_names_are_those_of_their_modules():
    assert mmseg_hrhf.__getattr__('IncrementalRunner') is runner.IncrementalRunner
    assert mmseg_hrhf.__getattr__('engine') is engine and set(mmseg_hrhf.__all__) <= set(dir(mmseg_hrhf))


def test_the_package_alone_is_light(repo):
    output = run(repo, 'import sys, mmseg_hrhf\nassert mmseg_hrhf.__version__ and dir(mmseg_hrhf)\n'
                 'assert not hasattr(mmseg_hrhf, "nothing")\nprint(*sys.modules)')
    assert 'mmseg_hrhf' in loaded(output) and not loaded(output) & HEAVY
