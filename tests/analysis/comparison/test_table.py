import csv
import io
import json
import shutil
import statistics

import pytest

from mmseg_hrhf.analysis.comparison.cell import Cell
from mmseg_hrhf.analysis.comparison.comparison import plan_cells, write_tables
from mmseg_hrhf.analysis.comparison.runs import Run, _outcome
from mmseg_hrhf.analysis.comparison.table import collect, group_scores, markdown, statistics_of
from mmseg_hrhf.utils.io import read_json, write_json
from mmseg_hrhf.work_dir.layout import StepFiles

RESULT = dict(
    step=1,
    classes=['cat', 'dog', 'cow'],
    metrics={'IoU/background': 90.0, 'IoU/cat': 60.0, 'IoU/dog': 40.0, 'IoU/cow': 20.0})


def test_groups_are_means_of_class_ious():
    scores = group_scores(RESULT, [2, 1])
    assert scores['without background'] == {'1-2': 50.0, '3': 20.0, 'all': 40.0}
    # (90+60+40)/3, and (90+60+40+20)/4
    assert scores['with background'] == {'1-2': pytest.approx(190 / 3), '3': 20.0, 'all': 52.5}


def test_the_paper_s_own_numbers():
    # 15-5 overlapped, HRHF: 15 classes at 76.2 and 5 at 49.2 make 69.45 (Table 1).
    classes = [str(i) for i in range(20)]
    metrics = {f'IoU/{name}': 76.2 if i < 15 else 49.2 for i, name in enumerate(classes)}
    scores = group_scores(dict(classes=classes, metrics={**metrics, 'IoU/background': 0.0}), [15, 5])
    assert scores['without background'] == {
        '1-15': pytest.approx(76.2), '16-20': pytest.approx(49.2), 'all': pytest.approx(69.45)}


def test_a_class_without_pixels_is_left_out():
    result = dict(RESULT, metrics={**RESULT['metrics'], 'IoU/cow': None})
    scores = group_scores(result, [2, 1])['without background']
    assert scores['3'] is None
    assert scores['all'] == 50.0


def test_groups_by_step():
    # Table 7's 50-50: 1-50, 51-100, 101-150; Joint, which has no steps, gets those of its column.
    scores = group_scores(RESULT, [1, 1, 1])
    assert scores['without background'] == {'1': 60.0, '2': 40.0, '3': 20.0, 'all': 40.0}
    assert scores['with background'] == {'1': 75.0, '2': 40.0, '3': 20.0, 'all': 52.5}


def test_a_column_for_each_step_on_request(tmp_path):
    cells = plan_cells(tmp_path, ['FT', 'Joint'], [('1-1', 'overlapped')], [0])
    finished(cells[0], 60.0, num_steps=3, of=3)
    finished(cells[1], 66.0, num_steps=1, of=3, first=2)
    records = collect(cells, by_step=True)
    assert [list(record['scores']['without background']) for record in records] == [['1', '2', '3', 'all']] * 2
    assert records[1]['scores']['without background']['1'] == 66.0
    assert [list(record['scores']['without background']) for record in collect(cells)] == [['1-2', '3', 'all']] * 2


def finished(cell: Cell, value: float, num_steps: int = 2, of: int = 2, first: int = 0, processes: str = '1') -> None:
    results = []
    for step in range(first, first + num_steps):
        metrics = {**RESULT['metrics'], 'IoU/cat': value, 'mIoU_all': value, 'mIoU_old': value}
        results.append(dict(RESULT, step=step, metrics=metrics, new_classes=RESULT['classes'][step:step + 1],
                            environment=dict(processes=processes)))
    write_run(cell, results, of)


def write_run(cell: Cell, results: list, num_steps: int = 2) -> None:
    for result in results:
        write_json(StepFiles(cell.folder, result['step']).result, result)
    write_json(f'{cell.folder}/results.json', dict(results=results, num_steps=num_steps, num_base_classes=2))


@pytest.fixture
def cells(tmp_path):
    cells = plan_cells(tmp_path, ['FT', 'HRHF 1:2'], [('2-1', 'overlapped'), (None, 'disjoint')], [0, 1])
    for cell, value in zip((c for c in cells if c.method == 'FT' and c.task), (60.0, 66.0)):
        finished(cell, value)
    return cells


def test_mean_and_sample_deviation_over_seeds(cells):
    rows = statistics_of(collect(cells))
    row = next(row for row in rows if (row['background'], row['group']) == ('without background', '1-2'))
    # (60+40)/2 and (66+40)/2: 50 and 53
    assert row['mean'] == 51.5
    assert row['std'] == pytest.approx(2.1213203)
    assert row['values'] == [50.0, 53.0]


def test_what_is_not_finished_is_a_dash(cells):
    lines = markdown(collect(cells), cells, 'without background').splitlines()
    assert lines[0] == '| method | 2-1 overlapped: 1-2 | 2-1 overlapped: 3 | 2-1 overlapped: all | disjoint: all |'
    assert lines[2] == '| FT | 51.5 ± 2.1 | 20.0 ± 0.0 | 41.0 ± 1.4 | - |'
    assert lines[3] == '| HRHF 1:2 | - | - | - | - |'


def test_a_group_that_no_test_image_shows_is_a_gap(tmp_path):
    cell, = plan_cells(tmp_path, ['FT'], [('2-1', 'overlapped')], [0])
    finished(cell, None)
    assert _outcome(Run(cell)) == 'old -, all -'
    assert '| FT | 40.0 | 20.0 | 30.0 |' in write_tables(tmp_path, [cell], 'tiny')


@pytest.mark.parametrize('values', [(None, None), (60.0, None), (None, None, 60.0)])
def test_seeds_without_a_class_are_left_out(tmp_path, values):
    cells = plan_cells(tmp_path, ['FT'], [('2-1', 'overlapped')], range(len(values)))
    for cell, value in zip(cells, values):
        finished(cell, value)
    # Of the seeds that have no cat, dog alone (40) makes up the old classes.
    old = [40.0 if value is None else 50.0 for value in values]
    text = write_tables(tmp_path, cells, 'tiny')
    assert f'| FT | {statistics.mean(old):.1f} ± {statistics.stdev(old):.1f} | 20.0 ± 0.0 |' in text
    assert (tmp_path / 'curves.png').stat().st_size > 1000


def test_a_group_without_any_class_is_a_dash(tmp_path):
    cells = plan_cells(tmp_path, ['FT', 'Joint'], [('2-1', 'overlapped')], [0, 1])
    for cell in cells:
        finished(cell, 60.0, num_steps=1 + (cell.method == 'FT'), first=int(cell.method == 'Joint'))
        held = read_json(f'{cell.folder}/results.json')
        for result in held['results']:
            result['metrics'].update({'IoU/cow': None, 'IoU/background': None})
            result['metrics'].update(mIoU_all=None)
        write_run(cell, held['results'])
    text = write_tables(tmp_path, cells, 'tiny')
    assert '| FT | 50.0 ± 0.0 | - | 50.0 ± 0.0 |' in text and '| Joint | 50.0 ± 0.0 | - | 50.0 ± 0.0 |' in text
    assert 'nan' not in text.lower()
    assert not [row for row in json.loads((tmp_path / 'table.json').read_text())['cells'] if row['group'] == '3']


def test_a_run_with_missing_steps_is_not_finished(tmp_path):
    cell = Cell(str(tmp_path), 'FT', None, 'overlapped', 0)
    assert cell.results() is None
    finished(cell, 50.0, num_steps=1)
    assert cell.results() is None


def test_a_step_that_is_deleted_or_measured_again_is_not_shown_by_its_old_figures(tmp_path):
    deleted, measured, failed = cells = plan_cells(tmp_path, ['FT'], [('2-1', 'overlapped')], [0, 1, 2])
    for cell in cells:
        finished(cell, 50.0)
    assert [cell.results() is None for cell in cells] == [False] * 3
    shutil.rmtree(StepFiles(deleted.folder, 1).folder)
    write_json(StepFiles(measured.folder, 0).result, dict(RESULT, step=0))
    assert [cell.results() is None for cell in cells] == [True, True, False] and not Run(deleted).is_done()
    assert '1 of 3 runs finished' in write_tables(tmp_path, cells, 'tiny')
    assert '| FT | - |' in write_tables(tmp_path, cells, 'tiny', failed={failed})


def test_the_files_agree(cells, tmp_path):
    text = write_tables(tmp_path, cells, 'tiny')
    assert '2 of 8 runs finished' in text
    assert (tmp_path / 'table.md').read_text() == text
    held = json.loads((tmp_path / 'table.json').read_text())
    rows = list(csv.DictReader(io.StringIO((tmp_path / 'table.csv').read_text())))
    assert [(row['method'], row['group'], float(row['mean'])) for row in rows] == [
        (row['method'], row['group'], row['mean']) for row in held['cells']]
    assert [[float(value) for value in row['values'].split()] for row in rows] == [
        [round(value, 2) for value in row['values']] for row in held['cells']]
    assert (tmp_path / 'curves.png').stat().st_size > 1000


def test_a_table_of_unequal_batches_says_so(cells, tmp_path):
    assert 'Batch sizes differ' not in write_tables(tmp_path, cells, 'tiny')
    finished(cells[-1], 60.0, processes='8')
    warning = ('**Batch sizes differ** (batch size per process x number of processes): 1 processes: 2 runs, '
               'such as FT, 2-1 overlapped, seed 0; 8 processes: 1 runs, such as HRHF 1:2, disjoint, seed 1.')
    assert warning in write_tables(tmp_path, cells, 'tiny')
