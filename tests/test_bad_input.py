"""What is wrong is said before any training: the thing, its value, the remedy.

``pytest -n 0 tests/test_bad_input.py --write-bad-input docs/bad_input.md`` writes the table of what the program says.
"""
import gc
import io
import json
import pickle
import re
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, MODELS, RUNNERS
from PIL import Image

from mmseg_hrhf.config.load import load_config
from mmseg_hrhf.engine.testing import run_test
from mmseg_hrhf.utils.errors import explain
from mmseg_hrhf.work_dir.checkpoint import load_checkpoint, save_checkpoint

SEEN = []


@pytest.fixture(scope='module', autouse=True)
def table(request):
    """The table of cases and messages, written at the end if asked for."""
    yield
    path = request.config.getoption('--write-bad-input')
    if path:
        lines = ['# What bad input is answered with', '', f'{len(SEEN)} broken inputs, and the line that the program '
                 'prints for each before it exits with code 2. Made by', '`pytest -n 0 tests/test_bad_input.py '
                 '--write-bad-input docs/bad_input.md`.', '', '| input | answer |', '|---|---|']
        lines += [f'| {group}: {case} | {message} |' for group, case, message in SEEN]
        Path(path).write_text('\n'.join(lines) + '\n', encoding='utf-8')


def refusal(run, *args):
    """The line that the tools print for what ``run`` raises."""
    with pytest.raises(Exception) as info:
        run(*args)
    line = explain(info.value)
    assert line is not None, f'a bare traceback: {info.value!r}'
    return line


def check(group, case, line, message, *places):
    """``line`` says what the case expects; noted for the table, without this machine's paths."""
    assert re.search(message, line, re.DOTALL), line
    for name, place in places:
        line = line.replace(str(place), name)
    shown = ' '.join(line.split()).replace('|', '\\|')
    SEEN.append((group, case, shown if len(shown) < 420 else f'{shown[:400]} ...'))


# -- configs ---------------------------------------------------------------------------------------------------------

@DATASETS.register_module()
class Colours(BaseSegDataset):
    """The same data, whose class knows its classes."""
    METAINFO = dict(classes=('background', 'red', 'green', 'blue'))


WITHOUT_BLUE = dict(type='Colours', metainfo=dict(classes=['background', 'red', 'green']))
# Settings merged into a good config | what the answer must hold.
DM_HEAD = dict(_delete_=True, type='DMHead', in_channels=16, in_index=2, channels=8, num_classes=4)
CONFIGS = {
    # Scenario.
    'scenario.task does not add up': ({'scenario.task': '2-2'}, r"task='2-2' does not fit the 3 .* B \+ k\*I = 3"),
    'more classes than there are': ({'scenario.task': '5-1'}, r"task='5-1' does not fit the 3 foreground classes"),
    'scenario.task without increment': ({'scenario.task': '15'}, r"scenario\.task='15' is not of the form 'B-I'"),
    'scenario.task of another type': ({'scenario.task': 21}, r"scenario\.task='?21'? is not of the form 'B-I'"),
    'increments of 0': ({'scenario.task': '2-0'}, r"task='2-0': base classes and increment must both be at least 1"),
    'neither task nor steps': ({'scenario.task': None}, r'needs exactly one of task='),
    'both task and steps': ({'scenario.steps': [['red'], ['blue']]}, r'needs exactly one of task='),
    'misspelt setting': ({'scenario.setting': 'overlaped'}, r"setting='overlaped' .*: did you mean 'overlapped'\?"),
    'misspelt label protocol': ({'scenario.label_protocol': 'mibb'}, r"label_protocol='mibb' .* mean 'mib'\?"),
    'setting of another type': ({'scenario.setting': 3}, r'scenario\.setting=3 is not one of'),
    'misspelt option of scenario': ({'scenario.seting': 'disjoint'}, r"no option 'seting': did you mean 'setting'\?"),
    'unknown class': ({'scenario.task': None, 'scenario.steps': [['red'], ['gren']]}, r"'gren': did you mean 'green'"),
    'a class that the data leave out': (
        {'train_dataloader.dataset': WITHOUT_BLUE, 'test_dataloader.dataset': WITHOUT_BLUE, 'scenario.task': None,
         'scenario.steps': [['red', 'green'], ['blue']]},
        r"steps\[1\] names 'blue', which is missing from metainfo\.classes of Colours: add it there"),
    'a class twice': ({'scenario.task': None, 'scenario.steps': [['red'], ['red']]}, r"'red' a second time"),
    'a class twice in one step': ({'scenario.task': None, 'scenario.steps': [['red', 'red']]}, r"'red' a second time"),
    'one name in place of a step': ({'scenario.task': None, 'scenario.steps': [('red'), ['blue']]},
                                    r"steps\[0\] is the string 'red': .* \('red', \)"),
    'numbers in a step': ({'scenario.task': None, 'scenario.steps': [['red'], [3]]},
                          r"scenario\.steps\[1\] contains 3, but class names must be strings: write '3'"),
    'a step without class': ({'scenario.task': None, 'scenario.steps': [['red'], []]}, r'steps\[1\] is empty'),
    'no step': ({'scenario.task': None, 'scenario.steps': []}, r'scenario\.steps is empty'),
    'steps that are no lists': ({'scenario.task': None, 'scenario.steps': ['red', 3]}, r"\['red', 3\] must be a list"),
    'class_order lacks a class': ({'scenario.class_order': ['red', 'green']}, r"missing \['blue'\]"),
    'class_order of another type': ({'scenario.class_order': 'red'}, r"class_order='red' must be a list"),
    'class_order beside steps': ({'scenario.task': None, 'scenario.steps': [['red']], 'scenario.class_order': ['red']},
                                 r'class_order is only for task'),
    'background that is a class': ({'scenario.background': 2},
                                   r"background=2, but BaseSegDataset has the class 'background'"),
    'background out of range': ({'scenario.background': 300}, r'background=300 must be a raw label from 0 to 254'),
    'background of another type': ({'scenario.background': 'zero'}, r"background='zero' is not a class of BaseSeg"),
    'zero_is_void of another type': ({'scenario.zero_is_void': 'yes'}, r"zero_is_void='yes' must be True or False"),
    'image list absent': ({'scenario.image_lists': {1: 'absent.npy'}}, r"Image list 'absent\.npy' cannot be read"),
    'image list of no step': ({'scenario.image_lists': {7: 'a.npy'}}, r'names step 7, but the steps are 0 to 1'),
    'image lists by name': ({'scenario.image_lists': {'one': 'a.npy'}}, r"the key 'one': its keys must be step"),
    'one path for all image lists': ({'scenario.image_lists': 'a.npy'}, r"image_lists='a\.npy' must be a list"),
    'scenario is no dict': ({'scenario': '2-1'}, r'has no scenario=dict\(\.\.\.\)'),
    # Method.
    'misspelt method': ({'method.type': 'HRFH'}, r"'HRFH' is not an incremental method: did you mean 'HRHF'\?"),
    'method without type': ({'method.type': None}, r'method\.type=None is not an incremental method: choose among'),
    'misspelt option of a method': ({'method.los_kd': {}}, r"no option 'los_kd': did you mean 'loss_kd'\?"),
    'option of a method of another type': ({'method.loss_kd': 'a'}, r"method\.loss_kd='a' must be a dict, or None"),
    'misspelt loss': ({'method.loss_kd.type': 'DistilationLoss'},
                      r"method\.loss_kd\.type='DistilationLoss' is not one of .* mean 'DistillationLoss'\?"),
    'loss of another kind': ({'method.loss_kd.type': 'CrossEntropyLoss'},
                             r"method\.loss_kd\.type='CrossEntropyLoss' is not one of 'DistillationLoss', "),
    'loss that takes other maps': ({'method.loss_kd.type': 'PODLoss'},
                                   r"method\.loss_kd=\{'type': 'PODLoss'\} fails on a student map with 3 channels"),
    'misspelt option of a loss': ({'method.loss_kd.weight': 1},
                                  r"method\.loss_kd has no option 'weight': did you mean 'loss_weight'\?"),
    'option of a loss of another type': ({'method.loss_kd.loss_weight': 'a'},
                                         r"method\.loss_kd\.loss_weight='a' must be a number"),
    'option of a loss out of range': ({'method.loss_kd.loss_weight': -1}, r'loss_weight=-1 must not be negative'),
    'option of a loss that is NaN': ({'method.loss_kd.loss_weight': float('nan')}, r'loss_weight=nan must be a number'),
    'misspelt classifier start': ({'method.classifier_start': 'mibb'}, r"classifier_start='mibb' .* mean 'mib'\?"),
    'method is no dict': ({'method': 'HRHF'}, r'has no method=dict\(\.\.\.\)'),
    # Replay and inversion.
    'replay is no dict': ({'replay': 'yes'}, r"replay='yes' must be a dict, or None"),
    'misspelt option of replay': ({'replay.rato': '1:1'}, r"replay has no option 'rato': did you mean 'ratio'\?"),
    'ratio with an empty side': ({'replay.ratio': '1:0'}, r"ratio='1:0': both sides must be at least 1.*replay=None"),
    'malformed ratio': ({'replay.ratio': '1/1'}, r"replay\.ratio='1/1' must be of the form 'real:fake'"),
    'ratio of another type': ({'replay.ratio': 0.5}, r"replay\.ratio=0\.5 must be of the form 'real:fake'"),
    'no fake images': ({'replay.num_images': 0}, r'replay\.num_images=0 must be a positive whole number'),
    'num_images of another type': ({'replay.num_images': '4'}, r"replay\.num_images='4' must be a positive whole"),
    'no inversion': ({'replay.inversion': None}, r'replay\.inversion=None must be a dict with a type'),
    'misspelt inversion': ({'replay.inversion.type': 'SegInvertion'}, r"'SegInvertion' .* mean 'SegInversion'\?"),
    'misspelt option of inversion': ({'replay.inversion.sise': 48}, r"no option 'sise': did you mean 'size'\?"),
    'inversion.lr of another type': ({'replay.inversion.lr': 'high'}, r"inversion\.lr='high' must be a number"),
    'inversion.lr out of range': ({'replay.inversion.lr': 0}, r'replay\.inversion\.lr=0 must be positive'),
    'inversion.stages of another type': ({'replay.inversion.stages': 3}, r'inversion\.stages=3 must be a list'),
    'inversion.stages end too small': ({'replay.inversion.stages': [(0.5, 2)]}, r'a last scale of 1'),
    'inversion.size of another type': ({'replay.inversion.size': 'big'}, r"inversion\.size='big' must be a whole"),
    'inversion.size out of range': ({'replay.inversion.size': -48}, r'inversion\.size=-48 must be positive'),
    'inversion.flip of another type': ({'replay.inversion.flip': 1}, r'inversion\.flip=1 must be True or False'),
    'unknown inversion.amp': ({'replay.inversion.amp': 'fp8'}, r"inversion\.amp='fp8' is not one of"),
    'inversion.batch_size out of range': ({'replay.inversion.batch_size': 0}, r'batch_size=0 must be positive'),
    'no class per image': ({'replay.inversion.classes_per_image': [0]}, r'must contain numbers of at least 1'),
    'misspelt aggregation': ({'replay.inversion.aggregation': dict(type='MaxAgregation')}, r"mean 'MaxAggregation'\?"),
    'aggregation.r out of range': ({'replay.inversion.aggregation.r': [0, 1]}, r'must contain only positive numbers'),
    # The rest of a run.
    'incremental_overrides of ours': ({'incremental_overrides.method': dict(loss_kd=None)}, r"cannot set \['method'\]"),
    'incremental_overrides is no dict': ({'incremental_overrides': 0.1}, r'incremental_overrides=0\.1 must be a dict'),
    'misspelt key of incremental_overrides': ({'incremental_overrides': dict(optim_wraper={})}, r"'optim_wrapper'\?"),
    'overrides that break the ratio': ({'incremental_overrides.train_dataloader': dict(batch_size=5)},
                                       r'batch_size=5 cannot be divided 1:1'),
    'step out of range': ({'only_step': 2}, r'There is no step 2: this scenario has steps 0 to 1'),
    'negative step': ({'only_step': -1}, r'There is no step -1'),
    'step of another type': ({'only_step': 'last'}, r"only_step='last' must be a whole number"),
    'step before its predecessor': ({'only_step': 1}, r'Step 1 continues step 0, which is not finished'),
    'seed of another type': ({'randomness': dict(seed='a')}, r"randomness\.seed='a' must be a whole number"),
    'negative seed': ({'randomness': dict(seed=-1)}, r'randomness\.seed=-1 \(--seed\) must be between'),
    'misspelt key': ({'scenaro': dict(task='2-1')}, r"unknown key 'scenaro': did you mean 'scenario'\?"),
    'no model': ({'model': None}, r'has no model=dict\(\.\.\.\)'),
    'no optimizer': ({'optim_wrapper': None}, r'has no optim_wrapper=dict'),
    'no training data': ({'train_dataloader': None}, r'has no train_dataloader=dict'),
    'no evaluation data': ({'test_dataloader': None}, r'neither test_dataloader nor val_dataloader'),
    'no evaluator': ({'test_evaluator': None}, r'has test_dataloader, but no test_evaluator'),
    'batch that the ratio does not divide': ({'train_dataloader.batch_size': 5}, r'use a multiple of 2'),
    'batch of another type': ({'train_dataloader.batch_size': 'all'}, r"batch_size='all' must be a whole number"),
    'empty batch': ({'train_dataloader.batch_size': 0}, r'batch_size=0 must be at least 1'),
    'no length': ({'train_cfg.max_epochs': None}, r'must have exactly one of max_epochs and max_iters'),
    'length of 0': ({'train_cfg.max_epochs': 0}, r'max_epochs=0 must be a positive whole number'),
    'evaluator with a prefix': ({'test_evaluator.prefix': 'val'}, r'must include an IoUMetric without prefix'),
    'evaluator of another kind': ({'test_evaluator.type': 'CityscapesMetric'}, r'CityscapesMetric is not supported'),
    'evaluator that ignores a class': ({'test_evaluator.ignore_index': 0}, r'test_evaluator\.ignore_index=0: class'),
    'head that ignores a class': ({'model.decode_head.ignore_index': 0}, r'ignore_index=0 of FCNHead: class indices'),
    'data that ignore a class': ({'train_dataloader.dataset.ignore_index': 0},
                                 r'ignore_index=0, but ignored pixels are always 255'),
    'inputs of six channels': ({'model.backbone.in_channels': 6}, r'in_channels is for 6 channels, but synthetic'),
    'batch sampler': ({'train_dataloader.batch_sampler': dict(type='AspectRatio')}, r'batch_sampler=.* not supported'),
    'strategy of another runner': ({'strategy': dict(type='DDPStrategy')}, r"an option of mmengine's FlexibleRunner"),
    'resume beside load_from': ({'load_from': 'a.pth', 'resume': True}, r"resume=True with load_from='a\.pth': a run"),
    'class weights that differ': ({'model.decode_head.loss_decode.class_weight': [1, 2, 1, 1]},
                                  r'class_weight for 4 classes, which cannot be adapted'),
    'misspelt head': ({'model.decode_head.type': 'FCNHed'}, r'model cannot be built .*FCNHed'),
    'misspelt option of the head': ({'model.decode_head.chanels': 8}, r"model cannot be built .*'chanels'"),
    'sigmoids where MiB merges classes of a softmax': (
        {'method': dict(_delete_=True, type='MiB'), 'model.decode_head.loss_decode.use_sigmoid': True},
        r'CrossEntropyLoss of FCNHead has use_sigmoid=True, but MiB'),
    'head without classes': ({'model.decode_head.num_classes': None}, r'num_classes'),
    'class weights of another length': ({'model.decode_head.loss_decode.class_weight': [1] * 3},
                                        r'class_weight for 4 classes'),
    'order of memory of another type': ({'channels_last': 'yes'}, r"channels_last='yes' must be True or False"),
    'order of memory that the head refuses': ({'channels_last': True, 'model.decode_head': DM_HEAD},
                                              r'EncoderDecoder with DMHead .*remove channels_last'),
    'load_from absent': ({'load_from': 'absent.pth'}, r"load_from='absent\.pth' does not exist"),
    'pretrained weights absent': ({'model.backbone.init_cfg': dict(type='Pretrained', checkpoint='absent.pth')},
                                  r"model\.backbone\.init_cfg\.checkpoint='absent\.pth' does not exist"),
    # Where the data are.
    'data_root absent': ({'train_dataloader.dataset.data_root': '/nowhere'}, r"data_root '/nowhere' of .* not exist"),
    'folder absent': ({'train_dataloader.dataset.data_prefix.img_path': 'imgs'}, r'imgs. \(data_prefix\.img_path '),
    'ann_file absent': ({'train_dataloader.dataset.ann_file': 'list.txt'}, r'list\.txt. \(ann_file of .* not exist'),
    'no image of that suffix': ({'train_dataloader.dataset.img_suffix': '.bmp'}, r"contains no images: .*'\.bmp'"),
    'misspelt data set': ({'train_dataloader.dataset.type': 'BaseSegDatset'}, r"'BaseSegDatset' is not registered"),
    'reduce_zero_label of one side': ({'train_dataloader.dataset.reduce_zero_label': True},
                                      r'different classes or a different reduce_zero_label'),
    'one class name in brackets': ({'train_dataloader.dataset.metainfo.classes': ('water')},
                                   r"classes of train_dataloader .* is the string 'water', .* \('water', \)"),
    'numbers as class names': ({'train_dataloader.dataset.metainfo.classes': ['background', 1, 2, 3]},
                               r"classes of train_dataloader \(BaseSegDataset\) contains 1, .* write '1'"),
    'numbers as class names in the test data': ({'test_dataloader.dataset.metainfo.classes': [0, 1, 2, 3]},
                                                r'classes of test_dataloader \(BaseSegDataset\) contains 0'),
    'an empty class name': ({'train_dataloader.dataset.metainfo.classes': ['background', '', 'b', 'c']},
                            r"contains the empty name ''"),
    'two class names without comma': (
        {'train_dataloader.dataset.metainfo.classes': ['background', 'red' 'green', 'blue']},
        r"has 4 colours for 3 classes .*'redgreen'.*Without a comma between them, Python joins two names"),
    'a class that the data do not have': ({'train_dataloader.dataset': dict(
        type='Colours', metainfo=dict(classes=['background', 'gren']))}, r"names 'gren', .* did you mean 'green'\?"),
    'fewer colours than classes': ({'train_dataloader.dataset.metainfo.palette': [[0, 0, 0], [9, 9, 9]]},
                                   r'palette of train_dataloader .* has 2 colours for 4 classes'),
    'one colour for all classes': ({'train_dataloader.dataset.metainfo.palette': [255, 0, 0, 0]},
                                   r'palette\[0\]=255 of train_dataloader .* must be three whole numbers'),
    'metainfo that is no dict': ({'train_dataloader.dataset.metainfo': ['background', 'red']},
                                 r"metainfo=\['background', 'red'\] of train_dataloader .* must be a dict"),
    'a class name twice in the data': ({'train_dataloader.dataset.metainfo.classes': ['background', 'a', 'a', 'b']},
                                       r'has two classes with the same name'),
}


@pytest.mark.parametrize('case', CONFIGS)
def test_config(tiny_config, tiny_root, case):
    options, message = CONFIGS[case]
    tiny_config.merge_from_dict(options)
    line = refusal(lambda: RUNNERS.build(tiny_config).train())
    check('config', case, line, message, ('WORK_DIR', tiny_config.work_dir), ('DATA', tiny_root))
    work_dir = Path(tiny_config.work_dir)
    assert not (work_dir / 'step_0').exists() and not (work_dir / 'run.json').exists()


# -- data ------------------------------------------------------------------------------------------------------------


def turned(side=48):
    """A JPEG of 48 x 50 stored pixels that EXIF turns by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.new('RGB', (side, side + 2)).save(stream, 'JPEG', exif=exif)
    return stream.getvalue()


def png_header(width, height):
    """A PNG that claims a size and holds no pixel."""
    def chunk(name, data):
        return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)) + chunk(
        b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')


def jpeg(side=48):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)).save(stream, 'JPEG')
    return stream.getvalue()


MASK, IMAGE = 'masks/train/003.png', 'images/train/003.png'
# A file of the data set | its new content (bytes, an image, None to delete it) | what the answer must hold.
DATA = {
    'empty mask': (MASK, b'', r"masks/train/003\.png' is not a readable image \(0 bytes\)"),
    'mask that is no image': (MASK, b'no image', r"003\.png' is not a readable image \(8 bytes\)"),
    'mask in colour': (MASK, Image.new('RGB', (48, 48)), r"has mode 'RGB'; a mask must be one 8-bit channel"),
    'mask with transparency': (MASK, Image.new('RGBA', (48, 48)), r"has mode 'RGBA'"),
    'mask of 16 bits': (MASK, Image.fromarray(np.zeros((48, 48), np.uint16)), r"has mode 'I;16'"),
    'label out of range': (MASK, Image.fromarray(np.full((48, 48), 9, np.uint8)), r'label 9, .*known: 0-3, 255'),
    'mask absent': (MASK, None, r"masks/train/003\.png' cannot be read: .*No such file"),
    'mask of another size': (MASK, Image.new('L', (24, 48)), r'is 48 x 48 pixels, but its mask .* is 24 x 48'),
    'mask that is a bomb': (MASK, png_header(50000, 50000), r"masks/train/003\.png'.*decompression bomb"),
    'empty image': (IMAGE, b'', r"images/train/003\.png' is not a readable image \(0 bytes\)"),
    'image that is no image': (IMAGE, b'no image', r"images/train/003\.png' is not a readable image \(8 bytes\)"),
    'image of another size': (IMAGE, Image.new('RGB', (48, 50)), r'is 48 x 50 pixels, but its mask .* is 48 x 48'),
    'image turned by EXIF': (IMAGE, turned(), r'is 50 x 48 pixels, but its mask .* EXIF turns the image by 90 degrees'),
    'truncated JPEG': (IMAGE, jpeg()[:-300], r"images/train/003\.png' cannot be read: .*truncated"),
    'JPEG cut in its header': (IMAGE, jpeg()[:30], r"images/train/003\.png' (is not|cannot)"),
    'truncated PNG': (IMAGE, 'cut', r"images/train/003\.png' cannot be read: .*truncated"),
    'image that is a bomb': (IMAGE, png_header(50000, 50000), r"images/train/003\.png'.*decompression bomb"),
}


@pytest.fixture
def data_copy(tiny_config, tiny_root, tmp_path):
    root = tmp_path / 'set'
    shutil.copytree(tiny_root, root)
    tiny_config.train_dataloader.dataset.data_root = str(root)
    return root


@pytest.mark.parametrize('case', DATA)
def test_data(tiny_config, data_copy, case):
    name, content, message = DATA[case]
    path = data_copy / name
    if content is None:
        path.unlink()
    elif content == 'cut':
        path.write_bytes(path.read_bytes()[:-200])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content.save(path)
    line = refusal(RUNNERS.build, tiny_config)
    check('data', case, line, message, ('DATA', data_copy))


def test_image_damaged_after_it_was_checked(tiny_config, data_copy):
    data = tiny_config.train_dataloader.dataset
    dataset = DATASETS.build(dict(type='IncrementalDataset', dataset=data, scenario=tiny_config.scenario, step=0))
    (data_copy / IMAGE).write_bytes(b'no image')
    check('data', 'image damaged during a run', refusal(dataset.__getitem__, 3),
          r"images/train/003\.png' or its mask cannot be read or transformed", ('DATA', data_copy))


def test_image_of_the_list_is_absent(tiny_config, data_copy):
    names = [path.stem for path in sorted((data_copy / 'images/train').iterdir())]
    (data_copy / 'list.txt').write_text('\n'.join(names))
    tiny_config.train_dataloader.dataset.ann_file = 'list.txt'
    (data_copy / IMAGE).unlink()
    line = refusal(RUNNERS.build, tiny_config)
    check('data', 'image of the list absent', line, r'003\.png. cannot be read: .*No such file', ('DATA', data_copy))


def test_empty_folder(tiny_config, data_copy):
    for path in (data_copy / 'images/train').iterdir():
        path.unlink()
    check('data', 'empty folder', refusal(RUNNERS.build, tiny_config), r'contains no images', ('DATA', data_copy))


def test_step_without_image(tiny_config, data_copy):
    for path in (data_copy / 'masks' / 'train').iterdir():
        mask = np.array(Image.open(path))
        mask[mask == 3] = 0
        Image.fromarray(mask).save(path)
    line = refusal(RUNNERS.build, tiny_config)
    check('data', 'class without image', line, r'Step 1 \(blue\) has no training images', ('DATA', data_copy))


def test_pillows_limit_is_on():
    assert Image.MAX_IMAGE_PIXELS == 1024 * 1024 * 1024 // 4 // 3


# -- image lists -----------------------------------------------------------------------------------------------------


class Payload:
    """Pickles as a call that creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


LISTS = {
    'position out of range': ('a.npy', lambda path: np.save(path, [0, 20]), r'position 20, but the dataset has 20'),
    'negative position': ('a.npy', lambda path: np.save(path, [-1]), r'contains position -1'),
    'position twice': ('a.npy', lambda path: np.save(path, [12, 13, 12]), r"contains '012' more than once"),
    'positions of another type': ('a.npy', lambda path: np.save(path, [1.5]),
                                  r'is an array of float64, but must contain integers or'),
    'truncated list': ('a.npy', lambda path: path.write_bytes(b'\x93NUMPY'), r'cannot be read'),
    'list of another format': ('a.csv', lambda path: path.write_text('0'), r'must end in \.npy .* or \.txt'),
    'unknown name': ('a.txt', lambda path: path.write_text('012\nabsent\n'), r"names 1 images .* such as 'absent'"),
    'name twice': ('a.txt', lambda path: path.write_text('012\n012\n'), r"contains '012' more than once"),
    'empty list': ('a.txt', lambda path: path.write_text(''), r'Step 1 \(blue\) has no training images'),
}


@pytest.mark.parametrize('case', LISTS)
def test_image_list(tiny_config, tiny_root, tmp_path, case):
    name, write, message = LISTS[case]
    write(tmp_path / name)
    tiny_config.scenario.image_lists = {1: str(tmp_path / name)}
    line = refusal(RUNNERS.build, tiny_config)
    check('image list', case, line, message, ('DIR', tmp_path), ('DATA', tiny_root))


def test_image_list_with_code(tiny_config, tmp_path):
    np.save(tmp_path / 'a.npy', np.array([Payload(tmp_path / 'ran')], dtype=object), allow_pickle=True)
    tiny_config.scenario.image_lists = {1: str(tmp_path / 'a.npy')}
    line = refusal(RUNNERS.build, tiny_config)
    check('image list', 'pickled code', line, r'no pickled objects', ('DIR', tmp_path))
    assert not (tmp_path / 'ran').exists()


# -- checkpoints -----------------------------------------------------------------------------------------------------


def save_code(path, ran):
    torch.save(dict(state_dict={'x': Payload(ran)}, meta={}), path)


def save_legacy_code(path, ran):
    """As torch wrote before 1.6: a bare pickle."""
    with open(path, 'wb') as file:
        pickle.dump(dict(state_dict={'x': Payload(ran)}), file)


WEIGHTS = {
    'pickled code': (save_code, r'holds more than tensors and plain data'),
    'pickled code, old format': (save_legacy_code, r'holds more than tensors|truncated, damaged or not a checkpoint'),
    'truncated': (lambda path, ran: path.write_bytes(b'PK\x03\x04'), r'truncated, damaged or not a checkpoint'),
    'empty': (lambda path, ran: path.write_bytes(b''), r'truncated, damaged or not a checkpoint'),
}


@pytest.mark.parametrize('case, option', [*((case, 'load_from') for case in WEIGHTS),
                                          ('pickled code', 'model.pretrained'),
                                          ('pickled code', 'model.backbone.init_cfg.checkpoint')])
def test_weights_to_start_from(tiny_config, tmp_path, case, option):
    write, message = WEIGHTS[case]
    write(tmp_path / 'a.pth', tmp_path / 'ran')
    if option.endswith('init_cfg.checkpoint'):
        tiny_config.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'))
    else:
        tiny_config.merge_from_dict({option: str(tmp_path / 'a.pth')})
    line = refusal(RUNNERS.build, tiny_config)
    assert not (tmp_path / 'ran').exists()
    assert option in line
    check(option, case, line, message, ('DIR', tmp_path))


def evaluation(cfg, tmp_path):
    return lambda: run_test(cfg, str(tmp_path / 'a.pth'))


def save_meta(path, model, **meta):
    save_checkpoint(path, MODELS.build(model).state_dict(), meta)


TESTED = {
    'absent': (lambda path, cfg: None, r'a\.pth does not exist'),
    'truncated': (lambda path, cfg: path.write_bytes(b'PK'), r'a\.pth \(2 bytes\) is truncated or not a checkpoint'),
    'pickled code': (lambda path, cfg: save_code(path, path.parent / 'ran'), r'holds more than tensors'),
    'without weights': (lambda path, cfg: torch.save(dict(a=1), path), r"has no 'state_dict'"),
    'of no step': (lambda path, cfg: save_meta(path, cfg.model), r'does not state its step'),
    'of a step that is not there': (lambda path, cfg: save_meta(path, cfg.model, step=5), r'There is no step 5'),
    'of other classes': (lambda path, cfg: save_meta(path, cfg.model, step=0, dataset_meta=dict(classes=['a'] * 4)),
                         r'has 4 classes .* but 3 are needed'),
}


@pytest.mark.parametrize('case', TESTED)
def test_checkpoint_to_test(tiny_config, tmp_path, case):
    write, message = TESTED[case]
    write(tmp_path / 'a.pth', tiny_config)
    line = refusal(evaluation(tiny_config, tmp_path))
    assert not (tmp_path / 'ran').exists()
    check('tools/test.py CHECKPOINT', case, line, message, ('DIR', tmp_path))


def test_teacher_with_another_class_count(tiny_config, tmp_path):
    model = MODELS.build(tiny_config.model)
    path = tmp_path / 'checkpoint.pth'
    save_checkpoint(path, model.state_dict(), {})
    teacher = tiny_config.model.copy()
    teacher['decode_head'] = dict(teacher['decode_head'], num_classes=3)
    build = dict(type='HRHF', student=tiny_config.model, teacher=teacher, teacher_checkpoint=str(path))
    line = refusal(MODELS.build, build)
    check('checkpoint', 'teacher of another shape', line, r'does not match the network of the previous .*conv_seg',
          ('DIR', tmp_path))
    save_checkpoint(path, model.state_dict(), dict(dataset_meta=dict(classes=['background', 'a', 'b', 'c'])))
    line = refusal(load_checkpoint, path, 3)
    check('checkpoint', 'teacher of other classes', line, r'has 4 classes .* but 3 are needed', ('DIR', tmp_path))


# -- a work dir that something has happened to -----------------------------------------------------------------------


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """Work dir of a finished run of two short steps, and its config file."""
    return {}


@pytest.fixture
def work(tiny_config, finished, tmp_path_factory):
    """A copy of a finished run's work dir, for ``tiny_config`` of two epochs."""
    tiny_config.train_cfg.max_epochs = tiny_config.train_cfg.val_interval = 1
    tiny_config.default_hooks.checkpoint.interval = 1
    if 'folder' not in finished:
        finished['folder'] = tmp_path_factory.mktemp('finished') / 'work'
        RUNNERS.build(Config(dict(tiny_config._cfg_dict, work_dir=str(finished['folder'])))).train()
    shutil.copytree(finished['folder'], tiny_config.work_dir)
    return Path(tiny_config.work_dir)


def rerun(cfg):
    return lambda: RUNNERS.build(cfg).train()


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def edit(path, **values):
    path.write_text(json.dumps(dict(json.loads(path.read_text()), **values)))


def as_unfinished(work, step):
    (work / f'step_{step}' / 'result.json').unlink()
    shutil.rmtree(work / f'step_{step}' / 'train')


# What happens to a finished run | what the answer must hold.
WORK_DIRS = {
    'checkpoint truncated': (lambda work: cut(work / 'step_0/checkpoint.pth'), r'step_0/checkpoint\.pth of the finish'),
    'checkpoint absent': (lambda work: (work / 'step_0/checkpoint.pth').unlink(), r'of the finished step 0 is missing'),
    'checkpoint of another step': (lambda work: shutil.copy(work / 'step_1/checkpoint.pth', work / 'step_0'),
                                   r'of the finished step 0 is missing, truncated or changed'),
    'result cut, training deleted': (lambda work: (cut(work / 'step_0/result.json'),
                                                   shutil.rmtree(work / 'step_0/train')), r'result\.json is damaged'),
    'result of another step': (lambda work: (shutil.copy(work / 'step_1/result.json', work / 'step_0'),
                                             shutil.rmtree(work / 'step_0/train')), r'is not a result of step 0'),
    'identity.json cut': (lambda work: cut(work / 'step_0/identity.json'), r'identity\.json is damaged .*delete it'),
    'fakes of another teacher': (lambda work: (as_unfinished(work, 1), edit(work / 'step_1/fakes/fingerprint.json',
                                                                            teacher='another')),
                                 r'step_1/fakes are stale.*teacher: "another" there.*Delete that folder'),
    'fakes of other options': (lambda work: (as_unfinished(work, 1), edit(work / 'step_1/fakes/fingerprint.json',
                                                                          seed=77)), r'are stale.*seed: 77 there'),
}


@pytest.mark.parametrize('case', WORK_DIRS)
def test_work_dir(tiny_config, work, case):
    damage, message = WORK_DIRS[case]
    damage(work)
    check('work dir', case, refusal(rerun(tiny_config)), message, ('WORK_DIR', work))


@pytest.mark.parametrize('options, key', [({'method': dict(_delete_=True, type='FineTuning')}, r'method\.'),
                                          ({'optim_wrapper.optimizer.lr': 0.5}, r'optim_wrapper\.optimizer\.lr'),
                                          ({'randomness': dict(seed=3)}, r'seed')],
                         ids=['method', 'learning rate', 'seed'])
def test_work_dir_of_another_run(tiny_config, work, options, key, request):
    tiny_config.merge_from_dict(options)
    line = refusal(rerun(tiny_config))
    check('work dir', f'of another {request.node.callspec.id}', line,
          rf'another config: step \d was trained with other settings of .*{key}', ('WORK_DIR', work))


def test_teacher_of_another_step_with_a_result_to_match(tiny_config, work):
    """A checkpoint and its result copied over together are whole, yet not those of the step."""
    from mmseg_hrhf.utils.io import sha256
    as_unfinished(work, 1)
    state = load_checkpoint(work / 'step_0/checkpoint.pth')
    state['meta']['step'] = 4
    save_checkpoint(work / 'step_0/checkpoint.pth', state['state_dict'], state['meta'])
    edit(work / 'step_0/result.json', checkpoint_sha256=sha256(work / 'step_0/checkpoint.pth'))
    line = refusal(rerun(tiny_config))
    check('work dir', 'teacher of another step', line, r'is of step 4 .* but step 1 continues step 0',
          ('WORK_DIR', work))


def test_teacher_with_code(tiny_config, work, tmp_path):
    from mmseg_hrhf.utils.io import sha256
    as_unfinished(work, 1)
    save_code(work / 'step_0/checkpoint.pth', tmp_path / 'ran')
    edit(work / 'step_0/result.json', checkpoint_sha256=sha256(work / 'step_0/checkpoint.pth'))
    line = refusal(rerun(tiny_config))
    assert not (tmp_path / 'ran').exists()
    check('work dir', 'teacher with pickled code', line, r'step_0/checkpoint\.pth holds more than tensors',
          ('WORK_DIR', work))


def test_resume_point_with_code(tiny_config, work, tmp_path):
    (work / 'step_1' / 'result.json').unlink()
    save_code(work / 'step_1/train/resume.pth', tmp_path / 'ran')
    line = refusal(rerun(tiny_config))
    assert not (tmp_path / 'ran').exists()
    check('work dir', 'resume point with pickled code', line, r'train/resume\.pth holds more than tensors',
          ('WORK_DIR', work))


def mended(work):
    """Everything of a finished run but its logs: what a rerun must leave as it was."""
    kept = {}
    for path in sorted(work.rglob('*')):
        name = path.relative_to(work).as_posix()
        if path.is_file() and '/train/' not in name and name not in ('run.log', '.lock'):
            kept[name] = path.read_bytes()
    return kept


MENDED = {
    'results.md': lambda work: cut(work / 'results.md'),
    'results.json': lambda work: (work / 'results.json').unlink(),
    'plain config, cut': lambda work: cut(work / 'step_0/config.py'),
    'plain config, empty': lambda work: (work / 'step_1/config.py').write_text(''),
    'list of test images, cut': lambda work: cut(work / 'step_1/test_images.txt'),
    'class index': lambda work: [path.write_bytes(b'PK') for path in (work / 'class_index').iterdir()],
    'class index of other data': lambda work: [shutil.copy(a, b) for a, b in zip(
        *(lambda p: (p, p[1:] + p[:1]))(sorted((work / 'class_index').iterdir())))],
}


@pytest.mark.parametrize('case', MENDED)
def test_what_can_be_made_again_is(tiny_config, work, case):
    before = mended(work)
    MENDED[case](work)
    assert mended(work) != before
    RUNNERS.build(tiny_config).train()
    assert mended(work).keys() == before.keys()
    different = [name for name in before if not name.endswith('.npz') and mended(work)[name] != before[name]]
    assert different == []


def test_damaged_result_is_measured_again(tiny_config, work):
    path = work / 'step_0' / 'result.json'
    before = json.loads(path.read_text())
    cut(path)
    RUNNERS.build(tiny_config).train()
    after = json.loads(path.read_text())
    for result in (before, after):
        del result['seconds']
    assert {**after, 'checkpoint_sha256': ''} == {**before, 'checkpoint_sha256': ''}


def test_damaged_fakes_are_made_again_alike(tiny_config, work):
    as_unfinished(work, 1)
    fakes = work / 'step_1' / 'fakes'
    before = {path.name: path.read_bytes() for path in sorted((fakes / 'images').iterdir())}
    manifest = (fakes / 'manifest.jsonl').read_bytes()
    content = bytearray(before['000001.png'])
    content[len(content) // 2] ^= 1
    (fakes / 'images/000001.png').write_bytes(content)
    cut(fakes / 'manifest.jsonl')
    cut(fakes / 'batches/000002.json')
    (fakes / 'blank.png').unlink()
    RUNNERS.build(tiny_config).train()
    assert {path.name: path.read_bytes() for path in sorted((fakes / 'images').iterdir())} == before
    assert (fakes / 'manifest.jsonl').read_bytes() == manifest and (fakes / 'blank.png').exists()


# -- the command line ------------------------------------------------------------------------------------------------


def test_train_tool_says_it_in_one_line_and_fails(tiny_config_file, tmp_path, repo):
    done = subprocess.run([sys.executable, str(repo / 'tools/train.py'), str(tiny_config_file), '--work-dir',
                           str(tmp_path / 'work'), '--cfg-options', 'replay.ratio=0:1'],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: replay.ratio='0:1': both sides must be at least 1")


def test_test_tool_says_it_in_one_line_and_fails(tiny_config_file, tmp_path, run_tool):
    done = run_tool('test.py', tiny_config_file, tmp_path / 'absent.pth', '--work-dir', tmp_path / 'work')
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert re.search(r'^error: Checkpoint .*absent\.pth does not exist', done.stderr.strip().splitlines()[-1])


FILES = {
    'absent': (None, [], r"Config file .*c\.py' does not exist"),
    'syntax error': ('model = dict(', [], r'cannot be read'),
    'base absent': ("_base_ = 'nowhere.py'", [], r'cannot be read.*nowhere\.py'),
    'no KEY=VALUE': ('a = 1', ['replay'], r"--cfg-options 'replay' is not of the form KEY=VALUE"),
}


# mmengine leaves the copy open that it reads a config from.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning', 'ignore::ResourceWarning')
@pytest.mark.parametrize('case', FILES)
def test_config_file(tmp_path, case):
    content, options, message = FILES[case]
    if content is not None:
        (tmp_path / 'c.py').write_text(content)
    line = refusal(load_config, str(tmp_path / 'c.py'), options)
    gc.collect()
    check('config file', case, line, message, ('DIR', tmp_path))
