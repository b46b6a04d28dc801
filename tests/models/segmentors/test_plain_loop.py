"""The loop in plain PyTorch that speeds are compared with computes what HRHF does."""
import runpy

import torch


def test_plain_losses_are_hrhf_s(build_system, make_batch, repo):
    plain_losses = runpy.run_path(str(repo / 'benchmarks/plain_loop.py'))['plain_losses']
    model, (inputs, samples) = build_system('HRHF').eval(), make_batch([0, 0, 3, 4, 255])
    with torch.no_grad():
        logits = [net.decode_head.forward(net.extract_feat(inputs)) for net in (model.student, model.teacher)]
        found = plain_losses(*logits, torch.cat([sample.gt_sem_seg.data for sample in samples]))
        losses = model.loss(inputs, samples)
    for value, name in zip(found, ('decode.loss_ce', 'loss_kd')):
        torch.testing.assert_close(losses[name], value)
