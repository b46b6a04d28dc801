"""Which classes, at which scales, a batch of fake images is to show."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np


@dataclass(frozen=True)
class FakeRequest:
    """A batch of fake images to synthesise.

    Args:
        classes: foreground class indices of each image.
        seed: state of everything random in the batch; the same request gives the same images.
    """
    classes: tuple[tuple[int, ...], ...]
    seed: int

    def __len__(self) -> int:
        return len(self.classes)


def plan_requests(num_images: int, num_classes: int, batch_size: int, classes_per_image: Sequence[int],
                  seed: int) -> list[FakeRequest]:
    """Divide a buffer into batches, balanced over the old classes.

    Args:
        num_images: size of the buffer.
        num_classes: classes of the teacher, background included.
        batch_size: images per batch; the last batch may be smaller.
        classes_per_image: drawn from uniformly for each image (never more than there are foreground classes).
        seed: of the plan; batch b gets a seed of its own.
    Returns:
        Requests in buffer order. Every class is asked for equally often, to within one.
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
            # A class already in this image waits for the next one; a fresh deck always holds another.
            chosen.append(deck.pop(next(i for i, c in enumerate(deck) if c not in chosen)))
        images.append(tuple(sorted(chosen)))
    requests = []
    for start in range(0, num_images, batch_size):
        batch_seed = np.random.SeedSequence([seed, 1 + start]).generate_state(1)[0]
        requests.append(FakeRequest(tuple(images[start:start + batch_size]), int(batch_seed)))
    return requests
