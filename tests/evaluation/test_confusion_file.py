import numpy as np
import pytest

from mmseg_hrhf.evaluation.summary import collapsed_class, read_confusion, write_confusion


def test_a_table_comes_back_as_it_was_written(tmp_path):
    counts = np.array([[5, 1], [0, 2**40]])
    write_confusion(tmp_path / 'confusion.csv', ['background', 'traffic light, red'], counts)
    classes, read = read_confusion(tmp_path / 'confusion.csv')
    assert classes == ['background', 'traffic light, red'] and (read == counts).all()
    first = (tmp_path / 'confusion.csv').read_text().splitlines()[0]
    assert first == 'true \\ predicted,background,"traffic light, red"'


def test_none_was_recorded(tmp_path):
    assert read_confusion(tmp_path / 'confusion.csv') is None


@pytest.mark.parametrize('text', ['x,a,b\na,1,2\n', 'x,a\na,many\n', ''])
def test_another_file_is_named(tmp_path, text):
    (tmp_path / 'confusion.csv').write_text(text)
    with pytest.raises(ValueError, match=r'confusion\.csv is not a confusion matrix'):
        read_confusion(tmp_path / 'confusion.csv')


@pytest.mark.parametrize('counts, expected', [
    ([[0, 6000, 0], [0, 4000, 0], [0, 0, 0]], 1),
    ([[0, 6000, 10], [0, 3990, 0], [0, 0, 0]], None),  # exactly 99.9 %
    ([[0, 5000, 5], [0, 4995, 0], [0, 0, 0]], 1),
    ([[9995, 0, 0], [5, 0, 0], [0, 0, 0]], None),  # nearly all of the ground truth, too
    ([[0, 0], [0, 7]], None),
    ([[0, 0], [0, 0]], None),
])
def test_a_network_that_predicts_one_class_has_collapsed(counts, expected):
    assert collapsed_class(np.array(counts)) == expected
