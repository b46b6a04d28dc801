import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mmseg_hrhf.datasets.colour_masks import labels_of_colours

PALETTE = [[0, 0, 0], [255, 0, 0], [0, 0, 255]]


def painted(labels, palette=(*PALETTE, [255, 255, 255])):
    return np.array(palette, np.uint8)[np.array(labels)]


def test_each_colour_is_its_number_in_the_palette():
    labels = [[0, 1, 2], [2, 2, 1]]
    np.testing.assert_array_equal(labels_of_colours(painted(labels), PALETTE), labels)
    found = labels_of_colours(painted([[3, 1]]), PALETTE, ignore=[255, 255, 255])
    np.testing.assert_array_equal(found, [[255, 1]])


def test_a_colour_of_no_label_is_named_with_its_place():
    image = painted([[0, 1], [2, 2]])
    image[1, 0], image[1, 1] = [0, 1, 255], [9, 9, 9]
    with pytest.raises(ValueError, match=r"row 1, column 0 has the colour \(0, 1, 255\), which is no label's"):
        labels_of_colours(image, PALETTE)


def test_two_labels_of_one_colour_are_refused():
    with pytest.raises(ValueError, match=r'colour \(255, 0, 0\) stands for two labels'):
        labels_of_colours(painted([[0]]), [[255, 0, 0], [0, 0, 0], [255, 0, 0]])


def test_as_many_colours_as_masks_have_labels():
    # Also colours that differ in one channel alone, by the least there is.
    colours = [[i, 0, 0] for i in range(85)] + [[0, i, 0] for i in range(1, 86)] + [[0, 1, 255 - i] for i in range(85)]
    labels = np.arange(255).reshape(5, 51)
    found = labels_of_colours(painted(labels, colours), colours)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, labels)
    with pytest.raises(ValueError, match='256 colours do not fit 8-bit masks, in which 255 means "ignore"'):
        labels_of_colours(painted(labels, colours), [*colours, [9, 9, 9]])


def test_the_ignored_colour_is_no_label_s():
    with pytest.raises(ValueError, match=r'colour \(0, 0, 255\) stands for two labels'):
        labels_of_colours(painted([[0]]), PALETTE, ignore=[0, 0, 255])


def test_the_tool_converts_a_folder_by_a_config_s_palette(repo, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(f'train_dataloader = dict(dataset=dict(metainfo=dict(palette={PALETTE!r})))')
    (tmp_path / 'painted' / 'sub').mkdir(parents=True)
    Image.fromarray(painted([[0, 1], [2, 0]])).save(tmp_path / 'painted' / 'sub' / 'a.png')
    command = [sys.executable, str(repo / 'tools/convert_colour_masks.py'), str(config), str(tmp_path / 'painted'),
               str(tmp_path / 'labels')]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=repo)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / 'labels' / 'sub' / 'a.png') as mask:
        assert mask.mode == 'L' and np.asarray(mask).tolist() == [[0, 1], [2, 0]]
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / 'painted' / 'b.png')
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=repo)
    assert done.returncode == 1 and 'b.png holds labels already (mode L)' in done.stderr
