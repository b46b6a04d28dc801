import numpy as np
import pytest

from mmseg_hrhf.evaluation.summary import read_confusion, write_confusion


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
