"""Deconvnet Grad-CAM (Selvaraju et al., ICCV 2017, section 3.2): guided Grad-CAM by the other rule.

deconvnet * upsample(ReLU(Grad-CAM))
"""

from __future__ import annotations

from typing import ClassVar

from konkyo.models.explain import register
from konkyo.models.explain.deconvnet import Deconvnet
from konkyo.models.explain.guided_backprop import GuidedBackprop
from konkyo.models.explain.guided_gradcam import GuidedGradCAM


@register
class DeconvGradCAM(GuidedGradCAM):
    """Gradients by the image of a deconvnet, where Grad-CAM is positive; at the size of the input."""

    name: ClassVar[str] = "deconv-gradcam"
    backprop: ClassVar[type[GuidedBackprop]] = Deconvnet
