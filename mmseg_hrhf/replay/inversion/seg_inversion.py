"""SegInversion, which turns noise into images of a frozen segmentor's classes (section 3.2), and plain noise."""
from __future__ import annotations

import math
from typing import Callable, Optional, Sequence, Union

import numpy as np
import torch
import torch.nn.functional as F
from mmseg.registry import TASK_UTILS
from torch import Tensor, nn

from ...models.heads import predicted_logits
from ...utils.errors import UserError
from ...utils.options import check_registered
from .aggregation import Aggregation
from .base import FakeBatch, FakeRequest, Inversion, RecordedStatistics
from .feature_statistics import FeatureStatistics, feature_targets
from .objective import RunningLosses, classification_loss, draw_perturbation, smoothness
from .pixels import PixelSpace, fastest_memory_format

_AMP_TYPES = {None: None, 'bf16': torch.bfloat16, 'fp16': torch.float16}


# Betas of Adam, and the warm-up fraction of each stage.
_BETAS, _WARMUP = (0.5, 0.9), 0.1


def _adam(images: Tensor, lr: float) -> torch.optim.Adam:
    """Adam, fused if torch supports it."""
    try:
        return torch.optim.Adam([images], lr=lr, betas=_BETAS, fused=True)
    except RuntimeError:
        return torch.optim.Adam([images], lr=lr, betas=_BETAS)


@TASK_UTILS.register_module()
class SegInversion(Inversion):
    """Synthesise images by gradient descent on their pixels (eq. 2).

    The loss is the cross-entropy of aggregated class scores (eq. 1) plus ``tv_weight`` x smoothness + ``l2_weight`` x
    squared norm (image prior) + ``feature_weight`` x distance of feature statistics: recorded ones, or the running
    statistics of batch norms. Images are optimised in the normalised input space of the network and clamped to valid
    pixels after every step.

    Args:
        size: side length, or (height, width), of the images in pixels.
        aggregation: config of a registered aggregation.
        stages: sequence of ``(scale, iterations)``: optimise at ``scale`` x ``size``, then upsample to the next stage.
            The last scale must be 1. The paper uses ``((1, 1000), )``.
        lr: learning rate of Adam, with linear warm-up over the first tenth of each stage and cosine decay.
        batch_size: images optimised together; feature statistics are computed over the batch.
        classes_per_image: values from which the number of classes of each image is drawn, uniformly.
        with_background: request background in addition to the classes (Fig. 3), with an equal share of the target.
        tv_weight, l2_weight, feature_weight: coefficients of R(x).
        jitter: maximum roll, as a fraction of the side, drawn again in each iteration.
        flip: flip horizontally with probability 0.5 in each iteration.
        loss_threshold: stop a stage if the classification loss exceeds its minimum by less than this. The minimum is
            0 for one class and the entropy of the target for several.
        amp: None, ``'bf16'`` or ``'fp16'``: autocast dtype of the network.
    """

    def __init__(self,
                 size: Union[int, Sequence[int]],
                 aggregation: dict = dict(type='ScaleAwareAggregation'),
                 stages: Sequence[tuple[float, int]] = ((1.0, 1000), ),
                 lr: float = 0.25,
                 batch_size: int = 16,
                 classes_per_image: Sequence[int] = (1, 1, 2),
                 with_background: bool = True,
                 tv_weight: float = 10.0,
                 l2_weight: float = 0.0,
                 feature_weight: float = 5.0,
                 jitter: float = 0.06,
                 flip: bool = True,
                 loss_threshold: Optional[float] = None,
                 amp: Optional[str] = None) -> None:
        super().__init__(size, batch_size, classes_per_image)
        check_registered('replay.inversion.aggregation', aggregation, TASK_UTILS, Aggregation,
                         "dict(type='ScaleAwareAggregation')")
        self.aggregation = TASK_UTILS.build(aggregation)
        self.stages = tuple((float(scale), int(iterations)) for scale, iterations in stages)
        if not self.stages or self.stages[-1][0] != 1 or min(n for _, n in self.stages) < 1:
            raise UserError(f'replay.inversion.stages={stages!r} must be (scale, iterations) pairs with at least one '
                            'iteration each and a last scale of 1.')
        if lr <= 0:
            raise UserError(f'replay.inversion.lr={lr} must be positive.')
        for name, value in dict(tv_weight=tv_weight, l2_weight=l2_weight, feature_weight=feature_weight,
                                jitter=jitter).items():
            if value < 0:
                raise UserError(f'replay.inversion.{name}={value} must not be negative.')
        if amp not in _AMP_TYPES:
            raise UserError(f'replay.inversion.amp={amp!r} is not one of {list(_AMP_TYPES)}.')
        self.lr = lr
        self.with_background = with_background
        self.tv_weight = tv_weight
        self.l2_weight = l2_weight
        self.feature_weight = feature_weight
        self.jitter = jitter
        self.flip = flip
        self.loss_threshold = loss_threshold
        self.amp = amp

    @property
    def uses_statistics(self) -> bool:
        return self.feature_weight > 0

    def iterations(self) -> int:
        return sum(iterations for _, iterations in self.stages)

    def __call__(self,
                 model: nn.Module,
                 request: FakeRequest,
                 on_iteration: Optional[Callable[[dict], None]] = None,
                 recorded: Optional[RecordedStatistics] = None) -> FakeBatch:
        """Synthesise a batch, see ``Inversion.__call__``.

        Raises:
            UserError: a loss is NaN or Inf; names batch, classes and iteration.
        """
        if model.training or any(parameter.requires_grad for parameter in model.parameters()):
            raise UserError('SegInversion needs a frozen network: call model.eval().requires_grad_(False) first.')
        device = next(model.parameters()).device
        # Separate generators: noise, rolls and flips do not depend on r (Fig. 3).
        rng = np.random.default_rng([request.seed, 0])
        num_classes = model.num_classes
        drawn = self.aggregation.draw_r(len(request), num_classes, np.random.default_rng([request.seed, 1]))
        r = torch.as_tensor(drawn, dtype=torch.float32, device=device)
        target = self._target(request, num_classes, device)
        space = PixelSpace.of(model)
        # Drawn on the CPU, so that the noise is the same on every device.
        generator = torch.Generator().manual_seed(request.seed)
        images = space.clamp_(torch.randn((len(request), 3) + self._stage_size(0), generator=generator).to(device))
        taken, losses = 0, RunningLosses(request, on_iteration, at_once=self.loss_threshold is not None)
        targets = feature_targets(model, recorded) if self.feature_weight > 0 else []
        memory_format = fastest_memory_format(model, images[:2], half=self.amp is not None)
        with FeatureStatistics(targets) as statistics:
            for stage, (_, iterations) in enumerate(self.stages):
                images = F.interpolate(images, self._stage_size(stage), mode='bilinear', align_corners=False)
                images, used = self._optimise(model, images, r, target, space, statistics, memory_format, iterations,
                                              rng, losses)
                taken += used
        chosen_r = [
            [] if np.isnan(drawn).any() else [float(drawn[i, c]) for c in classes]
            for i, classes in enumerate(request.classes)
        ]
        return FakeBatch(space.to_pixels(images), chosen_r, dict(losses.last, iterations=taken))

    def _stage_size(self, stage: int) -> tuple[int, int]:
        scale = self.stages[stage][0]
        if scale == 1:
            return self.size
        # Some networks only accept multiples of 8.
        height, width = (max(8, 8 * round(side * scale / 8)) for side in self.size)
        return height, width

    def _target(self, request: FakeRequest, num_classes: int, device: torch.device) -> Tensor:
        """(N, K) distribution, uniform over the requested classes and, with ``with_background``, background."""
        target = torch.zeros(len(request), num_classes)
        for row, classes in zip(target, request.classes):
            row[list(classes)] = 1
            row[0] = float(self.with_background)
        return (target / target.sum(1, keepdim=True)).to(device)

    def _optimise(self, model, images, r, target, space, statistics, memory_format, iterations, rng, losses):
        """Run one stage. Returns the images and the number of iterations."""
        images = images.detach().contiguous().requires_grad_()
        optimizer = _adam(images, self.lr)
        warmup = max(1, round(_WARMUP * iterations))
        # Loss scaling keeps the gradient of a pixel within the range of half precision.
        scale = 1024.0 if self.amp == 'fp16' else 1.0
        # For several classes, the minimum of the cross-entropy is the entropy of the target.
        floor = -torch.special.xlogy(target, target).sum(1).mean().item()
        steps = 0
        for iteration in range(iterations):
            perturb = draw_perturbation(images.shape[2:], self.jitter, self.flip, rng)
            perturbed = perturb(images.detach()).requires_grad_()
            terms = self._terms(model, perturbed, r, target, space, statistics, memory_format)
            total = sum(weight * term for weight, term in terms.values())
            gradient, = torch.autograd.grad(total * scale, perturbed)
            # The fused optimizer requires images, gradient and state in the same memory format.
            gradient = perturb.undo(gradient.contiguous())
            if scale > 1:
                gradient /= scale
            magnitude = gradient.sum()
            if scale > 1:  # read together: each read synchronises host and accelerator
                loss, gradient_sum = torch.stack([total.detach(), magnitude]).tolist()
                if math.isfinite(loss) and not math.isfinite(gradient_sum):
                    scale /= 2
                    continue
            losses.add(iteration, {name: term for name, (_, term) in terms.items()}, total, magnitude)
            images.grad = gradient
            optimizer.param_groups[0]['lr'] = self.lr * min(1.0, (steps + 1) / warmup) * 0.5 * (
                1 + math.cos(math.pi * steps / iterations))
            optimizer.step()
            steps += 1
            with torch.no_grad():
                space.clamp_(images)
            if self.loss_threshold is not None and losses.last['classification'] - floor < self.loss_threshold:
                break
        losses.read()
        return images.detach(), iteration + 1

    def _terms(self, model, images, r, target, space, statistics, memory_format) -> dict[str, tuple[float, Tensor]]:
        """(weight, value) of each term of eq. 2; values are averaged over the batch."""
        dtype = _AMP_TYPES[self.amp]
        with torch.autocast(images.device.type, dtype=dtype, enabled=dtype is not None):
            logits = predicted_logits(model, space.to_network(images).contiguous(memory_format=memory_format))
        scores = self.aggregation(logits, r)
        terms = dict(classification=(1.0, classification_loss(scores, target).mean()))
        features = statistics.loss()
        if features is not None:
            terms['feature'] = (self.feature_weight, features)
        if self.tv_weight > 0:
            terms['tv'] = (self.tv_weight, smoothness(images).mean())
        if self.l2_weight > 0:
            terms['l2'] = (self.l2_weight, images.square().mean())
        return terms


@TASK_UTILS.register_module()
class GaussianNoise(Inversion):
    """Images of i.i.d. Gaussian noise: replay without inversion (Table 2, "+Noise").

    Args:
        size: side length, or (height, width), of the images in pixels.
        batch_size: images generated together.
    """

    def __init__(self, size: Union[int, Sequence[int]], batch_size: int = 16) -> None:
        super().__init__(size, batch_size)

    def __call__(self,
                 model: nn.Module,
                 request: FakeRequest,
                 on_iteration: Optional[Callable[[dict], None]] = None,
                 recorded: Optional[RecordedStatistics] = None) -> FakeBatch:
        device = next(model.parameters()).device
        space = PixelSpace.of(model)
        noise = torch.randn((len(request), 3) + self.size, generator=torch.Generator().manual_seed(request.seed))
        if on_iteration is not None:
            on_iteration({})
        return FakeBatch(space.to_pixels(space.clamp_(noise.to(device))), [[] for _ in range(len(request))], {})
