"""SegInversion against a plain loop over the formulas: autograd for every term, torch's Adam, no order of memory."""
import copy
import math

import numpy as np
import pytest
import torch
from mmseg.registry import MODELS, TASK_UTILS
from torch import nn

from mmseg_hrhf.models.heads import predicted_logits
from mmseg_hrhf.replay.inversion.base import FakeRequest
from mmseg_hrhf.replay.inversion.pixels import PixelSpace, fastest_memory_format

REQUEST = FakeRequest(((1, ), (3, ), (1, 2), (2, )), seed=5)
OPTIONS = dict(size=(32, 48), stages=[(0.5, 5), (1.0, 6)], lr=0.1, tv_weight=3.0, feature_weight=2.0, l2_weight=0.1,
               batch_size=4)
STAGES = [(16, 24), (32, 48)]


def segmentor(norm):
    torch.manual_seed(0)
    model = MODELS.build(dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[120.] * 3, std=[60.] * 3, bgr_to_rgb=True),
        backbone=dict(type='ResNet', depth=18, base_channels=8, stem_channels=8, num_stages=2, out_indices=(0, 1),
                      strides=(1, 2), dilations=(1, 1), norm_cfg=norm),
        decode_head=dict(type='FCNHead', in_channels=16, in_index=1, channels=8, num_convs=1, num_classes=4,
                         norm_cfg=norm)))
    for name, buffer in model.named_buffers():
        # Around 0: where ReLU lets nothing through, the classification loss has no gradient.
        if name.endswith('running_mean'):
            buffer.uniform_(-0.5, 0.5)
        if name.endswith('running_var'):
            buffer.uniform_(0.2, 1.5)
    return model.eval().requires_grad_(False)


def plain_terms(model, images, r, target):
    inputs = []
    handles = [layer.register_forward_pre_hook(lambda layer, args: inputs.append((layer, args[0])))
               for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    logits = predicted_logits(model, images)
    for handle in handles:
        handle.remove()
    aggregated = (logits.flatten(2) * r[..., None]).exp().mean(-1).log() / r
    classification = -(target * aggregated.log_softmax(1)).sum(1).mean()
    distances = []
    for layer, x in inputs:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        m, v = layer.running_mean, layer.running_var
        scale = v + layer.eps
        distances.append(((mean - m)**2 / scale).mean().sqrt() + (((var - v) / scale)**2).mean().sqrt())
    feature = sum(distances) / len(distances)
    rows, columns = images[:, :, 1:] - images[:, :, :-1], images[..., 1:] - images[..., :-1]
    return dict(classification=classification, feature=feature, tv=(rows**2).mean() + (columns**2).mean(),
                l2=(images**2).mean())


def plain_inversion(model):
    """Pixels and losses of every iteration, in float64."""
    model = copy.deepcopy(model).double()
    space, rng = PixelSpace(model.data_preprocessor, torch.device('cpu')), np.random.default_rng([REQUEST.seed, 0])
    mean, std = space.mean.double(), space.std.double()
    r = TASK_UTILS.build(dict(type='ScaleAwareAggregation')).draw_r(4, 4, np.random.default_rng([REQUEST.seed, 1]))
    target = torch.zeros(4, 4, dtype=torch.float64)
    for row, classes in zip(target, REQUEST.classes):
        row[[0, *classes]] = 1 / (1 + len(classes))
    noise = torch.randn((4, 3) + STAGES[0], generator=torch.Generator().manual_seed(REQUEST.seed))
    images, losses = space.clamp_(noise).double(), []
    for size, (_, iterations) in zip(STAGES, OPTIONS['stages']):
        images = nn.functional.interpolate(images, size, mode='bilinear', align_corners=False).requires_grad_()
        optimizer = torch.optim.Adam([images], lr=OPTIONS['lr'], betas=(0.5, 0.9))
        for i in range(iterations):
            shifts = [int(rng.integers(-n, n + 1)) for n in (round(0.06 * side) for side in size)]
            seen = images.roll(shifts, (2, 3))
            terms = plain_terms(model, seen.flip(3) if rng.random() < 0.5 else seen, torch.from_numpy(r), target)
            losses.append({name: term.item() for name, term in terms.items()})
            optimizer.zero_grad()
            (terms['classification'] + 2 * terms['feature'] + 3 * terms['tv'] + 0.1 * terms['l2']).backward()
            warm = min(1, (i + 1) / max(1, round(0.1 * iterations)))
            optimizer.param_groups[0]['lr'] = OPTIONS['lr'] * warm * (1 + math.cos(math.pi * i / iterations)) / 2
            optimizer.step()
            with torch.no_grad():
                images.copy_(torch.minimum(torch.maximum(images, (0 - mean) / std), (255 - mean) / std))
        images = images.detach()
    return (images * std + mean).permute(0, 2, 3, 1), losses


def test_same_losses_in_every_iteration_and_the_same_images():
    model, seen = segmentor(dict(type='BN', requires_grad=True)), []
    assert fastest_memory_format(model, torch.zeros(1, 3, 32, 48)) == torch.channels_last
    batch = TASK_UTILS.build(dict(type='SegInversion', **OPTIONS))(model, REQUEST, seen.append)
    images, losses = plain_inversion(model)
    assert len(seen) == len(losses) == 11
    for ours, plain in zip(seen, losses):
        assert ours == pytest.approx(plain, rel=2e-3)
    # A step of Adam is as large as its rate however small the gradient: where that is nought to rounding, a pixel
    # may go either way.
    off = (batch.images.double() - images).abs()
    assert off.median() <= 0.5 and (off > 2).double().mean() < 0.01
