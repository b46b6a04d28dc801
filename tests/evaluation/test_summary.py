"""Figures over the steps of a run."""
import pytest

from mmseg_hrhf.evaluation.summary import summarise, summary_markdown


def result(step, steps, iou, **means):
    """A step's result from the IoU of background and of each class."""
    classes = [name for names in steps[:step + 1] for name in names]
    metrics = dict(mIoU_old=1., mIoU_new=2., mIoU_all=3., mIoU_old_with_background=4., mIoU_all_with_background=5.)
    metrics.update(means)
    metrics.update({f'IoU/{name}': value for name, value in zip(['background', *classes], iou)})
    return dict(
        step=step,
        classes=classes,
        new_classes=steps[step],
        metrics=metrics,
        num_train_images=100 + step,
        num_fake_images=512 * step)


STEPS = [['cat', 'cow'], ['dog'], ['hen']]


@pytest.fixture
def results():
    return [
        result(0, STEPS, [95, 80, 70], mIoU_all=75., mIoU_all_with_background=81.67, mIoU_new=None),
        result(1, STEPS, [94, 71, 72, 50.], mIoU_all=64.33, mIoU_all_with_background=71.75),
        result(2, STEPS, [93, 61.5, 66, 20., 33.25], mIoU_all=45.19, mIoU_all_with_background=54.75),
    ]


def test_average_incremental_miou_is_the_mean_over_steps(results):
    summary = summarise(results)
    assert summary['average_incremental_mIoU'] == pytest.approx((75 + 64.33 + 45.19) / 3)
    assert summary['average_incremental_mIoU_with_background'] == pytest.approx((81.67 + 71.75 + 54.75) / 3)


def test_forgetting_is_iou_when_learnt_minus_iou_now(results):
    # The last step's class cannot have been forgotten yet; background is no class that is learnt.
    assert summarise(results)['forgetting'] == dict(cat=80 - 61.5, cow=70 - 66, dog=50. - 20.)
    assert summarise(results)['average_forgetting'] == pytest.approx((18.5 + 4 + 30) / 3)


def test_forgetting_counts_from_the_step_that_learnt_the_class_not_from_its_best(results):
    results[1]['metrics']['IoU/cat'] = 99
    assert summarise(results)['forgetting']['cat'] == 80 - 61.5


def test_class_that_got_better_is_forgotten_negatively(results):
    results[2]['metrics']['IoU/cow'] = 75
    assert summarise(results)['forgetting']['cow'] == -5


def test_groups_by_step(results):
    steps = summarise(results)['steps']
    assert [step['mIoU_all'] for step in steps] == [75., 64.33, 45.19]
    assert set(steps[0]) == {
        'mIoU_old', 'mIoU_new', 'mIoU_all', 'mIoU_old_with_background', 'mIoU_all_with_background'}


def test_after_one_step_nothing_is_forgotten(results):
    summary = summarise(results[:1])
    assert summary['forgetting'] == {} and summary['average_forgetting'] is None
    assert summary['average_incremental_mIoU'] == 75


@pytest.mark.parametrize('step', [0, 2])
def test_class_without_a_figure_is_left_out_of_the_average(results, step):
    results[step]['metrics']['IoU/cow'] = None
    summary = summarise(results)
    assert summary['forgetting']['cow'] is None
    assert summary['average_forgetting'] == pytest.approx((18.5 + 30) / 2)


def test_step_without_a_figure_is_left_out_of_the_average(results):
    results[1]['metrics']['mIoU_all'] = None
    assert summarise(results)['average_incremental_mIoU'] == pytest.approx((75 + 45.19) / 2)


def test_markdown_has_the_figures_of_steps_and_classes(results):
    lines = summary_markdown(results, 'HRHF: 2-1 overlapped').splitlines()
    assert lines[0] == '# HRHF: 2-1 overlapped'
    assert '| 0 | cat, cow | 100 | 0 | 1.00 | - | 75.00 | 4.00 | 81.67 |' in lines
    assert '| 2 | hen | 102 | 1024 | 1.00 | 2.00 | 45.19 | 4.00 | 54.75 |' in lines
    assert '| background | 95.00 | 94.00 | 93.00 | - |' in lines
    assert '| cat | 80.00 | 71.00 | 61.50 | 18.50 |' in lines
    assert '| dog | - | 50.00 | 20.00 | 30.00 |' in lines
    assert '| hen | - | - | 33.25 | - |' in lines


def test_markdown_has_the_averages(results):
    text = summary_markdown(results, 'title')
    assert 'Average incremental mIoU: 61.51 (69.39 with background). Average forgetting: 17.50.' in text


def test_markdown_of_one_step_has_a_dash_for_forgetting(results):
    assert 'Average forgetting: -.' in summary_markdown(results[:1], 'title')


def test_markdown_tables_are_rectangular(results):
    rows = [line.count('|') for line in summary_markdown(results, 'title').splitlines() if line.startswith('|')]
    assert rows == [10] * 5 + [6] * 7


def test_markdown_shortens_many_classes():
    names = [f'class number {i}' for i in range(20)]
    text = summary_markdown([result(0, [names], [50.] * 21)], 'title')
    assert '| 0 | 20 classes | 100 |' in text
