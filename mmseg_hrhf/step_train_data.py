"""The training data of one learning step: the user's dataset, what wraps it, and fake images beside it."""
from __future__ import annotations

from typing import Optional

from mmengine.config import Config

from .datasets.source import split_mix
from .files import PathLike
from .replay.sampler import split_batch
from .step_schedule import is_epoch_based
from .unsupported import as_list


def set_train_data(out: Config, real: dict, replay: Optional[dict], num_fake: int, fake_folder: PathLike,
                   seed: int, pixel_map: Optional[dict] = None) -> None:
    """Let ``out`` train on a step's share of its dataset and, from step 1 on, on fake images.

    Args:
        out: config of the step, changed in place.
        real: options of :class:`IncrementalDataset` besides the dataset.
        replay: options of replay; None: no fake images.
        num_fake: their number.
        fake_folder: of their buffer.
        seed: of the fake images.
        pixel_map: see ``SegInversionHook``.
    """
    loader = out.train_dataloader
    dataset, mix = split_mix(loader.dataset)
    if mix:
        mix['type'] = 'SeededMixDataset'
    real = dict(type='IncrementalDataset', dataset=dataset, **real)
    ratio = None if replay is None else replay.get('ratio', '1:1')
    # Whole batches, resumable at any. Half a batch will not do: batch norm of one pooled image is undefined.
    loader.sampler = dict(
        type='RealFakeSampler',
        batch_size=loader.batch_size,
        ratio=ratio,
        shuffle=(loader.get('sampler') or {}).get('shuffle', True),
        infinite=not is_epoch_based(out))
    if replay is None:
        loader.dataset = dict(mix, dataset=real) if mix else real
        return
    split_batch(loader.batch_size, str(ratio))
    loader.dataset = dict(type='RealFakeDataset', real=real, fake_folder=fake_folder, num_fake=num_fake)
    if mix:
        loader.dataset.mix = mix
    hook = dict(
        type='SegInversionHook', folder=fake_folder, num_images=num_fake, inversion=replay['inversion'], seed=seed)
    if pixel_map is not None:
        hook['pixel_map'] = pixel_map
    out.custom_hooks = as_list(out.get('custom_hooks')) + [hook]
