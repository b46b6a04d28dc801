import json
import re
import shutil

import numpy as np
import pytest

from mmseg_hrhf.analysis.comparison.table import read_published
from mmseg_hrhf.analysis.report import class_table, confusion_table, differing_options, paper_table, write_report
from mmseg_hrhf.analysis.results import find_runs
from mmseg_hrhf.evaluation.incremental_iou import group_means
from mmseg_hrhf.evaluation.summary import read_confusion, summary_markdown, write_confusion


def test_table_in_the_paper_s_layout_marks_the_best(work_dir, other_dir):
    runs = find_runs([str(work_dir), str(other_dir)])
    table = paper_table(runs, 'without background')
    assert table['heads'] == [('2-1 overlapped', ['1-2', '3', 'all'])]
    (first, ours), (second, theirs) = table['rows']
    assert (first, second) == ('HRHF', 'FT')
    assert theirs[2]['mean'] == pytest.approx(ours[2]['mean'] + 2)
    assert [cell['best'] for cell in ours + theirs] == [False] * 3 + [True] * 3
    assert ours[0]['std'] is None


def test_classes_over_steps_have_what_they_lost(run):
    table = class_table([run])
    assert table['steps'] == [0, 1]
    background, red, green, blue = table['rows']
    assert [row['first'] for row in table['rows']] == [False, True, False, True]
    assert red['forgetting'] == pytest.approx(red['ious'][0] - red['ious'][1])
    assert blue['ious'][0] is None and blue['forgetting'] is None and background['forgetting'] is None
    assert green['colour'] == 'rgb(60 200 60)'


def test_confusion_of_the_last_step(run, work_dir, other_dir):
    table = confusion_table([run])
    assert table['classes'] == ['background', 'red', 'green', 'blue']
    assert sum(table['shares'][0]) == pytest.approx(100)
    assert confusion_table(find_runs([str(other_dir)])) is None


def test_options_that_differ(work_dir, other_dir):
    assert differing_options(find_runs([str(work_dir), str(other_dir)])) == dict(
        heads=[('HRHF', '2-1 overlapped'), ('FT', '2-1 overlapped')],
        rows=[('method.type', ['"HRHF"', '"FineTuning"'])])


def test_page_fetches_nothing_and_escapes_names(work_dir, other_dir, tmp_path):
    runs = find_runs([f'<b>ours</b>={work_dir}', str(other_dir)])
    write_report(tmp_path / 'report.html', runs, num_images=0)
    text = (tmp_path / 'report.html').read_text()
    assert '<b>ours' not in text and '&lt;b&gt;ours&lt;/b&gt;' in text
    for attribute in ('src="http', 'href="http', "url('http", '@import', '<link rel="stylesheet"', 'src="/'):
        assert attribute not in text


GROUPS = [dict(old=(1, 2), new=(), all=(1, 2)), dict(old=(1, 2), new=(3, ), all=(1, 2, 3))]
# Classes without a pixel in the test images (index by step), and what the page's table then lacks.
ABSENT = {
    'the only new class': ({1: [3]}, ['3']),
    'a class at all steps': ({0: [1], 1: [1]}, []),
    'a class at one step': ({0: [2]}, []),
    'background': ({0: [0], 1: [0]}, []),
    'old classes': ({0: [1, 2], 1: [1, 2]}, ['1-2']),
    'all but background': ({0: [1, 2], 1: [1, 2, 3]}, ['1-2', '3', 'all']),
    'everything': ({0: [0, 1, 2], 1: [0, 1, 2, 3]}, ['1-2', '3', 'all']),
}


@pytest.fixture
def run_without(work_dir, tmp_path):
    """A copy of the run whose test images lack some classes."""

    def make(absent, name='without', seed=0):
        folder = tmp_path / name
        shutil.copytree(work_dir, folder)
        held = json.loads((folder / 'results.json').read_text())
        for result, groups in zip(held['results'], GROUPS):
            metrics, gone, result['seed'] = result['metrics'], absent.get(result['step'], []), seed
            names = ['background', *result['classes']]
            iou = np.array([np.nan if i in gone else metrics[f'IoU/{name}'] for i, name in enumerate(names)], float)
            values = {**{f'IoU/{name}': value for name, value in zip(names, iou)}, **group_means(iou, groups)}
            metrics.update((key, None if np.isnan(value) else float(value)) for key, value in values.items())
            _, counts = read_confusion(folder / f'step_{result["step"]}' / 'confusion.csv')
            counts[gone], counts[:, gone] = 0, 0
            write_confusion(folder / f'step_{result["step"]}' / 'confusion.csv', names, counts)
        (folder / 'results.json').write_text(json.dumps(held))
        return str(folder)

    return make


@pytest.mark.parametrize('case', ABSENT)
def test_classes_that_no_test_image_shows_are_empty_cells(run_without, case, tmp_path):
    absent, lacking = ABSENT[case]
    runs = find_runs([run_without(absent)])
    for background in ('without background', 'with background'):
        table = paper_table(runs, background)
        (_, groups), (_, cells) = table['heads'][0], table['rows'][0]
        assert groups == (['1-2', '3', 'all'] if background == 'without background' else
                          ['0-2', '3', 'all, with background'])
        # In these columns background counts as well.
        counted = background == 'with background' and 0 not in absent.get(1, [])
        assert [name for name, cell in zip(['1-2', '3', 'all'], cells) if cell is None] == [
            name for name in lacking if not (counted and name in ('1-2', 'all'))]
    rows = class_table(runs)['rows']
    assert all(rows[index]['ious'][step] is None for step, gone in absent.items() for index in gone)
    for index, gone in ((3, 3 in absent.get(1, [])), (0, 0 in absent.get(1, []))):
        assert (rows[index]['ious'][1] is None) == gone
    write_report(tmp_path / 'report.html', runs, num_images=0)
    text = (tmp_path / 'report.html').read_text()
    assert re.search(r'\bnan\b', text, re.IGNORECASE) is None
    assert text.count('<td class="soft">') == sum(
        cell is None for background in ('without background', 'with background')
        for cell in paper_table(runs, background)['rows'][0][1])
    assert ' nan' not in summary_markdown(runs[0].results, 'tiny')


def test_methods_and_seeds_of_which_some_lack_a_class(run_without, other_dir, tmp_path):
    ours = [run_without({1: [3]}, 'first'), run_without({0: [1, 2], 1: [1, 2, 3]}, 'second', seed=1)]
    runs = find_runs([*(f'HRHF={path}' for path in ours), str(other_dir)])
    (_, mine), (_, other) = paper_table(runs, 'without background')['rows']
    assert mine[1] is None and other[1]['best']
    assert mine[0]['seeds'] == 1 and mine[0]['std'] is None
    write_report(tmp_path / 'report.html', runs, num_images=0)
    assert (tmp_path / 'report.html').stat().st_size > 10000


def test_no_method_has_a_class(run_without, tmp_path):
    absent = {1: [3]}
    runs = find_runs([f'A={run_without(absent, "a")}', f'B={run_without(absent, "b")}'])
    table = paper_table(runs, 'without background')
    assert [cells[1] for _, cells in table['rows']] == [None, None]
    assert [cells[0]['best'] for _, cells in table['rows']] == [True, True]
    write_report(tmp_path / 'report.html', runs, num_images=0)


def test_the_report_tool_adds_published_figures_on_request(run_tool, work_dir, tmp_path):
    for options, number in (([], 0), (['--published'], 1)):
        done = run_tool('report.py', work_dir, '--images', 0, '--out', tmp_path / 'report.html', *options)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / 'report.html').read_text().count('<h2>Published</h2>') == number


def test_published_figures_have_a_section_of_their_own(work_dir, tmp_path):
    runs, pages = find_runs([str(work_dir)]), {}
    for name, rows in (('none', None), ('empty', read_published({run.column for run in runs})),
                       ('some', read_published(['15-1 disjoint']))):
        write_report(tmp_path / 'report.html', runs, num_images=0, published=rows)
        pages[name] = (tmp_path / 'report.html').read_text()
    assert 'Published' not in pages['none']
    assert 'not measured here. None for these tasks and settings.' in pages['empty']
    before, section = pages['some'].split('<section id="published">')
    section, after = section.split('</section>', 1)
    assert 'arXiv' not in before + after and 'later papers plop' in section
    tables = dict(part.split('</h3>') for part in section.split('<h3>')[1:])
    assert list(tables) == ['VOC 2012 15-1, without background', 'VOC 2012 15-1, with background']
    first, second = tables.values()
    assert '<td class="text">arXiv:2104.00875, Table 1</td>' in first and first.count('<tr>') == 11
    assert '<th class="text">1-15</th>' in first and '<td class="text">72.6</td>' in first
    assert '<th class="text">0-15</th>' in second and '<th class="text">all, with background</th>' in second
    assert '<td class="text">DKD</td>' in second and 'DKD' not in first and 'HRHF' not in second


def test_the_label_protocols_of_the_runs_are_named(work_dir, other_dir, tmp_path):
    copy = tmp_path / 'copy'
    shutil.copytree(other_dir, copy)
    identity = json.loads((copy / 'run.json').read_text())
    for protocol, note in (('mib', 'Label protocol: mib.'), ('plop', '2-1 overlapped: mib (HRHF); plop (FT).')):
        identity['scenario']['label_protocol'] = protocol
        (copy / 'run.json').write_text(json.dumps(identity))
        write_report(tmp_path / 'report.html', find_runs([str(work_dir), str(copy)]), num_images=0)
        text = (tmp_path / 'report.html').read_text()
        assert text.count(note) == 2 and ('Label protocols differ' in text) == (protocol == 'plop')
