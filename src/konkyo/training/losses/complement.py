"""Complement entropy of COT, complement objective training (Chen et al., ICLR 2019), as AMB uses it.

    q_j   = p_j / (1 - p_g),  j != g
    L_CoE = (1 / B) sum_i sum_{j != g} q_ij log q_ij

with g the true class and q the distribution over the wrong classes. Minimising L_CoE makes q flat,
so that no wrong class stands out.

The sign: the paper's formula has a minus before the sum, which is the entropy of q; minimised, it
would make q peak, the opposite of what the text asks for and of what COT does. So we minimise the
negative entropy, as the public implementation of COT does.

The size: the implementation of COT divides by N as well, the formula in the AMB paper does not.
Neither do we: the value stays in nats, as the cross-entropy it takes turns with, between
-log(N - 1) for a flat q and 0 for one wrong class that takes all.

q is the softmax over the N - 1 other logits. p_g cancels out of it, so p_g = 1 divides nothing by 0.

Shape legend: B batch, N classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from konkyo.training.losses.precision import at_least_float32


def complement_entropy_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative entropy of the wrong classes' distribution, to be minimised.

    Two classes leave one wrong class, which is flat already: 0, with a gradient of 0.

    Args:
        logits: (B, N), N at least 2, of any floating type. The true class's gets no gradient.
        labels: (B,) int64.

    Returns:
        Scalar in [-log(N - 1), 0], the mean over the batch, in nats.
    """
    true_class = torch.zeros_like(logits, dtype=torch.bool).scatter_(-1, labels[:, None], True)
    others = at_least_float32(logits).masked_fill(true_class, -torch.inf)
    # The true class's log(0) becomes 0 before the product, where it would be 0 * inf.
    log_q = torch.log_softmax(others, dim=-1).masked_fill(true_class, 0)
    return (log_q.exp() * log_q).sum(dim=-1).mean()
