"""Every use of a private API of the toolbox, and every patch of it.

The rest of the package uses public names only. Each entry says what is private, why no public name suffices, and which
test of tests/utils/test_compat.py fails when a new version of mmengine, mmseg or torch changes it. The tests run on
both lines of the toolbox; the last one finds private uses elsewhere.

BatchNorm, InstanceNorm: base classes ``_BatchNorm``, ``_InstanceNorm`` of torch's layers.
    mmengine's ``revert_sync_batchnorm`` creates layers of the base class itself. test_base_classes_of_layers
rename_in_state: ``Module._register_state_dict_hook``, ``_register_load_state_dict_pre_hook``.
    Public since torch 2.5; the public names are used there. test_state_is_renamed_alone_and_nested
FollowedByOthers: ``Module._apply`` is overridden.
    ``to()``, ``half()``, ``cuda()`` and similar methods all call it. test_others_follow
set_package_name: ``mmengine.config.utils.MODULE2PACKAGE`` is added to.
    ``_base_ = 'mmseg::...'`` is resolved only there. test_a_config_is_found_by_the_name_of_a_package
dataset_metainfo: ``BaseDataset._load_metainfo``.
    Building a dataset would need its files. test_metainfo_is_that_of_a_built_dataset
swaps_channels: ``ImgDataPreprocessor._channel_conversion``.
    The option is stored under no other name. test_swapped_channels
TRAINING_PARTS: names of ``EncoderDecoder`` methods that a subclass may override.
    test_training_goes_by_these_methods_alone
replaced_loss: ``loss_by_feat`` of a head is replaced.
    mmseg calls ``head.forward`` directly, so no forward hook fires. test_a_replaced_loss_is_called_once_with_the_logits
NoTrace: ``Runner._log_env`` is overridden.
    A Runner always logs its environment. test_a_runner_without_a_trace
end_data_workers: ``Runner._train_loop``, ``_val_loop``, ``_test_loop``; ``DataLoader._iterator``.
    Public properties build missing loops; no public call stops persistent workers. test_workers_end_at_once
forget: ``ManagerMixin._instance_dict``.
    Nothing else releases an instance. test_what_is_forgotten_is_let_go
loading_by: ``CheckpointLoader._schemes``.
    Registering a loader is public; reading the current one is not.
    test_every_loader_of_mmengine_is_replaced_and_put_back
mmengine_home: ``mmengine.runner.checkpoint._get_mmengine_home``.
    An ``open-mmlab://`` model may be a file in it. test_mmengines_folder
"""
from __future__ import annotations

import contextlib
import copy
from typing import Any, Callable, Iterator, Mapping, Optional

from mmengine.config import utils as config_utils
from mmengine.runner import BaseLoop, CheckpointLoader, Runner
from mmengine.runner.checkpoint import _get_mmengine_home as mmengine_home
from mmengine.utils import ManagerMixin
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm as InstanceNorm
from torch.utils.data import DataLoader

__all__ = [
    'TRAINING_PARTS',
    'BatchNorm',
    'FollowedByOthers',
    'InstanceNorm',
    'NoTrace',
    'dataset_metainfo',
    'end_data_workers',
    'forget',
    'loading_by',
    'mmengine_home',
    'rename_in_state',
    'replaced_loss',
    'set_package_name',
    'swaps_channels'
]

# -- torch -----------------------------------------------------------------------------------------------------------


def rename_in_state(module: nn.Module, own: str, other: str) -> None:
    """Save tensors whose names start with ``own`` under ``other`` instead, and load them back.

    Args:
        own, other: prefixes relative to the module.
    """
    after_save, before_load = _Renaming(own, other), _Renaming(other, own)
    if hasattr(module, 'register_state_dict_post_hook'):  # torch >= 2.5
        module.register_state_dict_post_hook(after_save)
        module.register_load_state_dict_pre_hook(before_load)
    else:
        module._register_state_dict_hook(after_save)
        module._register_load_state_dict_pre_hook(before_load, with_module=True)


class _Renaming:
    """State dict hook; an object, because it is pickled and copied with the module."""

    def __init__(self, old: str, new: str) -> None:
        self.old, self.new = old, new

    def __call__(self, module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        old, new = prefix + self.old, prefix + self.new
        for key in [key for key in state_dict if key.startswith(old)]:
            state_dict[new + key[len(old):]] = state_dict.pop(key)


class FollowedByOthers:
    """Mixin that applies a module's device and dtype changes to modules that are not its submodules."""

    def followers(self) -> list[nn.Module]:
        """Modules to move along."""
        raise NotImplementedError

    def _apply(self, fn: Callable, *args: Any, **kwargs: Any) -> Any:
        for module in self.followers():
            module._apply(fn, *args, **kwargs)
        return super()._apply(fn, *args, **kwargs)


# -- configs and datasets --------------------------------------------------------------------------------------------


def set_package_name(module: str, package: str) -> None:
    """Tell mmengine which installed package provides the module of ``_base_ = 'module::...'``."""
    config_utils.MODULE2PACKAGE[module] = package


def dataset_metainfo(dataset: type, given: Optional[Mapping]) -> dict:
    """The ``metainfo`` that a dataset of this class would have; does not read the dataset.

    Args:
        given: option ``metainfo`` of its config.
    """
    return dataset._load_metainfo(copy.deepcopy(given))  # type: ignore[attr-defined]


def swaps_channels(data_preprocessor: nn.Module) -> bool:
    """Whether a data preprocessor converts BGR to RGB or RGB to BGR."""
    for name in ('_channel_conversion', 'channel_conversion'):  # mmengine's, mmseg's
        if hasattr(data_preprocessor, name):
            return bool(getattr(data_preprocessor, name))
    return False


# -- losses ----------------------------------------------------------------------------------------------------------

# Methods of EncoderDecoder that its `loss` calls to compute the losses of its heads.
TRAINING_PARTS = ('_decode_head_forward_train', '_auxiliary_head_forward_train')


@contextlib.contextmanager
def replaced_loss(head: nn.Module, make: Callable[[Callable], Callable]) -> Iterator[None]:
    """Inside the block, replace a head's ``loss_by_feat`` (``own``) with ``make(own)``.

    Every mmseg model family calls ``loss_by_feat`` exactly once per loss. A forward hook on ``conv_seg`` would miss
    heads that have none (Segmenter), several (DANet), or that combine masks with classes.
    """
    replaced = vars(head).get('loss_by_feat')
    head.loss_by_feat = make(head.loss_by_feat)
    try:
        yield
    finally:
        del head.loss_by_feat
        if replaced is not None:
            head.loss_by_feat = replaced


# -- runners ---------------------------------------------------------------------------------------------------------


class NoTrace:
    """Runner mixin: does not log the environment, write the config or wrap the model in DDP."""

    def wrap_model(self, model_wrapper_cfg: Optional[dict], model: nn.Module) -> nn.Module:
        return model

    def dump_config(self) -> None:
        pass

    def _log_env(self, env_cfg: dict) -> None:
        pass


def end_data_workers(runner: Runner) -> None:
    """Release the loops' iterators, which stops their workers immediately.

    Runner and loops refer to each other. The garbage collector may close an iterator's queues before the iterator stops
    its workers, and torch then waits 5 s for each of them.
    """
    for name in ('_train_loop', '_val_loop', '_test_loop'):
        loop = getattr(runner, name, None)
        if not isinstance(loop, BaseLoop):  # still a config: the loop was never built
            continue
        if getattr(loop, 'dataloader_iterator', None) is not None:  # iteration-based loop
            loop.dataloader_iterator = None
        _end_persistent_workers(loop.dataloader)


def _end_persistent_workers(loader: DataLoader) -> None:
    loader._iterator = None


def forget(instance: ManagerMixin) -> None:
    """Release a logger, message hub or visualizer, which mmengine holds by name."""
    for kind in type(instance).__mro__:  # the base class holds a visualizer too
        vars(kind).get('_instance_dict', {}).pop(instance.instance_name, None)


# -- weight files ----------------------------------------------------------------------------------------------------

# All prefixes with a loader of mmengine; '' is a local path.
_SCHEMES = ('', 'http://', 'https://', 'pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://', 'modelzoo://',
            'torchvision://', 'open-mmlab://', 'openmmlab://', 'mmcls://')


@contextlib.contextmanager
def loading_by(loader: Callable) -> Iterator[None]:
    """Inside the block, mmengine loads weights from any location with ``loader(filename, map_location)``."""
    before = dict(CheckpointLoader._schemes)
    CheckpointLoader.register_scheme(list(_SCHEMES), loader, force=True)
    try:
        yield
    finally:
        for prefix, own in before.items():
            CheckpointLoader.register_scheme(prefix, own, force=True)
