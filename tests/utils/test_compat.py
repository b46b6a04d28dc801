"""What `utils/compat.py` needs of the private parts of mmengine, mmseg and torch, on either line of the toolbox.

A test that fails here says which part a new version of the toolbox has changed.
"""
import ast
import copy
import functools
import gc
import inspect
import pickle
import re
import weakref

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import BaseModel, ImgDataPreprocessor, revert_sync_batchnorm
from mmengine.runner import CheckpointLoader, Runner
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.visualization import Visualizer
from mmseg.datasets import PascalVOCDataset
from mmseg.models import SegDataPreProcessor
from mmseg.models.decode_heads import FCNHead
from mmseg.models.segmentors import EncoderDecoder
from mmseg.visualization import SegLocalVisualizer
from torch import nn
from torch.utils.data import DataLoader

from mmseg_hrhf.utils import compat

# -- torch -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('base, layers', [
    (compat.BatchNorm, [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm]),
    (compat.InstanceNorm, [nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d]),
])
def test_base_classes_of_layers(base, layers):
    assert all(issubclass(layer, base) for layer in layers)
    assert not any(issubclass(layer, base) for layer in (nn.LayerNorm, nn.GroupNorm, nn.Linear))


def test_reverted_sync_batch_norm_is_of_the_base_class_alone():
    reverted = revert_sync_batchnorm(nn.SyncBatchNorm(3))
    assert isinstance(reverted, compat.BatchNorm)
    assert not isinstance(reverted, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm))


class Bare(nn.Module):
    """Writes `net.weight` as `weight`."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 1, bias=False)
        compat.rename_in_state(self, 'net.', '')


class Old(Bare):
    """As in torch < 2.5, which has the hooks under underscore names alone."""
    register_state_dict_post_hook = property(lambda self: self.missing)


@pytest.mark.parametrize('kind', [Bare, Old])
@pytest.mark.parametrize('copied', [lambda module: module, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_state_is_renamed_alone_and_nested(kind, copied):
    public = [hasattr(nn.Module, f'register_{name}') for name in ('state_dict_post_hook', 'load_state_dict_pre_hook')]
    assert public in ([True, True], [False, False])
    assert not hasattr(Old(), 'register_state_dict_post_hook')
    module, other = copied(kind()), nn.Sequential(nn.Identity(), kind())
    assert list(module.state_dict()) == ['weight'] and list(other.state_dict()) == ['1.weight']
    other.load_state_dict({'1.weight': torch.full((1, 2), 7.)})
    module.load_state_dict({'weight': other[1].net.weight})
    assert module.net.weight.tolist() == [[7, 7]]
    # mmengine loads by a function of its own.
    mmengine_checkpoint.load_state_dict(other, {'1.weight': torch.zeros(1, 2)}, strict=True)
    assert other[1].net.weight.tolist() == [[0, 0]]


class Followed(compat.FollowedByOthers, BaseModel):

    def __init__(self):
        super().__init__()
        self.own, self.hidden = nn.Linear(1, 1), [nn.Linear(1, 1)]

    def followers(self):
        return self.hidden

    def forward(self, inputs):
        return inputs


@pytest.mark.parametrize('nested', [False, True])
@pytest.mark.parametrize('move', [
    lambda m: m.to(torch.float64), lambda m: m.double(), lambda m: m.to('meta'), lambda m: m.half(),
    lambda m: m.to_empty(device='meta')
])
def test_others_follow(move, nested):
    model = Followed()
    move(nn.ModuleList([model]) if nested else model)
    own, other = model.own.weight, model.hidden[0].weight
    assert (own.dtype, own.device) == (other.dtype, other.device) != (torch.float32, torch.device('cpu'))


# -- configs and datasets --------------------------------------------------------------------------------------------


def test_a_config_is_found_by_the_name_of_a_package(monkeypatch, tmp_path):
    from mmengine.config import utils
    monkeypatch.setattr(utils, 'MODULE2PACKAGE', dict(utils.MODULE2PACKAGE))
    (tmp_path / 'a.py').write_text("_base_ = 'mmseg_of_nobody::some/b.py'")
    with pytest.raises(AssertionError, match='mmseg_of_nobody'):
        Config.fromfile(tmp_path / 'a.py')
    compat.set_package_name('mmseg_of_nobody', 'a-package-of-nobody')
    with pytest.raises(Exception, match='a-package-of-nobody'):  # is not installed
        Config.fromfile(tmp_path / 'a.py')


@pytest.mark.parametrize('given', [None, {}, dict(classes=['a', 'b']), dict(extra=1)])
def test_metainfo_is_that_of_a_built_dataset(given):
    found = compat.dataset_metainfo(PascalVOCDataset, given)
    expected = BaseDataset(metainfo={**PascalVOCDataset.METAINFO, **(given or {})}, lazy_init=True, pipeline=[])
    assert found == expected.metainfo
    found['classes'] = None
    assert PascalVOCDataset.METAINFO['classes'] and (given is None or given.get('classes', 0) is not None)


def test_metainfo_reads_a_file_of_names(tmp_path):
    (tmp_path / 'names.txt').write_text('cat\ndog\n')
    assert compat.dataset_metainfo(BaseDataset, dict(classes=str(tmp_path / 'names.txt')))['classes'] == ['cat', 'dog']


@pytest.mark.parametrize('kind', [SegDataPreProcessor, ImgDataPreprocessor])
@pytest.mark.parametrize('options', [dict(), dict(bgr_to_rgb=True), dict(rgb_to_bgr=True)])
def test_swapped_channels(kind, options):
    preprocessor = kind(**options)
    assert compat.swaps_channels(preprocessor) == bool(options)
    image = torch.tensor([1, 2, 3], dtype=torch.uint8).view(3, 1, 1)
    data = dict(inputs=[image], data_samples=None)
    fed = preprocessor(data)['inputs'].flatten().tolist()
    assert fed == ([3, 2, 1] if options else [1, 2, 3])


@pytest.mark.parametrize('kind', [SegDataPreProcessor, ImgDataPreprocessor])
def test_a_preprocessor_has_a_mean_where_it_normalises(kind):
    """Public, but nowhere promised: replay/inversion/pixels.py looks for it."""
    assert not hasattr(kind(), 'mean')
    assert kind(mean=[1, 2, 3], std=[1, 1, 1]).mean.flatten().tolist() == [1, 2, 3]


# -- losses ----------------------------------------------------------------------------------------------------------


def tiny_segmentor(**head):
    return EncoderDecoder(
        backbone=dict(type='FastSCNN', global_out_channels=8, higher_in_channels=8, lower_in_channels=8,
                      global_in_channels=8, downsample_dw_channels=(8, 8), global_block_channels=(8, 8, 8),
                      global_block_strides=(2, 2, 1), fusion_out_channels=8, out_indices=(0, 1, 2)),
        decode_head=dict(type='FCNHead', in_channels=8, in_index=-1, channels=8, num_convs=0, concat_input=False,
                         num_classes=3, **head),
        auxiliary_head=dict(type='FCNHead', in_channels=8, in_index=-2, channels=8, num_convs=0, concat_input=False,
                            num_classes=3))


def samples(number, side):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample
    made = [SegDataSample() for _ in range(number)]
    for sample in made:
        sample.gt_sem_seg = PixelData(data=torch.zeros(1, side, side, dtype=torch.long))
    return made


def test_training_goes_by_these_methods_alone(monkeypatch):
    """`loss` calls each once, each calls `loss` of a head: models/student_pass.py does the same by itself."""
    calls = []

    def counted(name, own):
        return lambda *args: (calls.append(name), own(*args))[1]

    segmentor = tiny_segmentor()
    for name in compat.TRAINING_PARTS:
        assert callable(getattr(EncoderDecoder, name))
        monkeypatch.setattr(segmentor, name, counted(name, getattr(segmentor, name)))
    for head in (segmentor.decode_head, segmentor.auxiliary_head):
        for name in ('loss', 'forward', 'loss_by_feat'):
            monkeypatch.setattr(head, name, counted(name, getattr(head, name)))
    losses = segmentor.loss(torch.zeros(2, 3, 64, 64), samples(2, 64))
    own = ['loss', 'forward', 'loss_by_feat']
    assert calls == [compat.TRAINING_PARTS[0], *own, compat.TRAINING_PARTS[1], *own]
    assert list(losses) == ['decode.loss_ce', 'decode.acc_seg', 'aux.loss_ce', 'aux.acc_seg']


def test_a_replaced_loss_is_called_once_with_the_logits():
    segmentor, calls, fired = tiny_segmentor(), [], []
    head = segmentor.decode_head
    assert type(head) is FCNHead
    head.register_forward_hook(lambda *args: fired.append(args))

    def make(own):
        return lambda *args: (calls.append(args), own(*args))[1]

    given = samples(2, 64)
    with compat.replaced_loss(head, make):
        segmentor.loss(torch.zeros(2, 3, 64, 64), given)
    assert len(calls) == 1 and calls[0][0].shape[:2] == (2, 3) and calls[0][1] is given
    assert not fired, 'a forward hook would do: replaced_loss can go'
    segmentor.loss(torch.zeros(2, 3, 64, 64), given)
    assert len(calls) == 1 and 'loss_by_feat' not in vars(head)


# -- runners ---------------------------------------------------------------------------------------------------------


class Quiet(compat.NoTrace, Runner):
    pass


class Net(BaseModel):

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return dict(loss=self.layer(inputs.float()).sum())


class Numbers(torch.utils.data.Dataset):

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return dict(inputs=torch.full((1, ), float(index)))


def runner_of(kind, folder, **options):
    # Of each call, since mmengine holds what it makes by the name of the experiment.
    return kind(model=Net(), work_dir=str(folder), experiment_name=str(folder), default_scope='mmseg',
                train_dataloader=DataLoader(Numbers(), batch_size=2, num_workers=1, persistent_workers=True),
                train_cfg=dict(by_epoch=True, max_epochs=1), optim_wrapper=dict(optimizer=dict(type='SGD', lr=.1)),
                **options)


def test_a_runner_without_a_trace(tmp_path, monkeypatch):
    calls = []
    for name in ('_log_env', 'dump_config', 'wrap_model'):
        own = getattr(Runner, name)
        assert inspect.signature(getattr(Quiet, name)).parameters.keys() == inspect.signature(own).parameters.keys()
        monkeypatch.setattr(Runner, name, functools.partialmethod(
            lambda self, *args, name, own: (calls.append(name), own(self, *args))[1], name=name, own=own))
    bare = dict(visualizer=dict(type='Visualizer', vis_backends=[]))
    assert type(runner_of(Quiet, tmp_path / 'quiet', **bare).model) is Net
    written = [path for path in (tmp_path / 'quiet').rglob('*') if path.is_file()]
    assert not calls and {path.suffix for path in written} <= {'.log'}
    assert 'System environment' not in ''.join(path.read_text() for path in written)
    runner_of(Runner, tmp_path / 'loud', **bare)
    assert sorted(calls) == ['_log_env', 'dump_config', 'wrap_model']


def test_workers_end_at_once(tmp_path):
    runner = runner_of(Quiet, tmp_path, val_dataloader=DataLoader(Numbers(), batch_size=1), val_cfg=dict(),
                       val_evaluator=dict(type='IoUMetric'), log_level='CRITICAL')
    compat.end_data_workers(runner)  # no loop is built yet, and none is by this
    assert isinstance(runner._train_loop, dict) and isinstance(runner._val_loop, dict)
    loader = runner.train_loop.dataloader
    for _ in loader:
        pass
    worker = loader._iterator._workers[0]
    assert worker.is_alive()
    iterator = weakref.ref(loader._iterator)
    compat.end_data_workers(runner)
    gc.collect()
    assert iterator() is None and not worker.is_alive()
    assert isinstance(runner._val_loop, dict)


@pytest.mark.parametrize('kind', [MMLogger, MessageHub, Visualizer, SegLocalVisualizer])
def test_what_is_forgotten_is_let_go(kind):
    name = f'forgotten {kind.__name__}'
    options = dict(logger_name=name) if kind is MMLogger else {}
    instance = kind.get_instance(name, **options)
    assert kind.check_instance_created(name)
    compat.forget(instance)
    bases = [base for base in kind.__mro__ if hasattr(base, 'check_instance_created')]
    assert bases and not any(base.check_instance_created(name) for base in bases)
    held = weakref.ref(instance)
    del instance
    gc.collect()
    # Python's logging holds loggers itself on some lines of mmengine.
    assert held() is None or kind is MMLogger


# -- files of weights ------------------------------------------------------------------------------------------------


def test_every_loader_of_mmengine_is_replaced_and_put_back():
    before = dict(CheckpointLoader._schemes)
    mmengines = {prefix for prefix, loader in before.items() if loader.__module__ == mmengine_checkpoint.__name__}
    assert mmengines == set(compat._SCHEMES), 'mmengine has other schemes than compat knows'

    def loader(filename, map_location):
        return filename, map_location

    with compat.loading_by(loader):
        assert all(CheckpointLoader._schemes[prefix] is loader for prefix in mmengines)
        assert CheckpointLoader.load_checkpoint('a.pth', 'cpu') == ('a.pth', 'cpu')
        assert mmengine_checkpoint._load_checkpoint('https://b.pth', 'cpu') == ('https://b.pth', 'cpu')
    assert dict(CheckpointLoader._schemes) == before


def test_pretrained_weights_come_through_the_loader(tmp_path):
    net = Net()
    net.init_cfg = dict(type='Pretrained', checkpoint='open-mmlab://some')
    weight = torch.full((1, 1), 5.)
    with compat.loading_by(lambda *args: dict(state_dict={'layer.weight': weight, 'layer.bias': torch.zeros(1)})):
        net.init_weights()
    assert net.layer.weight.item() == 5


def test_mmengines_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path / 'home'))
    assert compat.mmengine_home() == str(tmp_path / 'home')


# -- and nothing elsewhere -------------------------------------------------------------------------------------------

# Documented by Python although they begin with an underscore.
PUBLIC = {'_exit', '_replace'}


def is_private(name):
    return name.startswith('_') and not name.endswith('__') and name not in PUBLIC


def private_uses(text):
    """Lines that use what another package keeps private, or replace a part of an imported module."""
    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    own = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    own |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name) and node.value.id == 'self'}
    own |= {node.target.id for node in nodes if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    modules = {(alias.asname or alias.name).split('.')[0] for node in nodes if isinstance(node, ast.Import)
               for alias in node.names}
    # Overrides of another class's private methods are found by what they hand on to.
    uses = {node.lineno for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Call)
            and ast.unparse(node.value) == 'super()' and is_private(node.attr)}
    for node in nodes:
        if isinstance(node, ast.Attribute):
            if is_private(node.attr) and node.attr not in own:
                uses.add(node.lineno)
            replaces = not isinstance(node.ctx, ast.Load)
            if replaces and isinstance(node.value, ast.Name) and node.value.id in modules:
                uses.add(node.lineno)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module != '__future__':
            if any(map(is_private, [*node.module.split('.'), *(alias.name for alias in node.names)])):
                uses.add(node.lineno)
        elif isinstance(node, ast.Call) and re.search(r'(^vars\(.*\)|__dict__)\.(get|pop)$', ast.unparse(node.func)):
            if isinstance(node.args[0], ast.Constant) and is_private(node.args[0].value):
                uses.add(node.lineno)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ('getattr', 'setattr', 'hasattr', 'delattr'):
            name = node.args[1]
            if ast.unparse(node.func) in ('setattr', 'delattr') and ast.unparse(node.args[0]) in modules:
                uses.add(node.lineno)
            if isinstance(name, ast.Constant) and is_private(name.value) and name.value not in own:
                uses.add(node.lineno)
    return [text.splitlines()[number - 1].strip() for number in sorted(uses)]


@pytest.mark.parametrize('line', [
    'runner._resume', 'x = loader._iterator', 'loader._iterator = None', 'from torch.nn.modules.conv import _ConvNd',
    'from torch._dynamo import reset', 'getattr(runner, "_train_loop", None)', 'vars(kind).get("_instance_dict")',
    'import warnings\nwarnings.showwarning = f', 'import torch\nsetattr(torch, "load", f)',
    'class A(B):\n    def _apply(self, fn):\n        super()._apply(fn)',
])
def test_a_private_use_is_found(line):
    assert private_uses(line)


@pytest.mark.parametrize('line', [
    'class A:\n    def __init__(self):\n        self._x = 1\n    def f(self):\n        return self._x', 'os._exit(1)',
    'from __future__ import annotations', 'cfg.model = 1', 'value.__name__', 'from .resume import _NAME'
])
def test_what_is_ones_own_is_not(line):
    assert not private_uses(line)


def test_nothing_private_is_used_elsewhere(repo):
    package = repo / 'mmseg_hrhf'
    found = {str(path.relative_to(package)): private_uses(path.read_text()) for path in package.rglob('*.py')}
    assert found.pop('utils/compat.py')
    assert not {name: lines for name, lines in found.items() if lines}
