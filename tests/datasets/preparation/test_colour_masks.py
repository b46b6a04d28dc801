import subprocess
import sys

import numpy as np
import pytest
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_hrhf.datasets.incremental import scenario_of_config
from mmseg_hrhf.datasets.preparation.colour_masks import colour_code, labels_of_colours

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
    with pytest.raises(ValueError, match=r"row 1, column 0 has the colour \(0, 1, 255\), which has no label"):
        labels_of_colours(image, PALETTE)


def test_two_labels_of_one_colour_are_refused():
    with pytest.raises(ValueError, match=r'colour \(255, 0, 0\) has two labels'):
        labels_of_colours(painted([[0]]), [[255, 0, 0], [0, 0, 0], [255, 0, 0]])


def test_labels_of_colours_may_be_others():
    found = labels_of_colours(painted([[0, 1], [2, 3]]), PALETTE, [255, 255, 255], labels=[4, 1, 7], unlabelled=0)
    np.testing.assert_array_equal(found, [[4, 1], [7, 0]])


@DATASETS.register_module()
class Fruit(BaseSegDataset):
    """Numbers its classes from 1; 0 is void."""
    METAINFO = dict(classes=('apple', 'pear', 'plum'), palette=PALETTE)

    def __init__(self, reduce_zero_label=True, **kwargs):
        super().__init__(reduce_zero_label=reduce_zero_label, **kwargs)


@DATASETS.register_module()
class Table(BaseSegDataset):
    METAINFO = dict(classes=('background', 'apple', 'pear'), palette=PALETTE)


NAMED = dict(classes=['apple', 'pear', 'plum'], palette=PALETTE)
PLAIN = dict(type='BaseSegDataset', metainfo=NAMED)
REDUCED = dict(PLAIN, reduce_zero_label=True)
SWAPPED = [PALETTE[2], PALETTE[0]]
# A config's training data | its scenario | labels of the palette's colours, in order | label of unlabelled pixels.
CODES = {
    'classes from 0': (PLAIN, None, PALETTE, [0, 1, 2], 255),
    'classes from 1': (REDUCED, None, PALETTE, [1, 2, 3], 0),
    'of a scenario': (REDUCED, dict(task='1-2'), PALETTE, [1, 2, 3], 0),
    'background is 0': (dict(PLAIN, metainfo=dict(NAMED, classes=['background', 'b', 'c'])), dict(task='1-1'), PALETTE,
                        [0, 1, 2], 255),
    'background is 1, 0 is void': (dict(REDUCED, metainfo=dict(NAMED, classes=['background', 'b', 'c'])),
                                   dict(task='1-1'), PALETTE, [1, 2, 3], 0),
    'by default of a class': (dict(type='Fruit'), dict(task='1-2'), PALETTE, [1, 2, 3], 0),
    'a default switched off': (dict(type='Fruit', reduce_zero_label=False), dict(task='1-2'), PALETTE, [1, 2, 3], 0),
    'some classes, all colours': (dict(type='Fruit', metainfo=dict(classes=['plum', 'apple'])), dict(task='1-1'),
                                  PALETTE, [1, 2, 3], 0),
    'some classes, their colours': (dict(type='Fruit', metainfo=dict(classes=['plum', 'apple'], palette=SWAPPED)),
                                    dict(task='1-1'), SWAPPED, [3, 1], 0),
    'all classes in another order': (dict(type='Fruit', metainfo=dict(classes=['plum', 'apple', 'pear'])),
                                     dict(task='1-2'), PALETTE, [1, 2, 3], 0),
    'and in that order coloured': (
        dict(type='Fruit', metainfo=dict(classes=['plum', 'apple', 'pear'], palette=PALETTE)), dict(task='1-2'),
        PALETTE, [3, 1, 2], 0),
    'some classes beside a background': (dict(type='Table', metainfo=dict(classes=['background', 'pear'])),
                                         dict(task='1-1'), PALETTE, [0, 1, 2], 255),
    'one colour': (dict(PLAIN, metainfo=dict(classes=['a'], palette=PALETTE[1:2])), None, PALETTE[1:2], [0], 255),
    'repeated, joined and mixed': (
        dict(type='MultiImageMixDataset', pipeline=[], dataset=dict(
            type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[REDUCED, REDUCED]))),
        dict(task='1-2'), PALETTE, [1, 2, 3], 0),
    'one of two has a palette': (
        dict(type='ConcatDataset', datasets=[dict(REDUCED, metainfo=dict(classes=NAMED['classes'])), REDUCED]), None,
        PALETTE, [1, 2, 3], 0),
}


@pytest.mark.parametrize('case', CODES)
def test_a_colour_has_the_label_that_training_reads(case):
    dataset, scenario, palette, labels, unlabelled = CODES[case]
    code = colour_code(Config(dict(train_dataloader=dict(dataset=dataset), scenario=scenario)))
    assert [list(colour) for colour in code.palette] == palette
    assert (list(code.labels), code.unlabelled) == (labels, unlabelled)


@pytest.mark.parametrize('dataset, message', [
    (dict(PLAIN, metainfo=dict(classes=['a'])), r'no train_dataloader\.dataset\.metainfo\.palette'),
    (dict(PLAIN, metainfo=dict(palette=[])), r'no train_dataloader\.dataset\.metainfo\.palette'),
    (None, r'no train_dataloader\.dataset\.metainfo\.palette'),
    (dict(type='ConcatDataset', datasets=[PLAIN, REDUCED]), 'differ in classes, palette or reduce_zero_label'),
    (dict(PLAIN, type='Fruits'), "'Fruits' is not registered"),
    (dict(PLAIN, metainfo=dict(NAMED, palette=PALETTE[:2])), 'has 2 colours for 3 classes'),
])
def test_data_without_one_palette_are_refused(dataset, message):
    with pytest.raises(ValueError, match=message):
        colour_code(Config(dict(train_dataloader=dict(dataset=dataset))))


def test_converted_masks_train_as_they_were_painted(tmp_path):
    """Round trip: the label map of a step turns a converted mask into the classes that were painted."""
    cfg = Config(dict(train_dataloader=dict(dataset=REDUCED), scenario=dict(task='1-2')))
    code, scenario = colour_code(cfg), scenario_of_config(REDUCED, cfg.scenario)
    mask = labels_of_colours(painted([[0, 1], [2, 3]]), code.palette, [255, 255, 255], code.labels, code.unlabelled)
    label_map = scenario.test_label_map(1)
    read = [[label_map[label] for label in row] for row in mask.tolist()]
    names = scenario.class_names(1)
    assert [names[read[0][0]], names[read[0][1]], names[read[1][0]]] == ['apple', 'pear', 'plum']
    assert read[1][1] == 255


def test_as_many_colours_as_masks_have_labels():
    # Also colours that differ in one channel alone, by the least there is.
    colours = [[i, 0, 0] for i in range(85)] + [[0, i, 0] for i in range(1, 86)] + [[0, 1, 255 - i] for i in range(85)]
    labels = np.arange(255).reshape(5, 51)
    found = labels_of_colours(painted(labels, colours), colours)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, labels)
    with pytest.raises(ValueError, match='256 colours do not fit into 8-bit masks, in which 255 means "ignore"'):
        labels_of_colours(painted(labels, colours), [*colours, [9, 9, 9]])


def test_the_ignored_colour_is_no_label_s():
    with pytest.raises(ValueError, match=r'colour \(0, 0, 255\) has two labels'):
        labels_of_colours(painted([[0]]), PALETTE, ignore=[0, 0, 255])


def test_the_tool_converts_a_folder_by_a_config_s_palette(repo, run_tool, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(f'train_dataloader = dict(dataset=dict(metainfo=dict(palette={PALETTE!r})))')
    (tmp_path / 'painted' / 'sub').mkdir(parents=True)
    Image.fromarray(painted([[0, 1], [2, 0]])).save(tmp_path / 'painted' / 'sub' / 'a.png')
    arguments = [str(config), str(tmp_path / 'painted'), str(tmp_path / 'labels')]
    command = [sys.executable, str(repo / 'tools/convert_colour_masks.py'), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=repo)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / 'labels' / 'sub' / 'a.png') as mask:
        assert mask.mode == 'L' and np.asarray(mask).tolist() == [[0, 1], [2, 0]]
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / 'painted' / 'b.png')
    done = run_tool('convert_colour_masks.py', *arguments)
    assert done.returncode == 2 and 'b.png already contains labels (mode L)' in done.stderr


def test_the_tool_begins_at_1_where_0_is_unlabelled(run_tool, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(f'train_dataloader = dict(dataset={REDUCED!r})')
    (tmp_path / 'painted').mkdir()
    Image.fromarray(painted([[0, 1], [2, 3]])).save(tmp_path / 'painted' / 'a.png')
    command = ['convert_colour_masks.py', config, tmp_path / 'painted', tmp_path / 'labels']
    done = run_tool(*command)
    assert done.returncode == 2 and '(255, 255, 255), which has no label' in done.stderr and '--ignore' in done.stderr
    done = run_tool(*command, '--ignore', '255', '255', '255')
    assert done.returncode == 0, done.stderr
    assert 'labels 1 to 3, unlabelled 0' in done.stdout
    with Image.open(tmp_path / 'labels' / 'a.png') as mask:
        assert np.asarray(mask).tolist() == [[1, 2], [3, 0]]
