"""Grad-CAM through the ReLUs of the deconvnet (Selvaraju et al., IJCV 2020, appendix on design choices).

As ``gradcam_guided.py``, by the other rule: in the paper's ablation it localises worst.
"""

from __future__ import annotations

from typing import ClassVar

from konkyo.models.explain import register
from konkyo.models.explain.gradcam_guided import GradCAMGuided
from konkyo.models.explain.relus import deconv_relu


@register
class GradCAMDeconv(GradCAMGuided):
    """Features weighted by their mean gradient through the ReLUs of the deconvnet, signed."""

    name: ClassVar[str] = "gradcam-deconv"
    relu = staticmethod(deconv_relu)
