"""A finished run of two small steps, and a copy that passes for another method's."""
import json
import shutil

import pytest

from mmseg_hrhf.analysis.results import read_run


@pytest.fixture(scope='session')
def work_dir(tiny_runs, tmp_path_factory):
    return shutil.copytree(tiny_runs / 'two', tmp_path_factory.mktemp('report') / 'work')


@pytest.fixture
def run(work_dir):
    return read_run(work_dir)


@pytest.fixture(scope='session')
def other_dir(work_dir):
    """The same files under the name FineTuning, two points better on every class, without fakes and confusion."""
    other = work_dir.parent / 'other'
    shutil.copytree(work_dir, other)
    shutil.rmtree(other / 'step_1' / 'fakes')
    (other / 'step_1' / 'confusion.csv').unlink()
    identity = json.loads((other / 'run.json').read_text())
    identity['method']['type'] = 'FineTuning'
    (other / 'run.json').write_text(json.dumps(identity))
    results = json.loads((other / 'results.json').read_text())
    for result in results['results']:
        result['num_fake_images'] = 0
        result['metrics'] = {name: value if value is None else value + 2 for name, value in result['metrics'].items()}
    (other / 'results.json').write_text(json.dumps(results))
    return other
