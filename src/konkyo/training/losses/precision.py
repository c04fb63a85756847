"""The number type losses are computed in."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay as they are.

    float16 ends at 65,504 and bfloat16 has three significant digits: too few for a sum of squares,
    or for a difference of logarithms. The gradient comes back in the type of the input.
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))
