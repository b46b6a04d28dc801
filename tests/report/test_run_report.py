import pytest

from mmseg_hrhf.report import find_runs
from mmseg_hrhf.report.run_report import class_table, confusion_table, differing_options, paper_table, write_report


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
