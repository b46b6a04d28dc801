"""An iteration of SegInversion against its floor, and a complete synthesis against the published procedure.

The floor is forward and backward to the input of the frozen network on the same batch: as mmseg runs it, and in
channels last. Ours is the marginal time of a SegInversion iteration at full size. ``plain`` is the published procedure
in plain PyTorch (plain_inversion.py).
"""
from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS, TASK_UTILS
from plain_inversion import plain_synthesis
from timing import interleaved, row

from mmseg_hrhf.models.heads import predicted_logits
from mmseg_hrhf.replay.inversion.base import FakeRequest

REPO = Path(__file__).parents[1]
CONFIGS = REPO / 'configs/_base_/models'
# Name: config, image size, batch size, iterations per measurement, rounds.
ON_CPU = {
    'FCN, ResNet-18 of 16 channels': ('fcn_small', 64, 48, 9, 9),
    'DeepLabV3, MobileNetV2': ('deeplabv3_mobilenet-v2', 112, 16, 3, 5),
    'DeepLabV3, ResNet-101': ('deeplabv3_r101-d16', 128, 4, 3, 5),
}
ON_GPU = {
    'FCN, ResNet-18 of 16 channels': ('fcn_small', 64, 48, 50, 11),
    'DeepLabV3, MobileNetV2': ('deeplabv3_mobilenet-v2', 512, 16, 20, 9),
    'DeepLabV3, ResNet-101': ('deeplabv3_r101-d16', 512, 16, 10, 9),
}
# The published procedure: number of iterations on 16 images at full size. A share of them is timed.
PUBLISHED, PUBLISHED_BATCH, SHARE = 1000, 16, 250
# Name: network above, config in benchmarks/configs with size, stages and batch, overrides of them, and rounds. A tenth
# of the iterations is timed (so the start of a batch counts tenfold).
SYNTHESES = {
    'Shapes': ('FCN, ResNet-18 of 16 channels', 'shapes', {}, 5),
    'VOC-animals': ('DeepLabV3, MobileNetV2', 'voc_animals_3-1', {}, 3),
    'VOC-animals at full size': ('DeepLabV3, MobileNetV2', 'voc_animals_3-1',
                                 dict(stages=[(1.0, 450)], batch_size=16), 3),
}


def network(config, side, device):
    """A frozen network with random weights, and running statistics of a batch of noise to mimic training."""
    init_default_scope('mmseg')
    torch.backends.cudnn.benchmark = True  # as in the base config
    torch.manual_seed(0)
    cfg = Config.fromfile(CONFIGS / f'{config}.py').model
    cfg.data_preprocessor.size = (side, side)
    cfg.backbone.init_cfg = None
    model = revert_sync_batchnorm(MODELS.build(cfg)).to(device)
    model.train()
    with torch.no_grad():
        model.decode_head(model.backbone(torch.randn(8, 3, side, side, device=device)))
    return model.eval().requires_grad_(False)


def computes_bf16(device):
    """Whether to measure bf16: CPUs without AVX-512 emulate it."""
    return device != 'cpu' or torch.backends.cpu.get_cpu_capability().startswith('AVX512')


def classes_and_r(model, batch, device):
    classes = torch.arange(batch, device=device) % (model.num_classes - 1) + 1
    return classes, torch.tensor([0.5, 1, 5, 10, 20], device=device)[torch.randint(5, (batch, model.num_classes))]


def plainly(model, side, batch, iterations, device):
    """The published procedure as a callable."""
    classes, r = classes_and_r(model, batch, device)
    images = torch.randn(batch, 3, side, side, device=device)
    return lambda: plain_synthesis(lambda x: predicted_logits(model, x), model, images, classes, r, iterations)


def ours(model, side, batch, stages, device, amp=None):
    request = FakeRequest(tuple((int(c), ) for c in classes_and_r(model, batch, device)[0]), 0)
    inversion = TASK_UTILS.build(dict(type='SegInversion', size=side, batch_size=batch, stages=stages, amp=amp))
    return lambda: inversion(model, request)


def floor(model, images, iterations):
    """Forward and backward to the input as a callable."""

    def passes():
        for _ in range(iterations):
            given = images.detach().requires_grad_()
            logits = predicted_logits(model, given)
            torch.autograd.grad(logits, given, torch.ones_like(logits))

    return passes


def iteration(config, side, batch, iterations, rounds, device):
    """Seconds per iteration of each variant."""
    model = network(config, side, device)
    images = torch.randn(batch, 3, side, side, device=device)
    variants = {
        'floor': floor(model, images, iterations),
        'floor, channels last': floor(model, images.contiguous(memory_format=torch.channels_last), iterations),
        'plain': plainly(model, side, batch, iterations, device),
    }
    kinds = {'ours': None, 'ours, bf16': 'bf16'} if computes_bf16(device) else {'ours': None}
    for kind, amp in kinds.items():
        variants[kind] = ours(model, side, batch, [(1.0, iterations + 1)], device, amp)
        variants[f'{kind}, start'] = ours(model, side, batch, [(1.0, 1)], device, amp)
    timed = interleaved(variants, rounds, warmup=1, device=device, own_time=True)
    for kind in kinds:  # without the fixed cost of a batch
        start = timed.seconds.pop(f'{kind}, start')
        timed.seconds[kind] = [whole - begun for whole, begun in zip(timed.seconds[kind], start)]
    timed.seconds = {kind: [seconds / iterations for seconds in held] for kind, held in timed.seconds.items()}
    return timed


def configured(name):
    """Inversion options of a config in benchmarks/configs."""
    inversion = Config.fromfile(REPO / f'benchmarks/configs/{name}.py').replay.inversion
    size = inversion.size
    return dict(inversion, side=size if isinstance(size, int) else size[0])


def synthesis(name, networks, device):
    """Image size and, for one of ``SYNTHESES``, seconds per image of each variant."""
    of, config, changed, rounds = SYNTHESES[name]
    options = dict(configured(config), **changed)
    side, batch = options['side'], options['batch_size']
    model = network(networks[of][0], side, device)
    tenth = [(scale, number // 10) for scale, number in options['stages']]
    variants = dict(published=plainly(model, side, PUBLISHED_BATCH, PUBLISHED // SHARE, device),
                    ours=ours(model, side, batch, tenth, device))
    timed = interleaved(variants, rounds, warmup=1, device=device, own_time=True)
    shares = dict(published=SHARE / PUBLISHED_BATCH, ours=10 / batch)
    timed.seconds = {kind: [shares[kind] * seconds for seconds in held] for kind, held in timed.seconds.items()}
    return side, timed


def measure(device, out):
    rows, per_iteration, per_image = [], {}, {}
    networks = ON_GPU if device.startswith('cuda') else ON_CPU
    for name, (config, side, batch, iterations, rounds) in networks.items():
        timed = iteration(config, side, batch, iterations, rounds, device)
        what = f'{name}, {batch} x {side} px'
        rows += [
            row(f'{what}: iteration / floor', timed.ratio('ours', 'floor'), at_most=1.15),
            row(f'{what}: iteration / floor in channels last', timed.ratio('ours', 'floor, channels last')),
            row(f'{what}: plain iteration / floor', timed.ratio('plain', 'floor')),
        ]
        if 'ours, bf16' in timed.seconds:
            rows.append(row(f'{what}: iteration, bf16 / float32', timed.ratio('ours, bf16', 'ours')))
        per_iteration[what] = {variant: timed.median(variant) for variant in timed.seconds}
    for name in SYNTHESES:
        side, timed = synthesis(name, networks, device)
        rows.append(row(f'{name}, {side} px: seconds per image, published / ours', timed.ratio('published', 'ours'),
                        at_least=8 if device.startswith('cuda') else 4))
        per_image[name] = {variant: timed.median(variant) for variant in timed.seconds}
    return dict(rows=rows, seconds_per_iteration=per_iteration, seconds_per_image=per_image)


def draw(figures, path):
    """Plot an iteration over its floor for each network, and seconds per image for each synthesis."""
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(1, 2, figsize=(10, 3), constrained_layout=True)
    held = figures['seconds_per_iteration']
    _pairs(axes[0], [name.replace(', ', '\n') for name in held],
           dict(plain=[each['plain'] / each['floor'] for each in held.values()],
                ours=[each['ours'] / each['floor'] for each in held.values()]))
    axes[0].axhline(1.15, color='#555555', linewidth=0.8, linestyle='--', label='bar')
    axes[0].set_ylabel('iteration / floor')
    held = figures['seconds_per_image']
    _pairs(axes[1], [name.replace(' at', '\nat') for name in held],
           {kind: [each[kind] for each in held.values()] for kind in ('published', 'ours')})
    axes[1].set(ylabel='seconds of an image', yscale='log')
    for axis in axes:
        axis.legend(frameon=False, fontsize=8)
        axis.margins(y=0.15)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _pairs(axis, names, values):
    for offset, colour, (label, heights) in zip((-0.2, 0.2), ('#9a9a9a', '#2678b2'), values.items()):
        bars = axis.bar([i + offset for i in range(len(names))], heights, 0.38, label=label, color=colour)
        axis.bar_label(bars, fmt='%.3g', fontsize=8)
    axis.set_xticks(range(len(names)), names, fontsize=8)
