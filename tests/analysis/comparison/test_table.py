import csv
import io
import json
import re
import shutil
import statistics
import subprocess
import sys
from typing import Optional

import pytest

from mmseg_hrhf.analysis.comparison.cell import Cell
from mmseg_hrhf.analysis.comparison.comparison import plan_cells, write_tables
from mmseg_hrhf.analysis.comparison.runs import Run, _outcome
from mmseg_hrhf.analysis.comparison.table import (
    BACKGROUND,
    PUBLISHED,
    collect,
    group_scores,
    markdown,
    protocol_note,
    published_markdown,
    published_tables,
    read_published,
    statistics_of,
)
from mmseg_hrhf.scenario import SETTINGS
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
    assert scores['with background'] == {'0-2': pytest.approx(190 / 3), '3': 20.0, 'all, with background': 52.5}


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
    assert scores['with background'] == {'0-1': 75.0, '2': 40.0, '3': 20.0, 'all, with background': 52.5}


def test_a_column_for_each_step_on_request(tmp_path):
    cells = plan_cells(tmp_path, ['FT', 'Joint'], [('1-1', 'overlapped')], [0])
    finished(cells[0], 60.0, num_steps=3, of=3)
    finished(cells[1], 66.0, num_steps=1, of=3, first=2)
    records = collect(cells, by_step=True)
    assert [list(record['scores']['without background']) for record in records] == [['1', '2', '3', 'all']] * 2
    assert records[1]['scores']['without background']['1'] == 66.0
    assert [list(record['scores']['without background']) for record in collect(cells)] == [['1-2', '3', 'all']] * 2


def finished(cell: Cell, value: float, num_steps: int = 2, of: int = 2, first: int = 0, processes: str = '1',
             scenario: Optional[dict] = None) -> None:
    results = []
    for step in range(first, first + num_steps):
        metrics = {**RESULT['metrics'], 'IoU/cat': value, 'mIoU_all': value, 'mIoU_old': value}
        results.append(dict(RESULT, step=step, metrics=metrics, new_classes=RESULT['classes'][step:step + 1],
                            environment=dict(processes=processes)))
    write_run(cell, results, of)
    write_json(f'{cell.folder}/run.json', dict(scenario=scenario or {}))


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


# What belongs to each convention: heading of the section, and names of the groups.
CONVENTIONS = {'without background': ('Without background', {'1-2', '3', 'all'}),
               'with background': ('With background', {'0-2', '3', 'all, with background'})}


@pytest.mark.parametrize('backgrounds', [BACKGROUND[:1], BACKGROUND[1:], BACKGROUND])
def test_each_background_convention_has_names_of_its_own_in_all_files(cells, tmp_path, backgrounds):
    text = write_tables(tmp_path, cells, 'tiny', backgrounds=backgrounds)
    held = json.loads((tmp_path / 'table.json').read_text())
    rows = list(csv.DictReader(io.StringIO((tmp_path / 'table.csv').read_text())))
    sections = dict(part.split('\n', 1) for part in text.split('\n## ')[1:])
    assert list(sections) == [CONVENTIONS[background][0] for background in backgrounds]
    for background in backgrounds:
        title, groups = CONVENTIONS[background]
        head, _, first = sections[title].strip().splitlines()[:3]
        names = [name.strip().split(': ')[1] for name in head.strip('|').split('|')[1:]]
        assert set(names[:3]) == groups and names[3] == names[2]  # the column without a finished run
        assert first == ('| FT | 51.5 ± 2.1 | 20.0 ± 0.0 | 41.0 ± 1.4 | - |' if background == BACKGROUND[0] else
                         '| FT | 64.3 ± 1.4 | 20.0 ± 0.0 | 53.2 ± 1.1 | - |')
        for shown in (rows, held['cells']):
            assert {row['group'] for row in shown if row['background'] == background} == groups
    assert {row['background'] for row in rows} == {row['background'] for row in held['cells']} == set(backgrounds)
    assert all(set(run['scores']) == set(backgrounds) for run in held['runs'])


def test_the_columns_without_background_are_the_default(cells, tmp_path):
    assert write_tables(tmp_path, cells, 'tiny') == write_tables(tmp_path, cells, 'tiny', backgrounds=BACKGROUND[:1])


def test_label_protocols_are_named_and_never_mixed_silently(cells, tmp_path):
    assert '\n\nLabel protocol: mib.\n\n' in write_tables(tmp_path, cells, 'tiny')
    finished(cells[-1], 60.0, scenario=dict(label_protocol='plop'))
    text = write_tables(tmp_path, cells, 'tiny')
    assert ('\n\nLabel protocols differ, so the figures are not comparable. 2-1 overlapped: mib (FT). '
            'disjoint: plop (HRHF 1:2).\n\n') in text
    rows = csv.DictReader(io.StringIO((tmp_path / 'table.csv').read_text()))
    assert {(row['method'], row['label_protocol']) for row in rows} == {('FT', 'mib'), ('HRHF 1:2', 'plop')}
    # One column, one method, two seeds: their mean is of both.
    finished(next(cell for cell in cells if cell.method == 'FT' and cell.task), 60.0,
             scenario=dict(label_protocol='plop'))
    records = collect(cells)
    assert '2-1 overlapped: plop (FT); mib (FT).' in protocol_note(records)
    assert {row['label_protocol'] for row in statistics_of(records) if row['method'] == 'FT'} == {'mib plop'}


def test_a_table_of_unequal_batches_says_so(cells, tmp_path):
    assert 'Batch sizes differ' not in write_tables(tmp_path, cells, 'tiny')
    finished(cells[-1], 60.0, processes='8')
    warning = ('**Batch sizes differ** (batch size per process x number of processes): 1 processes: 2 runs, '
               'such as FT, 2-1 overlapped, seed 0; 8 processes: 1 runs, such as HRHF 1:2, disjoint, seed 1.')
    assert warning in write_tables(tmp_path, cells, 'tiny')


# -- published figures -----------------------------------------------------------------------------------------------

COLUMNS = [f'{task} {setting}' for setting in SETTINGS
           for task in ('19-1', '15-5', '15-1', '10-1', '100-50', '100-10', '50-50')]
# Table 1's and Table 7's columns, as the text of the paper has them.
TABLES = {1: [(f'{task} {setting}', 3 * i) for i, (task, setting) in enumerate(
    (task, setting) for task in ('19-1', '15-5', '15-1') for setting in ('disjoint', 'overlapped'))],
    7: [('100-50 disjoint', 0), ('100-10 disjoint', 3), ('50-50 disjoint', 10)]}


def test_published_rows_are_those_of_the_paper_s_methods_and_settings():
    rows = [row for row in read_published(COLUMNS) if row['source'].startswith('arXiv:2104.00875')]
    found = {(row['method'], f'{row["task"]} {row["setting"]}') for row in rows}
    assert len(rows) == len(found) == 10 * 6 + 7 * 3
    assert {(row['backbone'], row['background'], row['memory']) for row in rows} == {('ResNet-101', 'out', 'no')}


def test_no_figure_is_published_twice():
    rows = read_published(COLUMNS)
    assert len(rows) == len(PUBLISHED.read_text().splitlines()) - 1 == 81 + 67
    figures = [(row['method'], row['task'], row['setting'], *(float(row[name] or -1) for name in ('old', 'new', 'all')))
               for row in rows]
    assert len(set(figures)) == len(figures)
    assert {row['method'] for row in rows if row['memory'] == 'yes'} == {'SSUL-M', 'DKD-M'}
    assert {row['method'] for row in rows if row['method'].endswith('-M')} == {'SSUL-M', 'DKD-M'}


# Where `all` is not the mean of the printed groups: slips of the paper (docs/paper_map.md), kept as printed.
SLIPS = {('Joint', '19-1', 'disjoint'), ('EWC', '15-5', 'overlapped'), ('HRHF', '15-5', 'overlapped'),
         ('HRHF', '15-1', 'overlapped')}


def conventions(row):
    """Which weights of `old` and `new` give `all` within the rounding of the three."""
    base, total = int(row['task'].split('-')[0]), {'VOC 2012': 20, 'ADE20K': 150}[row['dataset']]
    old, new, everything = (float(row[name]) for name in ('old', 'new', 'all'))
    # Tables that print 66.10 have figures of other papers with one decimal.
    one = all(re.fullmatch(r'\d+\.\d0?', row[name]) for name in ('old', 'new', 'all'))
    means = {name: (old * (base + more) + new * (total - base)) / (total + more)
             for name, more in (('out', 0), ('in', 1))}
    return {name for name, mean in means.items() if abs(mean - everything) <= (0.1001 if one else 0.0101)}


def test_the_background_column_is_what_the_printed_means_say():
    odd = set()
    for row in read_published(COLUMNS):
        if row['new'] and row['source'].startswith('arXiv:2104.00875'):
            if 'out' not in conventions(row):
                odd.add((row['method'], row['task'], row['setting']))
        elif row['new']:
            wanted = {'in', 'out'} if row['background'] == 'unclear' else {row['background']}
            assert conventions(row) == wanted, row
    assert odd == SLIPS


@pytest.mark.parametrize('number', TABLES)
def test_published_figures_are_those_of_the_paper(shared, number):
    text = next((shared / 'paper').glob('*.txt')).read_text(encoding='utf-8')
    body = text.split(f'Table {number}. Comparison of mIoU on')[1].split('\n\n')[1]
    rows = {(row['method'], f'{row["task"]} {row["setting"]}'): row for row in read_published(COLUMNS)
            if row['source'] == f'arXiv:2104.00875, Table {number}'}
    checked = 0
    for line in body.splitlines()[2:]:
        name, *values = [cell for cell in line.split('\t') if cell]
        for column, start in TABLES[number] if values[0][0].isdigit() else ():
            row = rows[re.sub(r'\[.*', '', name), column]
            last = {'100-10 disjoint': 9, '50-50 disjoint': 13}.get(column, start + 2)
            assert (row['old'], row['all']) == (values[start], values[last])
            assert row['new'] in ('', values[start + 1]) and bool(row['new']) == (last == start + 2)
            checked += 1
    assert checked == len(rows) == {1: 60, 7: 21}[number]


GOOD = 'HRHF,2021,VOC 2012,15-1,overlapped,ResNet-101,no,72.4,39.6,64.6,out,"arXiv:2104.00875, Table 1"'
MALFORMED = {
    'a field too few': (GOOD.replace('2021,', ''), '12 fields are required'),
    'a field too many': (f'{GOOD},72', '12 fields are required'),
    'no method': (GOOD.replace('HRHF', ''), "method='' must be some text"),
    'year': (GOOD.replace('2021', '21'), "year='21' must be a year or empty"),
    'task': (GOOD.replace('15-1', '15_1'), "task='15_1' must be of the form 'B-I'"),
    'setting': (GOOD.replace('overlapped', 'overlap'), "setting='overlap' must be one of overlapped, disjoint"),
    'a share': (GOOD.replace('72.4', '172.4'), "old='172.4' must be a percentage or empty"),
    'no mean': (GOOD.replace('64.6', ''), "all='' must be a percentage"),
    'background': (GOOD.replace(',out', ',no'), "background='no' must be one of out, in, unclear"),
    'memory': (GOOD.replace(',no,', ',100,'), "memory='100' must be yes or no"),
    'dataset': (GOOD.replace('VOC 2012', 'VOC'), "dataset='VOC' must be one of VOC 2012, ADE20K"),
}


@pytest.mark.parametrize('case', MALFORMED)
def test_a_malformed_published_row_is_named_by_its_line(tmp_path, case):
    line, message = MALFORMED[case]
    path, header = tmp_path / 'own.csv', PUBLISHED.read_text().splitlines()[0]
    path.write_text('\n'.join([header, GOOD, line]))
    with pytest.raises(ValueError, match=rf'own\.csv, line 3: {message}'):
        read_published([], path)
    path.write_text('\n'.join([header, GOOD]))
    assert [row['all'] for row in read_published(['15-1 overlapped'], path)] == ['64.6']
    path.write_text(GOOD)
    with pytest.raises(ValueError, match=r'own\.csv, line 1: the columns must be method,year,dataset'):
        read_published([], path)


def test_published_rows_stand_apart_from_the_measured(cells, tmp_path):
    plain = write_tables(tmp_path, cells, 'tiny')
    files = [(tmp_path / name).read_text() for name in ('table.csv', 'table.json')]
    text = write_tables(tmp_path, cells, 'tiny', published=read_published(['15-1 overlapped']))
    measured, published = text.split('\n\n## Published\n\n')
    assert measured.rstrip() == plain.rstrip() and 'as printed in the source, not measured here' in published
    assert published.count('### ') == 1 and 'later papers plop' in published
    assert ('### VOC 2012 15-1, without background\n\n'
            '| method | year | memory | setting | backbone | 1-15 | 16-20 | all | source |\n') in published
    assert '| HRHF | 2021 | no | overlapped | ResNet-101 | 72.4 | 39.6 | 64.6 | arXiv:2104.00875' in published
    assert '| FT | - | no | overlapped |' in published
    assert [(tmp_path / name).read_text() for name in ('table.csv', 'table.json')] == files
    for rows in ([], read_published(['10-1 overlapped'])):  # the latter are all with background
        assert 'None for these tasks and settings with this --background.' in write_tables(
            tmp_path, cells, 'tiny', published=rows)


HEADS = {'without background': ['1-15', '16-20', 'all'], 'with background': ['0-15', '16-20', 'all, with background']}


@pytest.mark.parametrize('backgrounds', [BACKGROUND[:1], BACKGROUND[1:], BACKGROUND])
def test_published_figures_are_under_the_names_of_their_convention(cells, tmp_path, backgrounds):
    rows = read_published(['15-1 disjoint', '15-1 overlapped'])
    published = write_tables(tmp_path, cells, 'tiny', published=rows, backgrounds=backgrounds).split('## Published')[1]
    tables = published_tables(rows, backgrounds)
    assert published.endswith(published_markdown(tables))
    assert [(table['title'], table['heads'][5:8]) for table in tables] == [
        (f'VOC 2012 15-1, {background}', HEADS[background]) for background in backgrounds]
    kinds = dict(zip(BACKGROUND, ('out', 'in')))
    for background, table in zip(backgrounds, tables):
        assert [(row[0], row[5:8]) for row in table['rows']] == [
            (row['method'], [row['old'], row['new'], row['all']]) for row in rows
            if row['background'] == kinds[background]]
    assert ('| DKD | 2022 | no | overlapped | ResNet-101 | 78.09 | 42.72 | 69.67 |' in published) == (
        BACKGROUND[1] in backgrounds)
    assert ('| SSUL-M | 2021 | yes | overlapped | ResNet-101 | 78.36 |' in published) == (BACKGROUND[1] in backgrounds)


def test_figures_of_an_unclear_convention_are_in_neither_column():
    for backgrounds in (BACKGROUND[:1], BACKGROUND[1:]):
        *tables, unclear = published_tables(read_published(['10-1 disjoint']), backgrounds)
        assert unclear['title'] == 'VOC 2012 10-1, background unclear'
        assert unclear['heads'][5:8] == ['0-10 or 1-10', '11-20', 'all, background unclear']
        assert [row[0] for row in unclear['rows']] == ['MiB', 'PLOP']
        assert [row[0] for table in tables for row in table['rows']] == (
            ['RCIL', 'Joint'] if backgrounds == BACKGROUND[1:] else [])


def test_a_published_table_is_of_one_task_of_one_dataset():
    tables = published_tables(read_published(COLUMNS))
    titles = [table['title'] for table in tables]
    assert len(titles) == len(set(titles)) and 'ADE20K 100-50, with background' in titles
    assert next(table['heads'][5:8] for table in tables if table['title'] == 'ADE20K 100-50, with background') == [
        '0-100', '101-150', 'all, with background']
    assert sum(len(table['rows']) for table in tables) == len(read_published(COLUMNS))


def test_the_published_figures_are_in_a_wheel(repo, tmp_path):
    """``build_py`` collects what a wheel holds."""
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'model-index.yml'):
        shutil.copy(repo / name, tmp_path)
    for name in ('mmseg_hrhf', 'configs', 'tools'):
        shutil.copytree(repo / name, tmp_path / name, ignore=shutil.ignore_patterns('__pycache__'))
    subprocess.run([sys.executable, 'setup.py', '-q', 'build_py', '--build-lib', 'built'], cwd=tmp_path, check=True)
    assert (tmp_path / 'built' / PUBLISHED.relative_to(repo)).read_bytes() == PUBLISHED.read_bytes()
