"""Multi-scale ABN: an attention map and a perception branch after each of three blocks.

The network of a paper on grading diabetic retinopathy with experts' knowledge: the first map is fine
and finds tiny lesions, the last is coarse and finds large ones; the features of the three
perception branches are merged for the decision. The paper names ResNet-18, ResNet-34 and AlexNet
and says no more of the branches, so their structure is our reconstruction:

    g_l = block_l(g_{l-1})                         features, without attention: blocks see blocks only
    M_l = attention_branch_l(g_l)                  as in ABN, on a 3x3 convolution to ``width`` channels
    f_l = mean(conv_l((1 + M_l) g_l))              a 3x3 convolution and the global average, (B, width)
    y   = sum_l (W_l f_l + b_l)                    one linear layer on the merged features

A linear layer on merged (concatenated) features is a sum over the scales, so each summand is
itself the decision of one perception branch, and is trained as such. The blocks do not see the
maps: what an expert corrects at one scale cannot disturb another, and the extractor can be frozen.

Shape legend: B batch, D input channels, H, W input size, N classes, C_l feature channels, S scales,
h_l, w_l grid of a scale, h, w the finest, h', w' grid of an edit.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from konkyo.models.attention import AttentionBranch, AttentionOutputs, edited
from konkyo.models.backbone import Backbone
from konkyo.models.cut import Hook
from konkyo.models.registry import register


@register("multiscale-abn")
class MultiScaleABN(nn.Module):
    """A backbone in blocks with attention and perception after each.

    Args:
        num_classes: N, at least 2.
        backbone: name, as ``Backbone`` takes it.
        splits: the stages at which the blocks end; default: the last three.
        width: channels of the branches.

    Raises:
        ValueError: fewer than 2 classes, a backbone that cannot be cut, no such stage, stages out
            of order, or a width below 1.
    """

    centred: ClassVar[bool] = True
    explanation: ClassVar[str] = "attention"
    stride = 1

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str = "cifar_resnet20",
        splits: Sequence[str] | None = None,
        width: int = 128,
    ) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"the branches need a width of at least 1, not {width}")
        self.num_classes = num_classes
        self.backbone = Backbone(num_classes, name=backbone)
        names = splits or [stage.name for stage in self.backbone.stages[-3:]]
        positions = [self.backbone.stage(name) for name in names]
        if any(later <= earlier for earlier, later in itertools.pairwise(positions)):
            raise ValueError(f"the splits go from fine to coarse, each once, not {', '.join(names)}")
        self.backbone.trim(positions[-1])
        self.scales = len(positions)
        stages = [self.backbone.stages[position] for position in positions]
        self._ends = [stage.end for stage in stages]
        self.attention_branches = nn.ModuleList(
            AttentionBranch(_convolution(stage.channels, width), width, num_classes) for stage in stages
        )
        self.perception_branches = nn.ModuleList(_convolution(stage.channels, width) for stage in stages)
        self.decide = nn.ModuleList(nn.Linear(width, num_classes) for _ in stages)

    def forward(self, image: Tensor, attention: Tensor | None = None) -> Tensor:
        """Logits: (B, D, H, W), an edit (B, h', w') -> (B, N)."""
        return self.attend(image, attention)[0]

    def hook(self, layer: str | None = None) -> Hook:
        """See ``Network.hook``: in the backbone."""
        hook = self.backbone.hook(layer)
        return Hook(self, f"backbone.{hook.layer}")

    def attend(self, image: Tensor, attention: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Decide, and say where the network looked at each scale.

        Args:
            image: (B, D, H, W).
            attention: (B, h', w') or (1, h', w'), for every scale; see ``edited``.

        Returns:
            logits (B, N) and the maps that were used (B, S, h, w), finest first; coarser ones are
            brought to the finest grid bilinearly.
        """
        logits: list[Tensor] = []
        maps: list[Tensor] = []
        for scale, features in enumerate(self.extract(image)):
            branch = self.attention_branches[scale]
            assert isinstance(branch, AttentionBranch)
            maps.append(edited(branch.attention_map(features), attention))
            logits.append(self._perceive(scale, features, maps[-1]))
        fine = maps[0].shape[-2:]
        shown = [maps[0][:, None]]
        shown += [F.interpolate(item[:, None], size=fine, mode="bilinear") for item in maps[1:]]
        return torch.stack(logits).sum(dim=0), torch.cat(shown, dim=1)

    def outputs(self, image: Tensor) -> AttentionOutputs:
        """Everything the losses need: each scale's attention and perception branch, and the decision."""
        logits: list[Tensor] = []
        attention: list[Tensor] = []
        maps: list[Tensor] = []
        for scale, features in enumerate(self.extract(image)):
            attention_map, attention_logits, _ = self.attention_branches[scale](features)
            maps.append(attention_map)
            attention.append(attention_logits)
            logits.append(self._perceive(scale, features, attention_map))
        return AttentionOutputs(torch.stack(logits).sum(dim=0), (*attention, *logits), tuple(maps))

    def extract(self, image: Tensor) -> list[Tensor]:
        """Features of each scale: (B, D, H, W) -> S of (B, C_l, h_l, w_l)."""
        scales, start = [image], 0
        for end in self._ends:
            scales.append(self.backbone.run(scales[-1], start, end))
            start = end
        return scales[1:]

    def extractor(self) -> list[nn.Module]:
        """The modules of the blocks."""
        return list(self.backbone.parts)

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Give the backbone the weights of a trained one."""
        self.backbone.load_pretrained(state)

    def _perceive(self, scale: int, features: Tensor, attention_map: Tensor) -> Tensor:
        attended = features * (1 + attention_map[:, None])
        vectors = self.perception_branches[scale](attended).mean(dim=(2, 3))
        logits: Tensor = self.decide[scale](vectors)
        return logits


def _convolution(channels: int, width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )
