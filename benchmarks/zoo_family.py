"""Checks one family of the zoo: plain training, then two learning steps. Run by ``zoo.py``."""
from __future__ import annotations

import copy
import importlib.metadata
import json
import math
import platform
import time
import traceback
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, init_default_scope
from mmseg.registry import DATASETS, MODELS, RUNNERS
from zoo_config import CLASSES, zoo_config
from zoo_families import FAMILIES

import mmseg_hrhf  # noqa: F401
from mmseg_hrhf.config.plain import set_classes
from mmseg_hrhf.models.heads import predicted_logits
from mmseg_hrhf.work_dir.checkpoint import load_checkpoint, weights_fingerprint
from mmseg_hrhf.work_dir.layout import StepFiles

SEEN: dict = {}


@HOOKS.register_module()
class ZooProbe(Hook):
    """Records the teacher's weights, all losses, and the network's predictions before and after a step."""
    priority = 'HIGHEST'

    def before_train(self, runner) -> None:
        model = runner.model
        self.seen = SEEN.setdefault(f'step_{"0" if model.first_step else "1"}', dict(losses=[]))
        self.start = weights_fingerprint(model.state_dict())
        if model.teacher is not None:
            self.teacher = weights_fingerprint(model.teacher.state_dict())
            self.seen['growth'] = growth(model, runner.cfg)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.seen['losses'].append({key: float(value) for key, value in outputs.items()})

    def after_train(self, runner) -> None:
        model = runner.model
        state = model.state_dict()
        self.seen['finite'] = all(tensor.isfinite().all().item() for tensor in state.values()
                                  if tensor.is_floating_point())
        self.seen['moved'] = weights_fingerprint(state) != self.start
        if model.teacher is not None:
            self.seen['teacher_unchanged'] = weights_fingerprint(model.teacher.state_dict()) == self.teacher
            self.seen['teacher_frozen'] = not model.teacher.training and not any(
                parameter.requires_grad for parameter in model.teacher.parameters())


@torch.no_grad()
def growth(model, cfg: Config) -> dict:
    """Difference between the grown student and its teacher before training.

    ``probability``: largest change of an old class's probability at a pixel, with the new class counted as background.
    ``scale``: largest difference of a class's probability between two pixels, for comparison.
    """
    size = cfg.model.student.data_preprocessor.size
    inputs = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    outputs = []
    for network in (model.teacher, copy.deepcopy(model.student).eval()):
        torch.manual_seed(0)  # SegNeXt draws random numbers in every pass
        outputs.append(predicted_logits(network, inputs).softmax(1))
    old, new = outputs
    folded = torch.cat([new[:, :1] + new[:, old.shape[1]:].sum(1, keepdim=True), new[:, 1:old.shape[1]]], 1)
    scale = (old.amax((0, 2, 3)) - old.amin((0, 2, 3))).max()
    return dict(probability=float((folded - old).abs().max()), scale=float(scale))


def plain_training(cfg: Config) -> None:
    """Loss and backward of the family without this package: failures here are not ours."""
    torch.manual_seed(0)
    model = MODELS.build(set_classes(cfg.model, CLASSES))
    model.init_weights()
    model.train()
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    batch = model.data_preprocessor(pseudo_collate([dataset[0], dataset[3]]), True)
    losses, _ = model.parse_losses(model(**batch, mode='loss'))
    losses.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if not losses.isfinite() or not gradients or not all(gradient.isfinite().all() for gradient in gradients):
        raise FloatingPointError(f'plain loss {losses.item()} or a gradient is not finite')


def plain_checkpoint(files: StepFiles, num_classes: int) -> None:
    """Check that the step's plain config and checkpoint strictly load into the bare segmentor."""
    cfg = Config.fromfile(files.config)
    text = Path(files.config).read_text()
    if 'hrhf' in text.replace(str(Path(files.config).parent), '').lower() or 'scenario' in text:
        raise ValueError(f'{files.config} is not plain')
    model = MODELS.build(cfg.model)
    model.load_state_dict(load_checkpoint(files.checkpoint, num_classes)['state_dict'], strict=True)


def losses_are_finite(step: dict) -> bool:
    return len(step['losses']) >= 2 and all(math.isfinite(value) for losses in step['losses']
                                            for value in losses.values())


def check_run(cfg: Config) -> dict:
    """Check the records of the probe and the files of the run. Returns the row of the table."""
    files = [StepFiles(cfg.work_dir, t) for t in (0, 1)]
    for step, num_classes in zip(files, (3, 4)):
        plain_checkpoint(step, num_classes)
    manifest = [json.loads(line) for line in (Path(files[1].fakes) / 'manifest.jsonl').read_text().splitlines()]
    fakes = [record for record in manifest if 'losses' in record]
    zero, one = SEEN['step_0'], SEEN['step_1']
    return dict(
        step_0=losses_are_finite(zero) and zero['finite'] and zero['moved'],
        step_1=losses_are_finite(one) and one['finite'] and one['moved'],
        inversion=len(fakes) == 2 and all(math.isfinite(value) for record in fakes
                                          for value in record['losses'].values()),
        distilled=all('loss_kd' in losses for losses in one['losses']),
        teacher_unchanged=one['teacher_unchanged'] and one['teacher_frozen'],
        plain_checkpoint=True,
        growth=one['growth'],
        last_losses=one['losses'][-1],
        inversion_losses=fakes[0]['losses'])


def reason(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()] or ['']
    return f'{type(error).__name__}: {lines[0]}'[:300]


def versions() -> dict:
    found = dict(python=platform.python_version())
    for name in ('torch', 'onedl-mmengine', 'onedl-mmcv', 'onedl-mmsegmentation', 'onedl-mmdetection',
                 'onedl-mmpretrain', 'mmengine', 'mmcv', 'mmcv-lite', 'mmsegmentation'):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def run_family(name: str, work: Path) -> dict:
    """Run all checks. Never raises: the result contains failures."""
    family, began = FAMILIES[name], time.time()
    result = dict(family=name, config=family.config, needs=family.needs, versions=versions(), plain=False)
    try:
        cfg, result['notes'] = zoo_config(name, family, work)
        init_default_scope('mmseg')
        plain_training(copy.deepcopy(cfg))
        result['plain'] = True
        cfg.custom_hooks = [dict(type='ZooProbe')]
        RUNNERS.build(cfg).train()
        result.update(check_run(cfg))
    except BaseException as error:
        result.update(error=reason(error), traceback=traceback.format_exc()[-3000:])
    return dict(result, seconds=round(time.time() - began, 1))

