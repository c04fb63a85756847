"""Adversarial noise: the answer is fooled, is the map of what is there fooled too?

    python -m examples.adversarial --out adversarial.png
    python -m examples.adversarial --data DIR --classes coco-to-imagenet

Noise that nobody sees, 2 of 255 grey levels a pixel, is made to turn the answer of a network into a class
that is not in the picture (projected gradient descent: Madry et al., ICLR 2018). The Grad-CAM paper shows on
a picture that the maps of the classes that are there still find them (Selvaraju et al., IJCV 2020, "Effect
of adversarial noise on VGG-16"). Here it is counted: over everything that is marked in the pictures, with
the map of its own class, before and after, and beside it with as much noise that is random.

Without ``--data`` these are four things in three of the photographs that ship, with boxes drawn by hand.

Shape legend: B pictures, H, W the network's input, N classes, n things, h, w grid of the maps.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import konkyo
from examples.picture import Row, draw_maps
from konkyo.evaluation.attention import energy_inside
from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.examples import Example, Float64
from konkyo.evaluation.marking import mark
from konkyo.evaluation.measures.pointing import pointing_hits
from konkyo.evaluation.similarity import rank_correlation
from konkyo.evaluation.sources import Source, find_source
from konkyo.evaluation.things import readable
from konkyo.imaging import decode, open_image, prepare
from konkyo.models.bundle import read_bundle
from konkyo.models.card import ModelCard
from konkyo.training.class_names import ClassNames
from konkyo.training.examples import open_examples

HERE = Path(konkyo.__file__).parent
BUNDLE = HERE / "zoo" / "efficientnet-lite0-imagenet" / "1"
SAMPLES = HERE / "service" / "web" / "samples"
THINGS = {
    "astronaut.jpg": {"space shuttle": (356, 0, 457, 286), "football helmet": (279, 345, 512, 512)},
    "coffee.jpg": {"cup": (172, 17, 421, 240)},
    "palace.jpg": {"palace": (47, 20, 273, 295)},
}
"""Left, top, right, bottom in pixels of the photograph."""
EPSILON, STEPS = 2, 20
DRAWN = 3


def attack(candidate: Candidate, pixels: Tensor, target: int, *, epsilon: int, steps: int) -> Tensor:
    """Pictures that are taken for a class, as close to the given ones as asked for.

    Each step goes one grey level along the sign of the gradient, so they stay pictures of whole grey levels
    that may be saved and sent.

    Args:
        candidate: the network.
        pixels: (B, H, W, 3) uint8.
        target: class index.
        epsilon: largest change of a channel of a pixel, in grey levels.
        steps: how many.

    Returns:
        (B, H, W, 3) uint8.
    """
    original = pixels.to(candidate.device).float()
    low, high = (original - epsilon).clamp(min=0), (original + epsilon).clamp(max=255)
    targets = torch.full((len(pixels),), target, device=candidate.device)
    current = original
    for _ in range(steps):
        leaf = current.detach().requires_grad_()
        loss = F.cross_entropy(candidate.classifier(leaf), targets, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
        current = (leaf.detach() - gradient.sign()).clamp(low, high)
    return current.to(torch.uint8)


def random_noise(pixels: Tensor, epsilon: int) -> Tensor:
    """Pictures (B, H, W, 3) with every channel of every pixel lighter or darker by so many grey levels."""
    signs = np.random.default_rng(0).choice([-1, 1], pixels.shape)
    return (pixels.cpu().int() + epsilon * torch.from_numpy(signs)).clamp(0, 255).to(torch.uint8)


class Looks(NamedTuple):
    """How things are seen; (n,) each.

    Attributes:
        fooled: probability of the false class.
        believed: probability of the thing's own class.
        hits: 1 where the highest point of its map lies inside of it, else 0.
        inside: share of its map's mass inside.
        false_inside: share of the mass of the false class's map.
        maps: (n, h, w) raw.
    """

    fooled: Float64
    believed: Float64
    hits: Float64
    inside: Float64
    false_inside: Float64
    maps: Tensor


class Thing(NamedTuple):
    """Something marked: in which picture (position), as which class, and where (H, W)."""

    picture: int
    index: int
    mask: Tensor


def things_in(candidate: Candidate, examples: Sequence[Example], pixels: Tensor, target: int) -> list[Thing]:
    """What can be seen of what is marked; of several classes that are right, the one that scores highest."""
    found = []
    for at, (example, logits) in enumerate(zip(examples, candidate.logits(pixels).tolist(), strict=True)):
        for thing in example.marked or ():
            if thing.mask.any() and target not in thing.classes:
                index = max(thing.classes, key=logits.__getitem__)
                found.append(Thing(at, index, torch.from_numpy(thing.mask)))
    return found


def look(candidate: Candidate, source: Source, pixels: Tensor, things: Sequence[Thing], target: int) -> Looks:
    """See pictures (B, H, W, 3) with the network."""
    at = [thing.picture for thing in things]
    own = torch.tensor([thing.index for thing in things])
    maps = source.maps(candidate, pixels[at], torch.stack([own, torch.full_like(own, target)], dim=1)).float()
    masks = torch.stack([thing.mask for thing in things])
    probabilities = candidate.logits(pixels).softmax(dim=1)[at].double().cpu().numpy()
    true, false = (readable(maps[:, column], source)[0].cpu() for column in (0, 1))
    known = np.ones(len(things), np.bool_)
    return Looks(
        probabilities[:, target],
        probabilities[np.arange(len(things)), own.numpy()],
        pointing_hits(true, masks, 0).numpy(),
        energy_inside(true.numpy(), masks.numpy().astype(np.uint8), known),
        energy_inside(false.numpy(), masks.numpy().astype(np.uint8), known),
        maps[:, 0].cpu(),
    )


class Seen(NamedTuple):
    """Pictures (B, H, W, 3) in each of ``CONDITIONS``, and how what is in them looks there."""

    things: Sequence[Thing]
    pixels: tuple[Tensor, Tensor, Tensor]
    looks: tuple[Looks, Looks, Looks]


CONDITIONS = ("as it is", "random noise", "adversarial noise")


def probe(
    candidate: Candidate,
    source: Source,
    examples: Sequence[Example],
    target: int,
    *,
    epsilon: int = EPSILON,
    steps: int = STEPS,
) -> Seen | None:
    """Attack pictures, and look at what is in them before and after; None where nothing is in any."""
    pixels = torch.from_numpy(np.stack([example.pixels for example in examples]))
    things = things_in(candidate, examples, pixels, target)
    if not things:
        return None
    fooled = attack(candidate, pixels, target, epsilon=epsilon, steps=steps).cpu()
    versions = (pixels, random_noise(pixels, epsilon), fooled)
    one, other, last = (look(candidate, source, version, things, target) for version in versions)
    return Seen(things, versions, (one, other, last))


def shipped(card: ModelCard) -> list[Example]:
    """The photographs that ship, with the boxes of ``THINGS``."""
    names = ClassNames(card.labels)
    examples = []
    for name, boxes in THINGS.items():
        decoded = decode(open_image((SAMPLES / name).read_bytes()))
        size = card.input.width, card.input.height
        pixels, geometry = prepare(decoded, size, crop_fraction=card.input.crop_fraction)
        marked = []
        for label, (left, top, right, bottom) in boxes.items():
            inside = np.zeros(decoded.image.size[::-1], np.int32)
            inside[top:bottom, left:right] = 1
            marked.append(mark(label, (names.require(label),), inside, geometry))
        examples.append(Example(name, pixels, geometry, marked=tuple(marked)))
    return examples


def table(seen: Sequence[Seen], target: str) -> str:
    """What was found, a line for each condition."""
    first = torch.cat([part.looks[0].maps for part in seen])
    lines = []
    for order, condition in enumerate(CONDITIONS):
        looks = [part.looks[order] for part in seen]
        hits, inside, false, fooled, believed = (
            np.concatenate([getattr(part, name) for part in looks])
            for name in ("hits", "inside", "false_inside", "fooled", "believed")
        )
        alike = rank_correlation(first, torch.cat([part.maps for part in looks]))
        lines.append(
            f"{condition}: {target} {np.median(fooled):.1%}, true class {np.median(believed):.2%} (medians)\n"
            f"    highest point inside {hits.mean():.0%}, mass inside {inside.mean():.1%}, of the map of "
            f"{target} {false.mean():.1%}; rank correlation with before {np.nanmean(alike):.2f}"
        )
    return "\n".join(lines)


def pictures(candidate: Candidate, source: Source, seen: Seen, target: int) -> list[Row]:
    """Two rows for each picture, before and after, with the maps of what is in it and of the false class."""
    rows: list[Row] = []
    labels = candidate.card.labels
    for at in range(min(len(seen.pixels[0]), DRAWN)):
        classes = [*dict.fromkeys(thing.index for thing in seen.things if thing.picture == at), target]
        for order in (0, 2):
            pixels = seen.pixels[order][at : at + 1]
            probabilities = candidate.logits(pixels).softmax(dim=1)[0]
            maps = source.maps(candidate, pixels, torch.tensor([classes]))[0].cpu()
            best = int(probabilities.argmax())
            rows.append(
                (
                    f"{CONDITIONS[order]}: {labels[best]} {probabilities[best]:.1%}",
                    pixels[0].numpy(),
                    [(f"map of\n{labels[index]}", map_) for index, map_ in zip(classes, maps, strict=True)],
                )
            )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Attack, count and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="folder of a version")
    parser.add_argument(
        "--data", help="with masks, as konkyo evaluate takes it; default: photographs that ship"
    )
    parser.add_argument("--classes", type=Path, help="what the names in the data mean, as konkyo evaluate")
    parser.add_argument("--method", default="gradcam")
    parser.add_argument("--target", default="airliner", help="the class that is not there")
    parser.add_argument("--epsilon", type=int, default=EPSILON, help="grey levels")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--images", type=int, default=100, help="at most")
    parser.add_argument("--out", type=Path, default=Path("adversarial.png"))
    asked = parser.parse_args(arguments)
    candidate = Candidate.load(read_bundle(asked.bundle))
    source = find_source(asked.method, candidate)
    card = candidate.card
    target = ClassNames(card.labels).require(asked.target)
    if asked.data:
        data = open_examples(asked.data, card.input, card.labels, classes=asked.classes)
        examples = [data.read(index) for index in range(min(asked.images, len(data)))]
    else:
        examples = shipped(card)
    batches = [examples[start : start + 8] for start in range(0, len(examples), 8)]
    found = [
        probe(candidate, source, batch, target, epsilon=asked.epsilon, steps=asked.steps) for batch in batches
    ]
    seen = [part for part in found if part is not None]
    areas = [float(thing.mask.float().mean()) for part in seen for thing in part.things]
    if not areas:
        parser.error("nothing that the network could know is marked in these pictures")
    print(
        f"{len(areas)} things in {len(examples)} pictures, {asked.method}; of a flat map "
        f"{np.mean(areas):.1%} would lie inside"
    )
    print(table(seen, asked.target))
    draw_maps(asked.out, pictures(candidate, source, seen[0], target))
    print(f"maps of the first pictures are in {asked.out}")


if __name__ == "__main__":
    main()
