"""Base class of inversions, their requests and results, and how a config builds them."""
from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Callable, Mapping, Optional, Sequence, Union

import numpy as np
from mmseg.registry import TASK_UTILS
from torch import Tensor, nn

from ...utils.errors import UserError
from ...utils.options import check_registered
from .pixels import image_size

# {module name: {'mean': (C,), 'var': (C,)}}, as stored in a checkpoint.
RecordedStatistics = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class FakeRequest:
    """A batch of synthetic images to generate.

    Args:
        classes: foreground class indices of each image.
        seed: random seed of the batch; the same request gives the same images.
    """
    classes: tuple[tuple[int, ...], ...]
    seed: int

    def __len__(self) -> int:
        return len(self.classes)


@dataclass
class FakeBatch:
    """Result of an inversion.

    Args:
        images: (N, H, W, 3) uint8 RGB.
        r: for each image, the r of each requested class; empty without r.
        losses: final terms of the objective, averaged over the batch, and ``iterations``.
    """
    images: Tensor
    r: list[list[float]]
    losses: dict[str, float]


class Inversion(abc.ABC):
    """Base class: synthesises images of the classes of a frozen segmentor.

    ``replay.inversion.type`` can name any subclass registered in mmseg's ``TASK_UTILS``. Its options are the
    annotated arguments of its constructor.

    Args:
        size: side length, or (height, width), of the images in pixels.
        batch_size: images synthesised together.
        classes_per_image: values from which the number of classes of each image is drawn, uniformly.
    Raises:
        UserError: a value out of range.
    """

    def __init__(self,
                 size: Union[int, Sequence[int]],
                 batch_size: int = 16,
                 classes_per_image: Sequence[int] = (1, )) -> None:
        self.size = image_size(size)
        if batch_size < 1:
            raise UserError(f'replay.inversion.batch_size={batch_size} must be positive.')
        if not classes_per_image or min(classes_per_image) < 1:
            raise UserError(f'replay.inversion.classes_per_image={classes_per_image!r} must contain numbers of at '
                            'least 1, such as (1, 2).')
        self.batch_size = batch_size
        self.classes_per_image = tuple(classes_per_image)

    @property
    def uses_statistics(self) -> bool:
        """Whether the objective uses feature statistics of the teacher (see ``feature_targets``)."""
        return False

    def iterations(self) -> int:
        """Maximum number of iterations of a batch."""
        return 1

    @abc.abstractmethod
    def __call__(self,
                 model: nn.Module,
                 request: FakeRequest,
                 on_iteration: Optional[Callable[[dict], None]] = None,
                 recorded: Optional[RecordedStatistics] = None) -> FakeBatch:
        """Synthesise one batch.

        Args:
            model: the teacher, a segmentor in eval mode whose parameters do not require gradients.
            request: classes and seed; the same request gives the same images.
            on_iteration: called after each iteration with its losses by name.
            recorded: feature statistics of layers other than batch norm, from the checkpoint of ``model``.
        """


def plan_requests(num_images: int, num_classes: int, batch_size: int, classes_per_image: Sequence[int],
                  seed: int) -> list[FakeRequest]:
    """Plan the batches of a buffer, balanced over the old classes.

    Args:
        num_images: number of images in the buffer.
        num_classes: number of the teacher's classes, including background.
        batch_size: images per batch; the last batch may be smaller.
        classes_per_image: values from which the number of classes of each image is drawn, uniformly; limited to the
            number of foreground classes.
        seed: seed of the plan, from which each batch gets its own.
    Returns:
        Requests in buffer order. Class counts differ by at most one.
    """
    rng = np.random.default_rng([seed, 0])
    deck: list[int] = []
    images = []
    for _ in range(num_images):
        wanted = min(int(rng.choice(classes_per_image)), num_classes - 1)
        chosen: list[int] = []
        while len(chosen) < wanted:
            if not deck:
                deck = (rng.permutation(num_classes - 1) + 1).tolist()
            # Skip classes that the image has already; a new deck always contains another.
            chosen.append(deck.pop(next(i for i, c in enumerate(deck) if c not in chosen)))
        images.append(tuple(sorted(chosen)))
    requests = []
    for start in range(0, num_images, batch_size):
        batch_seed = np.random.SeedSequence([seed, 1 + start]).generate_state(1)[0]
        requests.append(FakeRequest(tuple(images[start:start + batch_size]), int(batch_seed)))
    return requests


def build_inversion(options: Optional[dict]) -> Inversion:
    """Build the inversion from the ``replay.inversion`` options.

    Raises:
        UserError: an unknown type or option, a value of the wrong type or out of range.
    """
    check_registered('replay.inversion', options, TASK_UTILS, Inversion, "dict(type='SegInversion', size=512)")
    return TASK_UTILS.build(options)
