import json
import shutil

import pytest

from mmseg_hrhf.analysis.results import find_runs, method_name, read_run


def test_a_run_as_its_work_dir_tells_it(run):
    assert (run.method, run.column, run.seed) == ('HRHF', '2-1 overlapped', 0)
    assert run.classes == ('background', 'red', 'green', 'blue') and run.palette()[1] == [220, 60, 60]
    assert (run.num_steps, run.num_base, run.is_complete) == (2, 2, True)
    assert run.scores()['without background']['1-2'] == pytest.approx(run.last['metrics']['mIoU_old'])
    assert run.last['environment']['processes'] == '1'


def test_runs_below_a_folder_and_by_name(work_dir, other_dir):
    found = find_runs([str(work_dir.parent)])
    assert sorted(run.method for run in found) == ['FT', 'HRHF']
    assert [run.method for run in find_runs([f'ours={work_dir}', str(other_dir)])] == ['ours', 'FT']


def test_runs_of_one_name_are_told_apart_by_their_folders(work_dir, tmp_path):
    shutil.copytree(work_dir, tmp_path / 'again', ignore=shutil.ignore_patterns('train'))
    found = find_runs([str(work_dir), str(tmp_path / 'again')])
    assert [run.method for run in found] == ['HRHF (work)', 'HRHF (again)']
    # Another seed is no clash.
    results = json.loads((tmp_path / 'again' / 'results.json').read_text())
    for result in results['results']:
        result['seed'] = 1
    (tmp_path / 'again' / 'results.json').write_text(json.dumps(results))
    assert {run.method for run in find_runs([str(work_dir), str(tmp_path / 'again')])} == {'HRHF'}


def test_what_holds_no_run_is_named(work_dir, tmp_path):
    with pytest.raises(ValueError, match='contains no finished run, nor do its subfolders'):
        find_runs([str(tmp_path)])
    with pytest.raises(ValueError, match='contains no finished step of a run'):
        read_run(tmp_path)
    with pytest.raises(ValueError, match='given more than once'):
        find_runs([str(work_dir), str(work_dir)])


@pytest.mark.parametrize('identity, name', [
    (dict(method=dict(type='FineTuning')), 'FT'),
    (dict(method=dict(type='LwFMC'), replay=None), 'LwF-MC'),
    (dict(method=dict(type='HRHF'), replay=None), 'HRHF without fakes'),
    (dict(method=dict(type='HRHF'), replay=dict(inversion=dict(type='GaussianNoise'))), 'HRHF with noise'),
    (dict(method=dict(type='HRHF'), replay=dict(inversion=dict(type='SegInversion'))), 'HRHF'),
])
def test_names_of_methods(identity, name):
    assert method_name(identity) == name
