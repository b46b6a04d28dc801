"""Ours against plain PyTorch written directly from the formulas: plain_loop.py, plain_inversion.py.

Training: an iteration of HRHF through the real Runner, data from memory, against ``plain_iteration`` on the same batch
(which has no data, hooks or log). Synthesis: the stages of benchmarks/configs/voc_animals_3-1.py against 1000
iterations at full size.
"""
from __future__ import annotations

import torch
from plain_loop import plain_iteration
from speed_inversion import ON_CPU, ON_GPU, synthesis
from speed_training import Floor, iteration
from timing import row


class PlainLoop(Floor):
    """``plain_iteration`` with a copy of the student."""

    def variants(self, inputs, data_samples):
        labels = torch.stack([sample.gt_sem_seg.data[0] for sample in data_samples])

        def logits_of(network):
            return lambda images: network.decode_head.forward(network.extract_feat(images))

        return dict(plain=lambda: plain_iteration(logits_of(self.student), logits_of(self.teacher), self.optimizer,
                                                  inputs, labels))


def measure(device, out):
    on_gpu = torch.device(device).type == 'cuda'
    training = iteration('r101' if on_gpu else 'mobilenet', 'HRHF', device, out, PlainLoop)
    _, images = synthesis('VOC-animals', ON_GPU if on_gpu else ON_CPU, device)
    rates = dict(
        training={name: 1 / training.median(name) for name in ('plain', 'ours')},
        synthesis=dict(plain=1 / images.median('published'), ours=1 / images.median('ours')))
    return dict(
        rows=[row('training iterations / s: ours / plain PyTorch', training.ratio('plain', 'ours'), at_least=1),
              row('synthesised images / s: ours / plain PyTorch', images.ratio('published', 'ours'), at_least=1)],
        rates=rates)


def draw(figures, path):
    """Plot a pair of bars for each kind of work, on separate axes."""
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(1, 2, figsize=(7, 2.6))
    units = dict(training='training iterations / s', synthesis='synthesised images / s')
    for axis, (kind, rates) in zip(axes, figures['rates'].items()):
        bars = axis.bar(['plain PyTorch', 'ours'], [rates['plain'], rates['ours']], color=['#9a9a9a', '#2678b2'])
        axis.bar_label(bars, fmt='%.3g')
        axis.set_title(units[kind], fontsize=10)
        axis.margins(y=0.15)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
