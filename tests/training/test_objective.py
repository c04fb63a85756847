"""The losses of a step, against the papers' formulas written out on the outputs of the same weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from konkyo.models.attention import AttentionOutputs
from konkyo.models.attention_mining import AttentionMiningNetwork
from konkyo.models.classifier import Classifier
from konkyo.models.multiscale_abn import MultiScaleABN
from konkyo.models.registry import build
from konkyo.training.batches import Batch
from konkyo.training.config import TrainConfig
from konkyo.training.data import NO_MASK, ImageData, Images
from konkyo.training.errors import TrainingError
from konkyo.training.losses.distillation import distillation_loss
from konkyo.training.objective import Objective, Step

SIDE, CLASSES = 8, 3
LABELS = np.array([0, 1, 0, 2, 0, 1, 0, 0], np.int64)

Configure = Callable[..., TrainConfig]


def _data(masks: np.ndarray | None = None) -> ImageData:
    """8 images, of which 5, 2 and 1 are of each class."""
    pixels = np.random.default_rng(0).integers(0, 256, (len(LABELS), SIDE, SIDE, 3), dtype=np.uint8)
    images = Images(pixels, LABELS, masks)
    return ImageData("noise", ("a", "b", "c"), images, images, images)


def _masks() -> np.ndarray:
    """Images 0 and 3 have a defect, 1 and 2 are known to have none, of the others nothing is known."""
    masks = np.full((len(LABELS), SIDE, SIDE), NO_MASK, np.uint8)
    masks[:4] = 0
    masks[0, 2, 5] = 1
    masks[3, :5, 3:7] = 1
    return masks


def _batch(data: ImageData) -> Batch:
    images = data.train
    masks = None if images.masks is None else torch.from_numpy(images.masks)
    return torch.from_numpy(images.pixels), torch.from_numpy(images.labels), masks


def _classifier(config: TrainConfig, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(build(config.arch, CLASSES, **config.arch_args), [0.5] * 3, [0.3] * 3).train()


def _objective(
    config: TrainConfig, classifier: Classifier, data: ImageData, *teachers: nn.Module
) -> Objective:
    return Objective(config, classifier, data, Fabric(accelerator="cpu", devices=1), teachers)


def _steps(config: TrainConfig, data: ImageData | None = None, epoch: int = 1) -> list[Step]:
    """The steps of the whole training split as one batch, on the first weights."""
    data = data or _data()
    classifier = _classifier(config)
    return list(_objective(config, classifier, data).steps(classifier, _batch(data), epoch))


def _outputs(config: TrainConfig, data: ImageData | None = None) -> AttentionOutputs:
    """What the network of ``_steps`` says of the same batch."""
    classifier = _classifier(config)
    pixels = _batch(data or _data())[0]
    found: AttentionOutputs = cast(Any, classifier.network).outputs(classifier.normalise(pixels))
    return found


def _nll(logits: Tensor) -> Tensor:
    """Cross-entropy of each image (B,)."""
    return logits.logsumexp(dim=1) - logits[torch.arange(len(LABELS)), torch.from_numpy(LABELS)]


def _branches(found: AttentionOutputs) -> Tensor:
    """L_att + L_per."""
    (auxiliary,) = found.auxiliary
    return _nll(found.logits).mean() + _nll(auxiliary).mean()


@torch.no_grad()
def _conformity(found: AttentionOutputs, prototypes: nn.ParameterList, repel: float) -> float:
    """L_PC of both branches, an image and a class at a time."""
    total = 0.0
    for vectors, centres in zip(found.vectors, prototypes, strict=True):
        for feature, label in zip(vectors, LABELS, strict=True):
            own = centres[label]
            others = [centre for position, centre in enumerate(centres) if position != label]
            away = sum(float((feature - other).norm() + (own - other).norm()) for other in others)
            total += (float((feature - own).norm()) - repel / (CLASSES - 1) * away) / len(LABELS)
    return total


def _complement(hidden: Tensor) -> float:
    """The mean of sum_j q_j log q_j over the wrong classes."""
    total = 0.0
    for probabilities, label in zip(hidden.double().softmax(dim=1).tolist(), LABELS, strict=True):
        wrong = [p / (1 - probabilities[label]) for j, p in enumerate(probabilities) if j != label]
        total += sum(q * float(np.log(q)) for q in wrong) / len(LABELS)
    return total


@torch.no_grad()
def _map_error(maps: tuple[Tensor, ...], images: tuple[int, ...], weights: tuple[float, ...]) -> float:
    """Root mean square of each map less the cells the mask touches, mean over ``images``, weighted."""
    total = 0.0
    for scale, weight in zip(maps, weights, strict=True):
        cell = SIDE // scale.shape[-1]
        for image in images:
            blocks = _masks()[image].reshape(scale.shape[-2], cell, scale.shape[-1], cell)
            touched = torch.from_numpy(blocks.max(axis=(1, 3)).astype(np.float32))
            total += weight * float((scale[image] - touched).square().mean().sqrt()) / len(images)
    return total


def test_a_network_without_attention_has_the_cross_entropy_of_its_decision(configure: Configure) -> None:
    config = configure()
    (step,) = _steps(config)
    expected = _classifier(config)(_batch(_data())[0])
    torch.testing.assert_close(step.logits, expected)
    assert step.loss.item() == pytest.approx(_nll(expected).mean().item(), rel=1e-5)


def test_with_teachers_it_is_the_distillation(configure: Configure) -> None:
    config = configure(temperature=3.0, teacher_share=0.6, label_smoothing=0.1)
    student, teacher, data = _classifier(config), _classifier(config, seed=1).eval(), _data()
    (step,) = _objective(config, student, data, teacher).steps(student, _batch(data), 1)
    pixels, labels, _ = _batch(data)
    expected = distillation_loss(
        student(pixels), labels, teacher(pixels)[None], temperature=3.0, share=0.6, label_smoothing=0.1
    )
    assert step.loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_abn_is_the_cross_entropy_of_both_branches(configure: Configure) -> None:
    config = configure(arch="abn")
    (step,) = _steps(config)
    found = _outputs(config)
    torch.testing.assert_close(step.logits, found.logits)
    assert step.loss.item() == pytest.approx(_branches(found).item(), rel=1e-5)


def test_multiscale_abn_is_that_of_every_branch_and_of_the_merged_decision(configure: Configure) -> None:
    """2 S + 1 terms, from the branches one by one."""
    config = configure(arch="multiscale-abn")
    classifier = _classifier(config)
    network = cast(MultiScaleABN, classifier.network)
    losses, merged = [], torch.zeros(len(LABELS), CLASSES)
    for scale, features in enumerate(network.extract(classifier.normalise(_batch(_data())[0]))):
        attention_map, logits, _ = network.attention_branches[scale](features)
        attended = features * (1 + attention_map[:, None])
        perceived = network.decide[scale](network.perception_branches[scale](attended).mean(dim=(2, 3)))
        losses += [_nll(logits).mean(), _nll(perceived).mean()]
        merged = merged + perceived
    losses.append(_nll(merged).mean())
    (step,) = _steps(config)
    assert len(losses) == 2 * 2 + 1
    torch.testing.assert_close(step.logits, merged)
    assert step.loss.item() == pytest.approx(torch.stack(losses).sum().item(), rel=1e-5)


class TestMining:
    """S_g of the hidden features, L_PC of both branches, and the complement entropy after them."""

    def test_the_evidence_that_the_map_leaves_out(self, configure: Configure) -> None:
        config = configure(arch="amb", mining_weight=0.5)
        found = _outputs(config)
        assert found.hidden_logits is not None
        evidence = (-_nll(found.hidden_logits)).exp().mean()
        (step,) = _steps(config)
        assert 0.05 < evidence < 0.95
        assert step.loss.item() == pytest.approx((_branches(found) + 0.5 * evidence).item(), rel=1e-5)

    def test_the_prototypes_of_both_branches(self, configure: Configure) -> None:
        config = configure(arch="amb", mining_weight=0.0, prototype_weight=0.3, prototype_repel=0.2)
        found = _outputs(config)
        prototypes = cast(AttentionMiningNetwork, _classifier(config).network).prototypes
        conformity = _conformity(found, prototypes, 0.2)
        (step,) = _steps(config)
        assert step.loss.item() == pytest.approx(_branches(found).item() + 0.3 * conformity, rel=1e-5)

    def test_the_complement_takes_the_place_of_the_evidence_in_a_step_of_its_own(
        self, configure: Configure
    ) -> None:
        """The second step is made of the weights that the first has left."""
        config = configure(arch="amb", mining_weight=0.5, prototype_weight=0.3, complement=True)
        classifier, data = _classifier(config), _data()
        network = cast(AttentionMiningNetwork, classifier.network)
        before = _outputs(config)
        steps = _objective(config, classifier, data).steps(classifier, _batch(data), 1)
        first = next(steps)
        expected = _branches(before).item() + 0.3 * _conformity(before, network.prototypes, 1e-4)
        assert first.loss.item() == pytest.approx(expected, rel=1e-5)

        with torch.no_grad():
            for position, parameter in enumerate(network.parameters()):
                parameter += 0.05 * torch.randn(
                    parameter.shape, generator=torch.Generator().manual_seed(position)
                )
        after = network.outputs(classifier.normalise(_batch(data)[0]))
        second = next(steps)
        assert next(steps, None) is None
        assert before.hidden_logits is not None
        assert after.hidden_logits is not None
        torch.testing.assert_close(second.logits, after.logits)
        assert second.loss.item() == pytest.approx(_complement(after.hidden_logits), rel=1e-5)
        assert second.loss.item() != pytest.approx(_complement(before.hidden_logits), rel=1e-3)

    def test_only_after_the_epochs_of_a_plain_abn(self, configure: Configure) -> None:
        config = configure(
            arch="amb", pretrain_epochs=3, mining_weight=0.5, prototype_weight=0.3, complement=True
        )
        plain = _branches(_outputs(config)).item()
        for epoch in (1, 3):
            (step,) = _steps(config, epoch=epoch)
            assert step.loss.item() == pytest.approx(plain, rel=1e-5)
        first, second = _steps(config, epoch=4)
        assert first.loss.item() > plain + 0.1
        assert second.loss.item() < 0  # a negative entropy


class TestWeightsOfTheClasses:
    @pytest.mark.parametrize(
        ("balance", "weights"),
        [
            (1.0, [8 / 15, 8 / 6, 8 / 3]),  # 8 images in 3 classes of 5, 2 and 1
            (0.5, [8 / (5**0.5 + 2**0.5 + 1) / count**0.5 for count in (5, 2, 1)]),
            (0.0, [1.0, 1.0, 1.0]),
        ],
    )
    def test_are_a_power_of_the_count_and_1_on_average(
        self, configure: Configure, balance: float, weights: list[float]
    ) -> None:
        config = configure(class_balance=balance)
        (step,) = _steps(config)
        each = torch.tensor(weights)[LABELS]
        assert each.mean().item() == pytest.approx(1)
        assert step.loss.item() == pytest.approx((each * _nll(step.logits)).mean().item(), rel=1e-5)

    def test_count_in_every_cross_entropy(self, configure: Configure) -> None:
        config = configure(arch="multiscale-abn", class_balance=1.0)
        found = _outputs(config)
        each = torch.tensor([8 / 15, 8 / 6, 8 / 3])[LABELS]
        expected = sum((each * _nll(logits)).mean().item() for logits in (found.logits, *found.auxiliary))
        (step,) = _steps(config)
        assert step.loss.item() == pytest.approx(expected, rel=1e-5)


def test_smoothed_labels_count_in_every_cross_entropy(configure: Configure) -> None:
    """A share e of each label is spread over all classes; mining knows the true label alone."""
    config = configure(arch="amb", label_smoothing=0.3, mining_weight=0.5)
    found = _outputs(config)
    assert found.hidden_logits is not None
    expected = 0.5 * (-_nll(found.hidden_logits)).exp().mean()
    for logits in (found.logits, *found.auxiliary):
        expected = expected + (0.7 * _nll(logits) - 0.3 * logits.log_softmax(dim=1).mean(dim=1)).mean()
    (step,) = _steps(config)
    assert step.loss.item() == pytest.approx(expected.item(), rel=1e-5)


class TestExpertMaps:
    @pytest.mark.parametrize(
        ("arch", "given", "weights"),
        [
            ("abn", [0.5], (0.5,)),
            ("amb", [2.0], (2.0,)),
            ("multiscale-abn", [0.5], (0.5, 0.5)),
            ("multiscale-abn", [0.5, 3.0], (0.5, 3.0)),
            ("multiscale-abn", [0.0, 3.0], (0.0, 3.0)),
        ],
    )
    def test_of_images_with_a_marked_pixel_are_held_against_every_map(
        self, configure: Configure, arch: str, given: list[float], weights: tuple[float, ...]
    ) -> None:
        config, data = configure(arch=arch, map_weight=given), _data(_masks())
        without = _steps(config.model_copy(update={"map_weight": []}), data)
        added = _map_error(_outputs(config, data).maps, (0, 3), weights)
        (step,) = _steps(config, data)
        assert added > 0.1
        assert step.loss.item() == pytest.approx(without[0].loss.item() + added, rel=1e-5)

    @pytest.mark.parametrize("value", [0, NO_MASK])
    def test_without_a_marked_pixel_count_nothing(self, configure: Configure, value: int) -> None:
        config = configure(arch="multiscale-abn", map_weight=[5.0])
        data = _data(np.full((len(LABELS), SIDE, SIDE), value, np.uint8))
        (step,) = _steps(config, data)
        (without,) = _steps(config.model_copy(update={"map_weight": []}), data)
        assert step.loss.item() == without.loss.item()

    def test_pull_the_map_towards_them(self, configure: Configure) -> None:
        """Of marked images up inside and down outside, of all others not at all."""
        config, data = configure(arch="abn", map_weight=[1.0]), _data(_masks())
        classifier = _classifier(config)
        batch = _batch(data)
        found = cast(Any, classifier.network).outputs(classifier.normalise(batch[0]))
        maps = found.maps[0].detach().requires_grad_()

        class Shown(nn.Module):
            """The same decisions, with maps that are leaves."""

            def forward(self, _: Tensor, *, outputs: bool) -> AttentionOutputs:
                assert outputs
                return AttentionOutputs(found.logits, found.auxiliary, (maps,))

        (step,) = _objective(config, classifier, data).steps(Shown(), batch, 1)
        step.loss.backward()
        assert maps.grad is not None
        inside = torch.from_numpy(_masks() == 1)
        assert (maps.grad[[0, 3]][inside[[0, 3]]] < 0).all()
        assert (maps.grad[[0, 3]][~inside[[0, 3]]] > 0).all()
        assert not maps.grad[[1, 2, 4, 5, 6, 7]].any()


@pytest.mark.parametrize(
    ("settings", "masked", "message"),
    [
        ({"map_weight": [1.0]}, True, "^gcm has no attention map to hold against masks"),
        ({"arch": "abn", "map_weight": [1.0]}, False, "^noise has no masks to hold the"),
        ({"arch": "abn", "map_weight": [1.0, 1.0]}, True, r"need 1 or 1 weights of .* not \[1.0, 1.0\]"),
        ({"arch": "multiscale-abn", "map_weight": [1.0] * 3}, True, "need 1 or 2 weights of at least 0, not"),
        ({"arch": "multiscale-abn", "map_weight": [1.0, -0.1]}, True, r"not \[1.0, -0.1\]"),
        ({"arch": "abn", "complement": True}, False, "^complement is an objective of amb, not of abn"),
        ({"complement": True}, False, "^complement is an objective of amb, not of gcm"),
        ({"freeze_extractor": True}, False, "^gcm has no attention branch to keep training"),
    ],
)  # fmt: skip
def test_what_a_loss_lacks_is_said(
    configure: Configure, settings: dict[str, Any], masked: bool, message: str
) -> None:
    config = configure(**settings)
    with pytest.raises(TrainingError, match=message):
        _objective(config, _classifier(config), _data(_masks() if masked else None))


def test_a_network_with_attention_learns_from_no_teachers(configure: Configure) -> None:
    config = configure(arch="abn")
    with pytest.raises(TrainingError, match="abn has losses of its own and cannot learn from teachers"):
        _objective(config, _classifier(config), _data(), nn.Identity())


def test_weights_of_the_classes_have_no_part_in_distillation(configure: Configure) -> None:
    config = configure(class_balance=0.5)
    with pytest.raises(TrainingError, match="class_balance has no part in distillation"):
        _objective(config, _classifier(config), _data(), nn.Identity())


def test_masks_count_only_where_they_are_asked_for(configure: Configure) -> None:
    config = configure(arch="abn")
    (masked,), (bare,) = _steps(config, _data(_masks())), _steps(config)
    assert masked.loss.item() == bare.loss.item()
