"""Measure the confidence of a finished step's network on images: what distillation can add to hard labels.

    python benchmarks/teacher_confidence.py WORK_DIR/step_0 WORK_DIR/step_1/fakes/images/*.bmp

Prints the share of pixels with a label probability above 0.9, and the mean entropy in nats. All images must have the
same size.
"""
import argparse

import numpy as np
import torch
from PIL import Image

from mmseg_hrhf.analysis.finished_step import FinishedStep
from mmseg_hrhf.models.heads import predicted_logits
from mmseg_hrhf.replay.inversion.pixels import PixelSpace


@torch.no_grad()
def confidence(model, paths, batch=20):
    """(share of pixels above 0.9, mean entropy in nats)."""
    device = next(model.parameters()).device
    space, sure, entropy = PixelSpace(model.data_preprocessor, device), [], []
    for first in range(0, len(paths), batch):
        pixels = np.stack([np.asarray(Image.open(path).convert('RGB')) for path in paths[first:first + batch]])
        images = space.to_network(space.from_pixels(torch.from_numpy(pixels).to(device)))
        log_prob = predicted_logits(model, images).log_softmax(1)
        sure.append((log_prob.amax(1).exp() > 0.9).float().mean((1, 2)))
        entropy.append(-(log_prob.exp() * log_prob).sum(1).mean((1, 2)))
    return torch.cat(sure).mean().item(), torch.cat(entropy).mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('step', help='WORK_DIR/step_<t>')
    parser.add_argument('images', nargs='+')
    parser.add_argument('--device', default='cpu')
    args = parser.parse_args()
    model = FinishedStep(args.step, args.device).model
    print('%d images: label above 0.9 on %.1f %% of pixels, entropy %.3f nats' %
          (len(args.images), *(scale * value for scale, value in zip((100, 1), confidence(model, args.images)))))


if __name__ == '__main__':
    main()
