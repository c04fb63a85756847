"""Attention mining loss of AMB, the attention mining branch (Iwayoshi et al.).

    L_am = mean_i S_g(F*_i),    F* = F - T(M) F

with F* the features whose attended region is hidden, S_g the softmax probability of the true class
g that the perception branch gives them. What is minimised is the evidence for the true class that
the map leaves out, so the map grows over all of it. (GAIN, Li et al., CVPR 2018, has the same term.)
Hiding is the network's business; here the logits come in.

The paper's sum over the images of a batch is a mean here, as in every other term of the loss, so
that its weight does not depend on the batch size. The paper's weight 1e-4 of a sum over 16 images
is therefore 1.6e-3 here.

Shape legend: B batch, N classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from konkyo.training.losses.precision import at_least_float32


def mining_loss(hidden_logits: Tensor, labels: Tensor) -> Tensor:
    """Probability of the true class on the hidden features, to be minimised.

    Where the probability is all but 0 or 1 the gradient is all but 0: that is the paper's loss, and
    why it is the probability and not its logarithm, which would grow without bound.

    Args:
        hidden_logits: (B, N) of the hidden features F*, of any floating type.
        labels: (B,) int64.

    Returns:
        Scalar in [0, 1], the mean over the batch.
    """
    probabilities = torch.softmax(at_least_float32(hidden_logits), dim=-1)
    return probabilities.gather(-1, labels[:, None]).mean()
