"""Prototype conformity loss (Mustafa et al., ICCV 2019), as AMB uses it.

    L_PC = mean_i { a_i - r / (N - 1) sum_{j != g} (b_ij + c_j) }
    a_i = |f_i - w_g|    b_ij = |f_i - w_j|    c_j = |w_g - w_j|

with f the features, w the learned centres of the classes (the prototypes), g the true class, all
norms Euclidean. Features gather at the centre of their class, away from the other centres, and the
centres move apart.

Three choices of ours. The paper sums over the images; we take the mean, so that the loss's weight
does not depend on the batch size. The repelling terms have no lower bound: as in the public
implementation of Mustafa et al. they are weighted with r = 1e-4, and a distance counts no further
than to a limit, beyond which nothing repels. (There the limit is 1e12, of squared distances. Ours is
1e4: far above the distances of a network that learns, and the loss cannot fall under -2.)
The attracting distance is not limited: it is bounded below, and a limit would leave exactly the
farthest features without a pull.

Shape legend: B batch, N classes, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from konkyo.training.losses.precision import at_least_float32


def prototype_conformity_loss(
    features: Tensor, labels: Tensor, prototypes: Tensor, *, repel: float = 1e-4, clamp: float = 1e4
) -> Tensor:
    """Distance to the own class's prototype, less the weighted distances to and between the others.

    Args:
        features: (B, D), of any floating type.
        labels: (B,) int64.
        prototypes: (N, D), N at least 2, learned with the features.
        repel: r, the weight of the repelling terms.
        clamp: the largest distance that still repels, in units of the features.

    Returns:
        Scalar, at least -2 * repel * clamp, the mean over the batch.
    """
    features, prototypes = at_least_float32(features), at_least_float32(prototypes)
    to_prototypes = _distances(features, prototypes)  # (B, N)
    own = labels[:, None]
    attraction = to_prototypes.gather(-1, own).squeeze(-1)  # (B,)
    between = _distances(prototypes, prototypes)[labels]  # (B, N)
    others = torch.ones_like(to_prototypes).scatter_(-1, own, 0)
    repulsion = (others * (to_prototypes.clamp(max=clamp) + between.clamp(max=clamp))).sum(dim=-1)
    return (attraction - repel / (len(prototypes) - 1) * repulsion).mean()


def _distances(rows: Tensor, columns: Tensor) -> Tensor:
    """Euclidean distances (n, D), (m, D) -> (n, m); at distance 0 the gradient is 0, not NaN.

    By differences: the shorter way by a matrix product cancels where the two are close.
    """
    return torch.cdist(rows, columns, compute_mode="donot_use_mm_for_euclid_dist")
