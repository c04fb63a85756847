"""Knowledge distillation (Hinton, Vinyals, Dean, 2015).

    L = (1 - a) CE(y, p) + a T^2 KL(q_T || p_T)

with p_T and q_T the softmax of the logits over the temperature T, of the student and of the
teachers; of several teachers q_T is the mean. T^2 keeps the gradients of the second term at the
size of the first's.

Shape legend: B batch, N classes, E teachers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def distillation_loss(
    logits: Tensor,
    labels: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float,
    share: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy with the labels, mixed with the divergence from the teachers.

    Args:
        logits: (B, N) of the student.
        labels: (B,) int64.
        teacher_logits: (E, B, N); no gradient flows into them.
        temperature: T, above 0.
        share: a, of the teachers' term, in [0, 1].
        label_smoothing: of the labels' term.

    Returns:
        Scalar, the mean over the batch, in nats.
    """
    hard = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    soft_targets = torch.softmax(teacher_logits.detach() / temperature, dim=-1).mean(dim=0)
    divergence = F.kl_div(
        torch.log_softmax(logits / temperature, dim=-1), soft_targets, reduction="batchmean"
    )
    return (1 - share) * hard + share * temperature**2 * divergence
