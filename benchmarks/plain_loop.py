"""Half-real half-fake training in plain PyTorch, as one would write it from the formulas: the baseline of speeds.

All at full resolution, one tensor after another: both networks' logits up-sampled, the teacher's class where no new one
is labelled (eq. 4), distillation by logsumexp as in MiB (eq. 3), autograd throughout.
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
    # mmseg's default, as ours: ignored pixels count in the mean.
    segmentation = F.cross_entropy(logits, merged, ignore_index=255, reduction='none').mean()
    total = logits.logsumexp(1)
    background = torch.cat([logits[:, :1], logits[:, num_old:]], dim=1).logsumexp(1) - total
    others = logits[:, 1:num_old] - total[:, None]
    distillation = -(old[:, 0] * background + (old[:, 1:] * others).sum(1)).mean()
    return segmentation, distillation


def plain_iteration(student, teacher, optimizer, inputs, labels):
    """One update.

    Args:
        student, teacher: from (N, 3, H, W) to logits of any size.
        optimizer: of the student's weights.
    """
    with torch.no_grad():
        teacher_logits = teacher(inputs)
    segmentation, distillation = plain_losses(student(inputs), teacher_logits, labels)
    optimizer.zero_grad()
    (segmentation + distillation).backward()
    optimizer.step()
