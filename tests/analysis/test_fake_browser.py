import pytest
from PIL import Image

from mmseg_hrhf.analysis.charts import write_page
from mmseg_hrhf.analysis.fake_browser import choose_records, class_summary, write_fake_browser
from mmseg_hrhf.analysis.results import find_runs

RECORDS = [dict(classes=[1], teacher_share=[.5]), dict(classes=[1, 2], teacher_share=[.3, 0.]),
           dict(classes=[1], teacher_share=[.1]), dict(classes=[2], teacher_share=[.2])]


def test_the_first_images_of_each_class():
    assert choose_records(RECORDS, 1) == [0, 1]
    assert choose_records(RECORDS, 2) == [0, 1, 3]


def test_what_the_teacher_finds():
    one, two = class_summary(RECORDS, ['background', 'cat', 'dog'])
    assert (one['name'], one['count'], one['found'], one['area']) == ('cat', 3, 100, pytest.approx(30))
    assert (two['name'], two['count'], two['found'], two['area']) == ('dog', 2, 50, pytest.approx(10))


def test_page_and_grids(run, tmp_path):
    page = write_fake_browser(run, tmp_path)
    assert page == tmp_path / 'fakes.html'
    text = page.read_text()
    assert text.count('class="fake"') == 4 and 'data:image/webp' in text
    grids = sorted(path.name for path in tmp_path.glob('*.png'))
    assert grids == [f'fakes_step_1_{name}{suffix}.png' for name in ('green', 'red') for suffix in ('', '_mask')]
    with Image.open(tmp_path / 'fakes_step_1_red.png') as grid:
        assert grid.height == 48


def test_a_run_without_fakes_is_named(other_dir, tmp_path):
    run, = find_runs([str(other_dir)])
    with pytest.raises(ValueError, match='has no synthetic images'):
        write_fake_browser(run, tmp_path)


def test_many_classes_are_chosen_from_a_list(run, tmp_path):
    classes = [(f'class {i}', 'rgb(0 0 0)') for i in range(30)]
    for used, listed in ((range(1, 5), False), (range(1, 30), True)):
        write_page(tmp_path / 'page.html', 'fakes.html', title='t', run=run, items=[], steps=[], classes=classes,
                   used=list(used))
        assert ('<select id="class-choice">' in (tmp_path / 'page.html').read_text()) == listed
