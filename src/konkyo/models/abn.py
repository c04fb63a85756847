"""ABN, the Attention Branch Network (Fukui et al., CVPR 2019).

    g = extractor(image)      M = attention_branch(g)      y = perception_branch((1 + M) g)

The map is computed before the decision and the decision passes through it: replace the map and the
answer changes, so a person who sees that the network looks at the wrong place can put it right.

Shape legend: B batch, D input channels, H, W input size, N classes, C feature channels, h, w grid
of the cut, h', w' grid of an edit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from konkyo.models.attention import AttentionBranch, AttentionOutputs, at_stride_one, edited
from konkyo.models.backbone import Backbone, probe
from konkyo.models.cut import Hook
from konkyo.models.registry import register

Mechanism = Literal["residual", "plain"]


@register("abn")
class ABN(nn.Module):
    """A backbone with an attention branch between two of its stages.

    Args:
        num_classes: N, at least 2.
        backbone: name, as ``Backbone`` takes it.
        last_stage: as ``Backbone`` takes it.
        split: the stage after which the features are attended; default: the last but one, which
            is layer3 of a ResNet. An earlier one gives a finer map.
        branch_end: the part up to which the attention branch copies the backbone; default: the whole
            next stage. A part before its end makes a smaller branch.
        mechanism: ``residual`` is (1 + M) g, ``plain`` is M g.

    The attention branch begins as a copy of the next stage at stride 1: of its weights as well,
    where the backbone has learnt something already.

    Raises:
        ValueError: fewer than 2 classes, a backbone that cannot be cut, no such stage or part, none
            after the cut, a stage that cannot keep its grid, or another mechanism.
    """

    centred: ClassVar[bool] = True
    explanation: ClassVar[str] = "attention"
    scales: ClassVar[int] = 1
    stride = 1

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str = "cifar_resnet20",
        last_stage: str | None = None,
        split: str | None = None,
        branch_end: str | None = None,
        mechanism: Mechanism = "residual",
    ) -> None:
        super().__init__()
        if mechanism not in ("residual", "plain"):
            raise ValueError(f"the mechanism is residual or plain, not {mechanism!r}")
        self.num_classes = num_classes
        self.mechanism = mechanism
        self.backbone = Backbone(num_classes, name=backbone, last_stage=last_stage)
        stages = self.backbone.stages
        position = len(stages) - 2 if split is None else self.backbone.stage(split)
        if not 0 <= position < len(stages) - 1:
            last = stages[-1].name
            raise ValueError(f"{last} is the last stage of {backbone}; nothing is left to perceive with")
        self.cut = stages[position].end
        self._branch_end = stages[position + 1].end if branch_end is None else self.backbone.end(branch_end)
        if self._branch_end <= self.cut:
            raise ValueError(f"{branch_end} is not after {stages[position].name}, where the features are cut")
        self.branch_channels = self.backbone.channels[self._branch_end - 1]
        self.attention_branch = AttentionBranch(self._next_stage(), self.branch_channels, num_classes)
        self._require_grid()

    def forward(self, image: Tensor, attention: Tensor | None = None) -> Tensor:
        """Logits of the perception branch: (B, D, H, W), an edit (B, h', w') -> (B, N)."""
        return self.attend(image, attention)[0]

    def hook(self, layer: str | None = None) -> Hook:
        """See ``Network.hook``: in the backbone."""
        hook = self.backbone.hook(layer)
        return Hook(self, f"backbone.{hook.layer}")

    def attend(self, image: Tensor, attention: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Decide, and say where the network looked.

        Args:
            image: (B, D, H, W).
            attention: (B, h', w') or (1, h', w'); see ``edited``.

        Returns:
            logits (B, N) and the map that was used (B, 1, h, w).
        """
        features = self.extract(image)
        attention_map = edited(self.attention_branch.attention_map(features), attention)
        _, logits = self.perceive(self.attended(features, attention_map))
        return logits, attention_map[:, None]

    def outputs(self, image: Tensor) -> AttentionOutputs:
        """Everything the losses need: ``L = L_att + L_per``, both cross-entropy (equation 4)."""
        return self._outputs(self.extract(image))

    def _outputs(self, features: Tensor) -> AttentionOutputs:
        """Of the extracted features (B, C, h, w)."""
        attention_map, attention_logits, attention_vectors = self.attention_branch(features)
        vectors, logits = self.perceive(self.attended(features, attention_map))
        return AttentionOutputs(
            logits, (attention_logits,), (attention_map,), vectors=(vectors, attention_vectors)
        )

    def extract(self, image: Tensor) -> Tensor:
        """The features that are attended, g: (B, D, H, W) -> (B, C, h, w)."""
        return self.backbone.run(image, stop=self.cut)

    def attended(self, features: Tensor, attention_map: Tensor) -> Tensor:
        """(1 + M) g or M g: (B, C, h, w), (B, h, w) -> (B, C, h, w)."""
        weights = attention_map[:, None]
        return features * (1 + weights if self.mechanism == "residual" else weights)

    def perceive(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The perception branch: (B, C, h, w) -> averages of the last features (B, C'), logits (B, N)."""
        last = self.backbone.run(features, self.cut, self.backbone.head)
        return last.mean(dim=(2, 3)), self.backbone.forward_head(last)

    def extractor(self) -> list[nn.Module]:
        """The modules before the attention branch."""
        return list(self.backbone.parts[: self.cut])

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Give the backbone the weights of a trained one, and the attention branch a copy of its stage."""
        self.backbone.load_pretrained(state)
        self.attention_branch.stage = self._next_stage()

    @torch.no_grad()
    def _require_grid(self) -> None:
        """That the branch runs, and keeps the grid: not every stage stands stride 1."""
        self.eval()
        try:
            features = self.extract(probe())
            fits = self.attention_branch.attention_map(features).shape[-2:] == features.shape[-2:]
        except Exception:  # whatever a stage raises that reads its own strides
            fits = False
        self.train()
        if not fits:
            raise ValueError(f"the next stage of {self.backbone.name} cannot keep the grid at stride 1")

    def _next_stage(self) -> nn.Module:
        return at_stride_one(nn.Sequential(*self.backbone.parts[self.cut : self._branch_end]))
