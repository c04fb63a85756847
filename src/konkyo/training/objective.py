"""What a training step minimises: the losses of a batch, one update after each.

    any network         cross-entropy, or distillation
    abn                 L_att + L_per                                     (Fukui et al., equation 4)
    multiscale-abn      sum_l (L_att_l + L_per_l) + L_per of the merged decision
    amb                 L_att + L_per + L_PC + L_am                       (Iwayoshi et al., step 2)
      complement        L_att + L_per + L_PC, then L_CoE by itself        (steps 2 and 3 in turn)
    with masks          + sum_l lambda_l |M'_l - M_l|                     (expert maps)

Every cross-entropy counts once, as in the papers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from konkyo.models.attention import AttentionNetwork, AttentionOutputs
from konkyo.models.attention_mining import AttentionMiningNetwork
from konkyo.models.classifier import Classifier
from konkyo.training.batches import Batch
from konkyo.training.config import TrainConfig
from konkyo.training.data import ImageData
from konkyo.training.errors import TrainingError
from konkyo.training.losses.complement import complement_entropy_loss
from konkyo.training.losses.distillation import distillation_loss
from konkyo.training.losses.expert_map import expert_map_loss
from konkyo.training.losses.mining import mining_loss
from konkyo.training.losses.prototype import prototype_conformity_loss


class Step(NamedTuple):
    """A scalar loss to go down, and the decision (B, N) it was made from."""

    loss: Tensor
    logits: Tensor


class Objective:
    """The losses of a run.

    Args:
        config: which, and their weights.
        classifier: the network they are for.
        data: for the weights of the classes, and to see that there are masks where they are asked for.
        fabric: for the precision the teachers run in.
        teachers: networks to learn from, frozen.

    Raises:
        TrainingError: the network or the data does not have what a loss needs.
    """

    def __init__(
        self,
        config: TrainConfig,
        classifier: Classifier,
        data: ImageData,
        fabric: Fabric,
        teachers: Sequence[nn.Module] = (),
    ) -> None:
        self._config = config
        self._fabric = fabric
        self._teachers = teachers
        self._network = classifier.network
        self._attends = isinstance(self._network, AttentionNetwork)
        self._class_weights = _class_weights(data, config.class_balance)
        self._map_weights = self._expand(config.map_weight, data)
        if teachers and self._attends:
            raise TrainingError(f"{config.arch} has losses of its own and cannot learn from teachers")
        if teachers and config.class_balance:
            raise TrainingError("class_balance has no part in distillation; leave one of them out")
        if config.complement and not isinstance(self._network, AttentionMiningNetwork):
            raise TrainingError(f"complement is an objective of amb, not of {config.arch}")
        if config.freeze_extractor and not self._attends:
            raise TrainingError(f"{config.arch} has no attention branch to keep training")

    def steps(self, model: nn.Module, batch: Batch, epoch: int) -> Iterator[Step]:
        """The losses of a batch in order; the caller updates the weights between one and the next.

        Args:
            model: the classifier as wrapped for the devices.
            batch: of this device.
            epoch: from 1.
        """
        pixels, labels, masks = batch
        if not self._attends:
            logits = model(pixels).float()
            yield Step(self._plain(pixels, logits, labels), logits)
            return
        found: AttentionOutputs = model(pixels, outputs=True)
        decisions = (found.logits, *found.auxiliary)
        loss = torch.stack([self._cross_entropy(logits, labels) for logits in decisions]).sum()
        if self._map_weights and masks is not None:
            # A map that attends nothing is no target: the decision has to pass through it.
            marked = (masks == 1).flatten(1).any(dim=1)
            loss = loss + expert_map_loss(found.maps, masks.float(), marked, self._map_weights)
        mining = isinstance(self._network, AttentionMiningNetwork) and epoch > self._config.pretrain_epochs
        if mining:
            loss = loss + self._mining(found, labels)
        yield Step(loss, found.logits)
        if mining and self._config.complement:
            found = model(pixels, outputs=True)
            assert found.hidden_logits is not None
            yield Step(complement_entropy_loss(found.hidden_logits, labels), found.logits)

    def _plain(self, pixels: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        if not self._teachers:
            return self._cross_entropy(logits, labels)
        with torch.no_grad(), self._fabric.autocast():  # the teachers see the same augmented images
            taught = torch.stack([teacher(pixels).float() for teacher in self._teachers])
        return distillation_loss(
            logits,
            labels,
            taught,
            temperature=self._config.temperature,
            share=self._config.teacher_share,
            label_smoothing=self._config.label_smoothing,
        )

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        weights = None if self._class_weights is None else self._class_weights.to(logits.device)
        return F.cross_entropy(
            logits.float(), labels, weight=weights, label_smoothing=self._config.label_smoothing
        )

    def _mining(self, found: AttentionOutputs, labels: Tensor) -> Tensor:
        """L_PC of both branches, and L_am where the complement objective does not take its place."""
        config = self._config
        loss = torch.zeros((), device=labels.device)
        if config.prototype_weight:
            assert isinstance(self._network, AttentionMiningNetwork)
            for vectors, prototypes in zip(found.vectors, self._network.prototypes, strict=True):
                conformity = prototype_conformity_loss(
                    vectors, labels, prototypes, repel=config.prototype_repel
                )
                loss = loss + config.prototype_weight * conformity
        if not config.complement:
            assert found.hidden_logits is not None
            loss = loss + config.mining_weight * mining_loss(found.hidden_logits, labels)
        return loss

    def _expand(self, weights: list[float], data: ImageData) -> list[float]:
        if not weights:
            return []
        if not isinstance(self._network, AttentionNetwork):
            raise TrainingError(f"{self._config.arch} has no attention map to hold against masks")
        if data.train.masks is None:
            raise TrainingError(f"{data.name} has no masks to hold the attention maps against")
        scales = self._network.scales
        if len(weights) not in (1, scales) or min(weights) < 0:
            raise TrainingError(f"the maps need 1 or {scales} weights of at least 0, not {weights}")
        return weights * scales if len(weights) == 1 else weights


def _class_weights(data: ImageData, exponent: float) -> Tensor | None:
    """n_c ** -exponent; cross_entropy divides by the sum of the weights in the batch."""
    if not exponent:
        return None
    counts = torch.bincount(torch.from_numpy(data.train.labels), minlength=len(data.labels)).float()
    return counts**-exponent
