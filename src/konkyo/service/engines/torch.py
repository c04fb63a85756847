"""torch: the module that was exported, run eagerly, and the explanations that no graph can hold.

Nothing else in the service imports torch.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from konkyo.errors import BundleError, UnsupportedMethod
from konkyo.imaging import UInt8
from konkyo.models.bundle import Bundle
from konkyo.models.explained import Explained
from konkyo.models.loading import load_explained
from konkyo.service.engines.base import Float32, Int64, Outputs, run_blank


class TorchEngine:
    """A bundle's weights in torch, once, for every method.

    ``run`` and ``explain`` may run at the same time, in two threads: methods hold no state, and on a GPU
    each has its own stream, of which that of ``run`` goes first.

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
        self._module = load_explained(bundle).requires_grad_(False)
        self._module.to(self.device).to(memory_format=torch.channels_last)
        self.differentiates = self._module.explanation.differentiates
        self._methods = {bundle.card.explanation.method: self._module}
        self._run_stream = self._explain_stream = None
        if self.device == "cuda":
            self._run_stream, self._explain_stream = (
                torch.cuda.Stream(priority=priority)  # type: ignore[no-untyped-call]
                for priority in (-1, 0)
            )
            torch.cuda.synchronize()  # the weights are there before another stream reads them

    @torch.no_grad()  # not inference_mode: what a method differentiates must be able to enter autograd
    def run(self, images: UInt8, targets: Int64, attention: Float32 | None = None) -> Outputs:
        """See ``Engine.run``."""
        with torch.cuda.stream(self._run_stream):
            if self.differentiates and targets.shape[1] == 0:
                logits = self._module.classifier(self._tensor(images))
                return _outputs(logits, logits.new_empty(len(logits), 0, 1, 1))
            edit = () if attention is None else (self._tensor(attention),)
            return _outputs(*self._module(self._tensor(images), self._tensor(targets), *edit))

    @torch.no_grad()
    def explain(self, method: str, images: UInt8, targets: Int64) -> Outputs:
        """See ``GradientEngine.explain``."""
        with torch.cuda.stream(self._explain_stream):
            module = self._methods.get(method)
            if module is None:
                module = self._methods[method] = self._build(method)
            return _outputs(*module(self._tensor(images), self._tensor(targets)))

    def warm_up(self) -> None:
        """See ``Engine.warm_up``."""
        run_blank(self, self._card)

    def close(self) -> None:
        """Drop the modules, and at once their tensors: graphs refer to themselves, and would keep them."""
        for module in self._methods.values():
            module.to_empty(device="meta")
        self._methods.clear()
        del self._module
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def _build(self, method: str) -> Explained:
        try:
            return Explained(self._module.classifier, method).eval()
        except (KeyError, TypeError, ValueError) as error:
            raise UnsupportedMethod(
                f"{self._card.name} cannot be explained by {method!r}: {error.args[0]}"
            ) from None

    def _tensor(self, values: UInt8 | Int64 | Float32) -> Tensor:
        return torch.from_numpy(values).to(self.device)


def _outputs(logits: Tensor, maps: Tensor) -> Outputs:
    return Outputs(logits.float().cpu().numpy(), maps.float().cpu().numpy())
