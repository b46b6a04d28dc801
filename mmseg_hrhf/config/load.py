"""Loading of config files and command-line overrides."""
from __future__ import annotations

import argparse
import importlib.metadata
import os.path as osp
from typing import Any, Optional, Sequence

import torch
from mmengine.config import Config, DictAction
from mmengine.config.utils import ConfigParsingError
from mmengine.registry import Registry, root
from mmseg import registry

from .. import register_all
from ..utils.compat import set_package_name
from ..utils.environment import config_path
from ..utils.errors import UserError


def load_config(path: str, options: Optional[Sequence[str]] = None) -> Config:
    """Read a config and merge ``KEY=VALUE`` overrides, as mmseg's tools do.

    ``_base_ = 'mmseg::...'`` works on both toolbox lines: the maintained one installs mmseg under a package name that
    its mmengine does not know.

    Raises:
        UserError: the file or a package that it needs is missing, the file is broken, or an option is not of the form
            ``KEY=VALUE``.
    """
    path = config_path(path)
    if not osp.isfile(path):
        raise UserError(f'Config file {path!r} does not exist.')
    register_all()
    _register_package_names()
    try:
        cfg = Config.fromfile(path)
        _drop_own_scope(list(cfg.values()))  # imports the types of pure-Python configs
    except (SyntaxError, FileNotFoundError, KeyError, ConfigParsingError) as error:
        raise UserError(f'Config {path!r} cannot be read: {error}') from error
    except ImportError as error:  # mmengine's message lists sys.path; its first line names the missing module
        raise UserError(f'Config {path!r} needs a package that cannot be imported: {str(error).splitlines()[0]} '
                        f'Cause: {error.__cause__ or error.__context__ or error}.') from error
    if cfg.get('_scope_') == 'mmseg_hrhf':
        cfg.pop('_scope_')
    if options:
        bad = [option for option in options if '=' not in option]
        if bad:
            raise UserError(f'--cfg-options {bad[0]!r} is not of the form KEY=VALUE.')
        parser = argparse.ArgumentParser()
        parser.add_argument('--cfg-options', nargs='+', action=DictAction)
        cfg.merge_from_dict(parser.parse_args(['--cfg-options', *options]).cfg_options)
    return cfg


def _drop_own_scope(value: Any) -> None:
    """Remove the scope that mmengine adds for ``_base_ = 'mmseg_hrhf::...'``: our modules are in mmseg's scope."""
    if isinstance(value, dict):
        if value.get('_scope_') == 'mmseg_hrhf':
            del value['_scope_']
        for item in value.values():
            _drop_own_scope(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _drop_own_scope(item)


def _register_package_names() -> None:
    set_package_name('mmseg_hrhf', 'mmseg_hrhf')
    for module, package in (('mmseg', 'onedl-mmsegmentation'), ('mmdet', 'onedl-mmdetection'),
                            ('mmpretrain', 'onedl-mmpretrain')):
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        set_package_name(module, package)


def enable_amp(cfg: Config) -> None:
    """Switch the optimizer wrapper, and with it the teacher, to automatic mixed precision.

    Uses ``optim_wrapper.dtype`` if set, else bfloat16 where the accelerator supports it, else float16.

    Raises:
        UserError: there is no accelerator, or the wrapper is not a plain ``OptimWrapper``.
    """
    if not torch.cuda.is_available():
        raise UserError('--amp needs an accelerator, since mmengine does not support it on CPUs: leave it out. '
                        "(SegInversion alone can use bfloat16 on a CPU: replay.inversion.amp='bf16'.)")
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(f'--amp replaces OptimWrapper, but the config uses {kind}: set its precision in the config.')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if torch.cuda.get_device_capability()[0] >= 8:  # torch.cuda.is_bf16_supported() also counts emulation
        cfg.optim_wrapper.setdefault('dtype', 'bfloat16')


def named_types(value: Any) -> Any:
    """A copy of config values in which the classes and functions of pure-Python configs are replaced by their names.

    An object registered under its own name gets that name; any other gets its full path, by which mmengine finds it.
    """
    if isinstance(value, dict):
        return {key: named_types(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(named_types, value))
    if isinstance(value, type) or callable(value):
        return _name_of(value)
    return value


def _name_of(value: Any) -> str:
    name = getattr(value, '__name__', None)
    module = getattr(value, '__module__', None)
    if name is None or module is None or '<' in getattr(value, '__qualname__', name):
        raise UserError(f'{value!r} in the config has no name that a file could refer to: register it, and use its '
                        'registered name as the type.')
    known = any(held.get(name) is value for held in _registries())
    return name if known else f'{module}.{name}'


def _registries() -> list[Registry]:
    found = [held for held in vars(registry).values() if isinstance(held, Registry)]
    return found + [held for held in vars(root).values() if isinstance(held, Registry)]
