import math
import xml.etree.ElementTree as ElementTree

import pytest

from mmseg_hrhf.analysis.charts import inversion_curves, step_curves
from mmseg_hrhf.analysis.comparison.table import mean_and_deviation


def test_mean_and_deviation_over_seeds():
    means, spreads = mean_and_deviation([[10., None, None], [14., 5., None]])
    assert means[:2] == [12, 5] and math.isnan(means[2])
    assert spreads == [pytest.approx(8**0.5), 0, 0]


def result(step, score):
    return dict(step=step, metrics=dict(mIoU_all=score, mIoU_old=score - 1))


def check(svg, name):
    """It is XML, follows the page's colours, and all its ids are its own."""
    root = ElementTree.fromstring(svg)
    assert 'var(--s1)' in svg and 'var(--soft)' in svg and '#01010' not in svg and '#01020' not in svg
    ids = [element.get('id') for element in root.iter() if element.get('id')]
    assert ids and all(each.startswith(f'{name}-') for each in ids) and len(set(ids)) == len(ids)
    return root


def test_curves_of_methods_with_seeds_and_of_one_trained_once():
    runs = {'A': [[result(0, 50), result(1, 30)], [result(0, 54), result(1, 20)]], 'Joint': [[result(1, 60)]]}
    check(step_curves(runs, 2, 'c'), 'c')


def test_curves_of_an_inversion():
    curve = dict(iteration=[1, 2], classification=[3., 1.], tv=[0.3, 0.2])
    root = check(inversion_curves([curve, curve], 's1'), 's1')
    text = ''.join(root.itertext())
    assert 'classification loss' in text and 'total variation' in text and 'feature' not in text


@pytest.mark.parametrize('values', [(None, 30), (50, None), (None, None)])
def test_curves_with_steps_whose_classes_no_test_image_shows(values):
    def run(*scores):
        return [dict(step=i, metrics=dict(mIoU_all=score, mIoU_old=score)) for i, score in enumerate(scores)]

    level = [dict(step=1, metrics=dict(mIoU_all=None, mIoU_old=None))]
    check(step_curves({'A': [run(*values)], 'B': [run(*values), run(10, 20)], 'Joint': [level]}, 2, 'c'), 'c')
