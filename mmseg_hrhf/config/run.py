"""The options of a run, parsed once: all other code takes these instead of the config."""
from __future__ import annotations

import copy
import os.path as osp
from dataclasses import dataclass, field
from typing import Any, Mapping, Optional

from mmengine.config import Config
from mmseg.registry import MODELS

from ..models.segmentors.base import IncrementalSegmentor
from ..replay.inversion.base import build_inversion
from ..replay.recording import statistics_options
from ..replay.sampler import enlarged_batch, split_batch
from ..scenario import Scenario
from ..utils.errors import UserError
from ..utils.options import check_names, check_types, parameters, suggest
from .check import check_first_step, check_keys, check_overridden, check_plain, check_seed, refuse_unsupported
from .load import named_types
from .plain import inversion_batch, plain_config, training_size, with_overrides

_REPLAY_OPTIONS = ('ratio', 'added', 'num_images', 'inversion', 'feature_statistics')
# Options of a method that are set per step.
_SET_BY_STEP = {'student', 'teacher', 'teacher_checkpoint', 'channels_last'}


@dataclass(frozen=True)
class ReplayConfig:
    """The ``replay`` options of a run that trains with synthetic images.

    Args:
        options: the user's options, with ``inversion`` as below.
        ratio: ratio of real to synthetic images in a batch, such as ``'1:1'``.
        added: synthetic images are added to ``batch_size`` real ones, instead of replacing some of them.
        num_images: size of a step's buffer; None: set from the number of real images.
        inversion: options of the inversion, with defaults for ``size`` and ``batch_size`` filled in.
        size: (height, width) of synthetic images.
        statistics: options of ``step_statistics``; None: feature statistics are not recorded.
    """
    options: Mapping[str, Any]
    ratio: str
    added: bool
    num_images: Optional[int]
    inversion: Mapping[str, Any]
    size: tuple[int, int]
    statistics: Optional[Mapping[str, Any]]

    @classmethod
    def parse(cls, options: Any, plain: Config) -> ReplayConfig:
        """Check the ``replay`` options of a config whose mmseg part is ``plain``.

        Raises:
            UserError: an option is unknown, of the wrong type or out of range.
        """
        if not isinstance(options, dict):
            raise UserError(f'replay={options!r} must be a dict, or None to train without synthetic images.')
        check_names('replay', options, _REPLAY_OPTIONS)
        ratio, number = options.get('ratio', '1:1'), options.get('num_images')
        added = options.get('added', False)
        check_types('replay', dict(added=added), dict(added=bool))
        (enlarged_batch if added else split_batch)(plain.train_dataloader.batch_size, ratio)
        if number is not None and (type(number) is not int or number < 1):
            raise UserError(f'replay.num_images={number!r} must be a positive whole number, or None for as many as the '
                            'step has real images, within 512 to 4096.')
        inversion: Any = options.get('inversion')
        if isinstance(inversion, dict):
            inversion = dict(copy.deepcopy(inversion))
            size = inversion.setdefault('size', training_size(plain))
            if size is None:
                raise UserError('replay.inversion.size is missing, and neither data_preprocessor.size nor a crop in '
                                'the training pipeline gives the size on which the network trains: set it.')
            inversion.setdefault('batch_size', inversion_batch(size))
        built = build_inversion(inversion)  # an error in its options must not show hours later, at step 1
        return cls(dict(options, inversion=inversion), ratio, added, number, inversion, built.size,
                   statistics_options(options))


@dataclass(frozen=True)
class RunConfig:
    """A run's config, checked and parsed. Its configs are shared: copy them before changing them.

    Args:
        plain: mmseg config of step 0.
        later: mmseg config of later steps: ``plain`` merged with ``incremental_overrides``.
        scenario: options of :meth:`.Scenario.build`.
        method: class of the segmentor.
        method_options: config of the segmentor, with ``type``.
        replay: None if the method or the config uses no synthetic images.
        seed: random seed of the run.
        channels_last: whether networks use the channels-last memory format.
        first_step_from: checkpoint of a trained network that replaces step 0.
        only_step: the only step to run.
        work_dir: absolute path.
        overrides: ``incremental_overrides``.
        user: the user's config, for records.
    """
    plain: Config
    later: Config
    scenario: Mapping[str, Any]
    method: type[IncrementalSegmentor]
    method_options: Mapping[str, Any]
    replay: Optional[ReplayConfig]
    seed: int
    channels_last: bool
    first_step_from: Optional[str]
    only_step: Optional[int]
    work_dir: str
    overrides: Mapping[str, Any]
    user: Config = field(repr=False)

    @classmethod
    def parse(cls, cfg: Config, seed: Optional[int] = None) -> RunConfig:
        """Check the keys that this package adds and the mmseg settings that every step needs; reads no files.

        Args:
            cfg: plain mmseg config plus ``scenario``, ``method`` and, optionally, the rest of ``OWN_KEYS``.
            seed: overrides the config's.
        Raises:
            UserError: a key is missing, misspelt, or has a value of the wrong type or out of range.
        """
        check_keys(cfg)
        seed = check_seed((cfg.get('randomness') or {}).get('seed') if seed is None else seed)
        plain = plain_config(cfg)
        check_plain(plain)
        method = method_class(cfg.method)
        if cfg.get('first_step_from') is not None:
            check_first_step(cfg, method)
        wants_replay = cfg.get('replay') is not None and method.uses_fake_images
        replay = ReplayConfig.parse(cfg.replay, plain) if wants_replay else None
        refuse_unsupported(plain, wants_replay)
        overrides = cfg.get('incremental_overrides') or {}
        later = plain
        if overrides:
            later = with_overrides(plain, overrides)
            check_overridden(plain, later, wants_replay)
        return cls(
            plain=plain,
            later=plain if method.joint else later,
            scenario=dict(cfg.scenario),
            method=method,
            method_options=dict(cfg.method),
            replay=replay,
            seed=seed,
            channels_last=bool(cfg.get('channels_last')),
            first_step_from=cfg.get('first_step_from'),
            only_step=cfg.get('only_step'),
            work_dir=osp.abspath(cfg.get('work_dir') or '.'),
            overrides=overrides,
            user=cfg)

    def at(self, step: int) -> Config:
        """The plain mmseg config of a step."""
        return self.plain if step == 0 else self.later

    def has_teacher(self, step: int) -> bool:
        """Whether the step continues the previous one."""
        return step > 0 and not self.method.joint

    def num_fake_images(self, step: int, num_real: int) -> int:
        """Size of a step's buffer: as configured, or the number of real images within [512, 4096]; 0 without replay."""
        if self.replay is None or step == 0:
            return 0
        declared = self.replay.num_images
        return min(max(num_real, 512), 4096) if declared is None else declared

    def training_scenario(self, scenario: Scenario, step: int) -> tuple[dict, int]:
        """Scenario options, and the step of that scenario, that select a step's training images and labels.

        For a joint method this is a scenario of one step, which learns all classes from all images that contain any.
        """
        if not self.method.joint:
            return dict(self.scenario), step
        divided = ('task', 'steps', 'class_order', 'setting', 'partition_seed', 'image_lists')
        options = {key: value for key, value in self.scenario.items() if key not in divided}
        return dict(options, steps=[list(scenario.seen_classes(step))]), 0

    def text(self) -> str:
        """The complete config as Python; ``tools/train.py`` with it and a ``--work-dir`` repeats this run."""
        complete = Config(named_types(self.user.to_dict()))
        for where in ('work_dir', 'only_step', 'launcher'):
            complete.pop(where, None)
        complete.randomness = dict(complete.get('randomness') or {}, seed=self.seed)
        return complete.pretty_text


def method_class(options: Mapping[str, Any]) -> type[IncrementalSegmentor]:
    """The class of ``method.type``, with its options checked."""
    name = options.get('type')
    known = {key: value for key, value in MODELS.module_dict.items() if _is_method(value)}
    found = known.get(name) if isinstance(name, str) else name if _is_method(name) else None
    if found is None:
        raise UserError(f'method.type={name!r} is not an incremental method' +
                        suggest(name, known, f': choose among {", ".join(sorted(known))}.'))
    annotations = parameters(found, IncrementalSegmentor)
    check_names(f'method {found.__name__}', options, set(annotations) - _SET_BY_STEP | {'type'})
    check_types('method', options, annotations)
    found.check_options(options)
    return found


def _is_method(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, IncrementalSegmentor) and value is not IncrementalSegmentor
