"""Half-real half-fake training in plain PyTorch, written directly from the paper's formulas: the speed baseline.

Everything runs at full resolution with autograd: up-sampled logits of both networks, the teacher's class where no new
class is labelled (eq. 4), and distillation with logsumexp as in MiB (eq. 3).
"""
import torch
import torch.nn.functional as F


def plain_losses(logits, teacher_logits, labels):
    """Segmentation loss (eq. 4) and distillation (eq. 3).

    Args:
        logits: (N, C, h, w) of the student.
        teacher_logits: (N, K, h, w).
        labels: (N, H, W): 0, K to C - 1, or 255.
    """
    size, num_old = labels.shape[1:], teacher_logits.shape[1]
    logits = F.interpolate(logits, size, mode='bilinear', align_corners=False)
    with torch.no_grad():
        teacher_logits = F.interpolate(teacher_logits, size, mode='bilinear', align_corners=False)
        old = teacher_logits.softmax(1)
        merged = labels.where(labels != 0, teacher_logits.argmax(1))
    # Ignored pixels count in the mean: mmseg's default and ours.
    segmentation = F.cross_entropy(logits, merged, ignore_index=255, reduction='none').mean()
    total = logits.logsumexp(1)
    background = torch.cat([logits[:, :1], logits[:, num_old:]], dim=1).logsumexp(1) - total
    others = logits[:, 1:num_old] - total[:, None]
    distillation = -(old[:, 0] * background + (old[:, 1:] * others).sum(1)).mean()
    return segmentation, distillation


def plain_iteration(student, teacher, optimizer, inputs, labels):
    """One update.

    Args:
        student, teacher: map (N, 3, H, W) to logits of any size.
        optimizer: of the student's weights.
    """
    with torch.no_grad():
        teacher_logits = teacher(inputs)
    segmentation, distillation = plain_losses(student(inputs), teacher_logits, labels)
    optimizer.zero_grad()
    (segmentation + distillation).backward()
    optimizer.step()
