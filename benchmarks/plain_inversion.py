"""Image synthesis in plain PyTorch, written directly from the paper's formulas: the speed baseline.

All iterations at full size, float32, separate loss terms with autograd, hooks on the batch norms, torch's Adam.
"""
from __future__ import annotations

import math

import torch

from mmseg_hrhf.utils.compat import BatchNorm


def plain_synthesis(forward, model, images, classes, r, iterations, lr=0.25, tv_weight=10.0, feature_weight=5.0,
                    jitter=0.06, warmup=0.1, low=-2.0, high=2.6, relative=True):
    """Optimise images by eq. 2. Returns the images and the final values of the terms.

    Args:
        forward: maps (N, 3, H, W) to (N, K, H, W) logits of ``model``.
        model: frozen network in eval mode.
        images: (N, 3, H, W) noise.
        classes: (N,) requested classes; background is requested in addition.
        r: (N, K), of eq. 1.
        iterations: of Adam, with linear warm-up in the first tenth, then cosine decay.
        low, high: range of the images.
        relative: feature distances in units of the running statistics, as ours; False: the published norms.
    """
    inputs = []
    handles = [layer.register_forward_pre_hook(lambda layer, given: inputs.append((layer, given[0])))
               for layer in model.modules() if isinstance(layer, BatchNorm)]
    images = images.clone().requires_grad_()
    optimizer = torch.optim.Adam([images], lr=lr, betas=(0.5, 0.9))
    rising = max(1, warmup * iterations)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min(1.0, (i + 1) / rising) * 0.5 * (1 + math.cos(math.pi * i / iterations)))
    reach = [round(jitter * side) for side in images.shape[2:]]
    terms = {}
    for _ in range(iterations):
        inputs.clear()
        seen = images.roll([int(torch.randint(-n, n + 1, ())) for n in reach], (2, 3))
        seen = seen.flip(3) if torch.rand(()) < 0.5 else seen
        logits = forward(seen)
        scores = ((logits.flatten(2) * r[..., None]).logsumexp(-1) - math.log(logits[0, 0].numel())) / r
        log_prob = scores.log_softmax(1)
        rows, columns = seen[:, :, 1:] - seen[:, :, :-1], seen[..., 1:] - seen[..., :-1]
        features = [distance(layer, x, relative) for layer, x in inputs]
        terms = dict(
            classification=-0.5 * (log_prob[:, 0] + log_prob.gather(1, classes[:, None])[:, 0]).mean(),
            feature=sum(features) / (len(features) if relative else 1),
            tv=rows.square().mean() + columns.square().mean())
        loss = terms['classification'] + feature_weight * terms['feature'] + tv_weight * terms['tv']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            images.clamp_(low, high)
    for handle in handles:
        handle.remove()
    return images.detach(), {name: term.item() for name, term in terms.items()}


def distance(layer, x, relative):
    """Distance of a batch norm's input from its running statistics."""
    var, mean = torch.var_mean(x, (0, 2, 3), unbiased=False)
    if not relative:
        return (mean - layer.running_mean).norm() + (var - layer.running_var).norm()
    scale = layer.running_var + layer.eps
    return (((mean - layer.running_mean).square() / scale).mean().sqrt()
            + ((var - layer.running_var) / scale).square().mean().sqrt())
