"""Every use of what the toolbox keeps private, and every replacement of a part of it.

Elsewhere the package uses public names alone. Each entry says what is private, why no public name does, and which test
of tests/utils/test_compat.py fails when a new version of mmengine, mmseg or torch changes it. The tests run on both
lines of the toolbox; the last of them finds private uses elsewhere.

BatchNorm, InstanceNorm: base classes ``_BatchNorm``, ``_InstanceNorm`` of torch's layers.
    mmengine's ``revert_sync_batchnorm`` makes layers of the base class alone. test_base_classes_of_layers
rename_in_state: ``Module._register_state_dict_hook``, ``_register_load_state_dict_pre_hook``.
    Public from torch 2.5 on, and then taken so. test_state_is_renamed_alone_and_nested
FollowedByOthers: ``Module._apply`` is overridden.
    ``to()``, ``half()``, ``cuda()`` and the like meet there. test_others_follow
config_dict: ``Config._cfg_dict``.
    ``Config.to_dict`` copies, and turns classes into text. test_a_config_holds_a_dict
set_package_name: ``mmengine.config.utils.MODULE2PACKAGE`` is added to.
    ``_base_ = 'mmseg::...'`` looks nowhere else. test_a_config_is_found_by_the_name_of_a_package
dataset_metainfo: ``BaseDataset._load_metainfo``.
    Building a dataset needs its files. test_metainfo_is_that_of_a_built_dataset
swaps_channels: ``ImgDataPreprocessor._channel_conversion``.
    It keeps the option under no other name. test_swapped_channels
TRAINING_PARTS: names of methods of ``EncoderDecoder``, which a subclass may override.
    test_training_goes_by_these_methods_alone
replaced_loss: ``loss_by_feat`` of a head is replaced.
    mmseg calls ``head.forward``, so that no hook fires. test_a_replaced_loss_is_called_once_with_the_logits
NoTrace: ``Runner._log_env`` is overridden.
    A Runner always logs its environment. test_a_runner_without_a_trace
end_data_workers: ``Runner._train_loop``, ``_val_loop``, ``_test_loop``; ``DataLoader._iterator``.
    The public properties build what is not built; persistent workers cannot be ended. test_workers_end_at_once
forget: ``ManagerMixin._instance_dict``.
    Nothing else lets an instance go. test_what_is_forgotten_is_let_go
loading_by: ``CheckpointLoader._schemes``.
    Registering a loader is public, finding the one before is not.
    test_every_loader_of_mmengine_is_replaced_and_put_back
mmengine_home: ``mmengine.runner.checkpoint._get_mmengine_home``.
    A model of ``open-mmlab://`` may be a file in it. test_mmengines_folder
"""
from __future__ import annotations

import contextlib
import copy
from typing import Any, Callable, Iterator, Mapping, Optional

from mmengine.config import Config, ConfigDict
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
    'config_dict',
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
    """Let a module write tensors whose names begin with ``own`` under ``other`` instead, and read them back.

    Args:
        own, other: prefixes, below the module's own.
    """
    after_save, before_load = _Renaming(own, other), _Renaming(other, own)
    if hasattr(module, 'register_state_dict_post_hook'):  # torch >= 2.5
        module.register_state_dict_post_hook(after_save)
        module.register_load_state_dict_pre_hook(before_load)
    else:
        module._register_state_dict_hook(after_save)
        module._register_load_state_dict_pre_hook(before_load, with_module=True)


class _Renaming:
    """A hook on a state dict; an object, since it is pickled and copied with the module."""

    def __init__(self, old: str, new: str) -> None:
        self.old, self.new = old, new

    def __call__(self, module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        old, new = prefix + self.old, prefix + self.new
        for key in [key for key in state_dict if key.startswith(old)]:
            state_dict[new + key[len(old):]] = state_dict.pop(key)


class FollowedByOthers:
    """Mixin of a module whose changes of device and type others follow that are not its submodules."""

    def followers(self) -> list[nn.Module]:
        """Modules that follow."""
        raise NotImplementedError

    def _apply(self, fn: Callable, *args: Any, **kwargs: Any) -> Any:
        for module in self.followers():
            module._apply(fn, *args, **kwargs)
        return super()._apply(fn, *args, **kwargs)


# -- configs and datasets --------------------------------------------------------------------------------------------


def config_dict(cfg: Config) -> ConfigDict:
    """What a config holds, to be read or changed in place, with types that are classes as they are."""
    return cfg._cfg_dict


def set_package_name(module: str, package: str) -> None:
    """Tell mmengine which installed package a module of ``_base_ = 'module::...'`` belongs to."""
    config_utils.MODULE2PACKAGE[module] = package


def dataset_metainfo(dataset: type, given: Optional[Mapping]) -> dict:
    """``metainfo`` that a dataset of this class would have, without its files.

    Args:
        given: the option ``metainfo`` of its config.
    """
    return dataset._load_metainfo(copy.deepcopy(given))  # type: ignore[attr-defined]


def swaps_channels(data_preprocessor: nn.Module) -> bool:
    """Whether a data preprocessor turns BGR to RGB, or RGB to BGR."""
    for name in ('_channel_conversion', 'channel_conversion'):  # mmengine's, mmseg's
        if hasattr(data_preprocessor, name):
            return bool(getattr(data_preprocessor, name))
    return False


# -- losses ----------------------------------------------------------------------------------------------------------

# Methods of EncoderDecoder between its `loss` and those of its heads.
TRAINING_PARTS = ('_decode_head_forward_train', '_auxiliary_head_forward_train')


@contextlib.contextmanager
def replaced_loss(head: nn.Module, make: Callable[[Callable], Callable]) -> Iterator[None]:
    """Let ``make(own)`` stand in for a head's ``loss_by_feat``, which was ``own``, inside the block.

    ``loss_by_feat`` is called exactly once per loss in every family of mmseg. A forward hook on ``conv_seg`` sees the
    logits of most, but not of heads that have none (Segmenter), several (DANet), or that combine masks with classes.
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
    """Mixin of a Runner: no log of the environment, no config file, no DDP."""

    def wrap_model(self, model_wrapper_cfg: Optional[dict], model: nn.Module) -> nn.Module:
        return model

    def dump_config(self) -> None:
        pass

    def _log_env(self, env_cfg: dict) -> None:
        pass


def end_data_workers(runner: Runner) -> None:
    """Let go of the loops' iterators, which ends their workers at once.

    Runner and loops refer to each other. Left to the garbage collector, the queues of an iterator may be closed before
    it has told its workers to end, and torch then waits 5 s for each of them.
    """
    for name in ('_train_loop', '_val_loop', '_test_loop'):
        loop = getattr(runner, name, None)
        if not isinstance(loop, BaseLoop):  # the config of a loop that was never built
            continue
        if getattr(loop, 'dataloader_iterator', None) is not None:  # of an iteration-based loop
            loop.dataloader_iterator = None
        _end_persistent_workers(loop.dataloader)


def _end_persistent_workers(loader: DataLoader) -> None:
    loader._iterator = None


def forget(instance: ManagerMixin) -> None:
    """Let go of a logger, message hub or visualizer, which mmengine holds by name."""
    for kind in type(instance).__mro__:  # a visualizer is held by its base class, too
        vars(kind).get('_instance_dict', {}).pop(instance.instance_name, None)


# -- files of weights ------------------------------------------------------------------------------------------------

# All prefixes of names for which mmengine registers a loader; '' is a local path.
_SCHEMES = ('', 'http://', 'https://', 'pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://', 'modelzoo://',
            'torchvision://', 'open-mmlab://', 'openmmlab://', 'mmcls://')


@contextlib.contextmanager
def loading_by(loader: Callable) -> Iterator[None]:
    """Inside, mmengine reads files of weights, wherever they are, by ``loader(filename, map_location)``."""
    before = dict(CheckpointLoader._schemes)
    CheckpointLoader.register_scheme(list(_SCHEMES), loader, force=True)
    try:
        yield
    finally:
        for prefix, own in before.items():
            CheckpointLoader.register_scheme(prefix, own, force=True)
