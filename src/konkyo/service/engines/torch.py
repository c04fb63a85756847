"""torch: the module that was exported, run eagerly. Nothing else in the service imports torch."""

from __future__ import annotations

from typing import Literal

import torch

from konkyo.errors import BundleError
from konkyo.imaging import UInt8
from konkyo.models.bundle import Bundle
from konkyo.models.loading import load_explained
from konkyo.service.engines.base import Float32, Int64, Outputs, run_blank


class TorchEngine:
    """A bundle's weights in torch.

    Args:
        bundle: with safetensors weights.
        device: ``cuda`` fails where CUDA does not work, ``auto`` falls back to the CPU.
        threads: of one forward pass on the CPU, for the whole process; 0 leaves torch's choice.

    Raises:
        BundleError: there are no weights, they do not fit the architecture, or CUDA was insisted
            on and does not work.
    """

    name = "torch"
    faithful = True

    def __init__(
        self, bundle: Bundle, *, device: Literal["auto", "cpu", "cuda"] = "auto", threads: int = 0
    ) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise BundleError("device is cuda, but torch found no CUDA device that works")
        self.device = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
        if threads:
            torch.set_num_threads(threads)
        self._card = bundle.card
        self._module = load_explained(bundle).to(self.device).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def run(self, images: UInt8, targets: Int64, attention: Float32 | None = None) -> Outputs:
        """See ``Engine.run``."""
        inputs = (images, targets) if attention is None else (images, targets, attention)
        logits, maps = self._module(*(torch.from_numpy(values).to(self.device) for values in inputs))
        return Outputs(logits.float().cpu().numpy(), maps.float().cpu().numpy())

    def warm_up(self) -> None:
        """See ``Engine.warm_up``."""
        run_blank(self, self._card)

    def close(self) -> None:
        """Drop the module."""
        del self._module
