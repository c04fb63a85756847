"""Deconvnet (Zeiler and Fergus, ECCV 2014, section 2.1), as a gradient.

As guided backpropagation, but a ReLU passes positive gradients whether its features are positive or
not. Pooling passes gradients to where the largest value was, as the paper's unpooling does.
"""

from __future__ import annotations

from typing import ClassVar

from konkyo.models.explain import register
from konkyo.models.explain.guided_backprop import GuidedBackprop
from konkyo.models.explain.relus import deconv_relu


@register
class Deconvnet(GuidedBackprop):
    """Gradients of scores by the image through the ReLUs of the deconvnet, at the size of the input."""

    name: ClassVar[str] = "deconvnet"
    relu = staticmethod(deconv_relu)
