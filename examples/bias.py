"""A bias of the data that maps reveal: the network reads the label on the part, not the part.

    python -m examples.bias --out bias.png

Pits and scratches are told apart on drawn surfaces (``konkyo.training.surfaces``). Say that the scratched
parts come from a second line, which prints a small stamp into the corner: of the pictures to train on, 98 %
of the scratches have the stamp and 2 % of the pits. A network trained on them is right on more such
pictures, and knows nothing of scratches. Its maps show it, without a single new label: they lie on the
stamp. Trained on pictures of which half have the stamp, whatever is on them, the same network looks at the
defects. This is the experiment of the Grad-CAM paper on doctors and nurses (Selvaraju et al., IJCV 2020,
"Identifying bias in dataset"), small.

Shape legend: n pictures, H = W = SIDE, h, w grid of the features.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from examples.picture import draw_maps
from konkyo.evaluation.attention import energy_inside, lift
from konkyo.models.classifier import Classifier
from konkyo.models.cnn import CNN
from konkyo.models.explained import Explained
from konkyo.training.data import Int64, UInt8
from konkyo.training.surfaces import LABELS, draw_surfaces

SIDE = 48
CLASSES = ("pit", "scratch")
BIASED, BALANCED = 0.98, 0.5
"""Share of the scratches that have the stamp; of the pits it is the rest."""
PICTURES, STEPS, TESTED = 3000, 400, 1000

Bool = npt.NDArray[np.bool_]
_BATCH, _RATE = 64, 8e-3
_LAYERS = ((16, 2), (32, 1), (48, 2), (48, 1))


@dataclass(frozen=True)
class Parts:
    """Pictures of parts.

    Attributes:
        pixels: (n, H, W, 3) uint8.
        labels: (n,) positions in ``CLASSES``.
        defects: (n, H, W) uint8, 1 on the defect.
        stamps: (n, H, W) uint8, 1 on the stamp; 0 where there is none.
    """

    pixels: UInt8
    labels: Int64
    defects: UInt8
    stamps: UInt8

    @property
    def stamped(self) -> Bool:
        """(n,) whether there is a stamp."""
        return np.asarray(self.stamps.any(axis=(1, 2)))


def draw_parts(count: int, share: float, seed: int = 0) -> Parts:
    """Draw pits and scratches, as many of each.

    Args:
        count: n.
        share: of the scratches that have a stamp; of the pits it is 1 less that.
        seed: the same seed draws the same pictures.
    """
    generator = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    kinds = np.array([LABELS.index(name) for name in CLASSES])
    surfaces = draw_surfaces(kinds[labels], SIDE, generator)
    pixels, stamps = surfaces.pixels, np.zeros_like(surfaces.masks)
    stamped = generator.random(count) < np.where(labels == CLASSES.index("scratch"), share, 1 - share)
    for at in np.flatnonzero(stamped):
        top, left = SIDE - 6 - generator.integers(1, 4, 2)
        pixels[at, top : top + 6, left : left + 6] = (40, 70, 170)
        pixels[at, top + 2 : top + 4, left + 1 : left + 5] = (230, 230, 230)
        stamps[at, top : top + 6, left : left + 6] = 1
    return Parts(pixels, labels, surfaces.masks, stamps)


def train(parts: Parts, steps: int, seed: int = 0) -> Classifier:
    """A network that tells them apart, in eval mode."""
    pixels, labels = torch.from_numpy(parts.pixels), torch.from_numpy(parts.labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = Classifier(CNN(len(CLASSES), layers=_LAYERS), (0.53,) * 3, (0.1,) * 3)
        classifier.to(memory_format=torch.channels_last)  # faster on processors
        optimizer = torch.optim.AdamW(classifier.parameters(), _RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, steps)
        for _ in range(steps):
            rows = torch.randint(len(labels), (_BATCH,))
            optimizer.zero_grad()
            F.cross_entropy(classifier(pixels[rows]), labels[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return classifier.eval()


@torch.no_grad()
def explain(classifier: Classifier, pixels: UInt8) -> tuple[Tensor, Tensor]:
    """Logits (n, 2) of pictures (n, H, W, 3), and Grad-CAM (n, h, w) of the answer."""
    logits, maps = Explained(classifier, "gradcam")(
        torch.from_numpy(pixels), torch.full((len(pixels), 1), -1)
    )
    return logits, maps[:, 0]


class Findings(NamedTuple):
    """What comes of a network.

    Attributes:
        alike: accuracy on new pictures that are stamped like those it was trained on.
        balanced: accuracy on pictures of which half have a stamp.
        odd: accuracy on the balanced pictures whose stamp misleads: pits with it and scratches without.
        on_stamp, on_defect: how much more of the map of the answer lies there than on a place of that size,
            mean over balanced pictures with a stamp; 1 is chance.
        of_stamp: share of the map's mass on the stamp, of the same.
    """

    alike: float
    balanced: float
    odd: float
    on_stamp: float
    on_defect: float
    of_stamp: float


def examine(classifier: Classifier, alike: Parts, balanced: Parts) -> Findings:
    """Test a network, and look where it looks."""
    right = explain(classifier, alike.pixels)[0].argmax(dim=1).numpy() == alike.labels
    logits, maps = explain(classifier, balanced.pixels)
    found = logits.argmax(dim=1).numpy() == balanced.labels
    stamped = balanced.stamped
    misled = stamped != (balanced.labels == CLASSES.index("scratch"))
    shown, known = maps.numpy()[stamped], np.ones(stamped.sum(), np.bool_)
    stamps, defects = balanced.stamps[stamped], balanced.defects[stamped]
    return Findings(
        float(right.mean()),
        float(found.mean()),
        float(found[misled].mean()),
        float(lift(shown, stamps, known).mean()),
        float(lift(shown, defects, known).mean()),
        float(energy_inside(shown, stamps, known).mean()),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Train both, and show what they look at."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bias.png"))
    out = parser.parse_args(arguments).out
    balanced = draw_parts(TESTED, BALANCED, seed=2)
    kinds = [(label, stamped) for label in range(len(CLASSES)) for stamped in (True, False)]
    shown = np.array(
        [
            np.flatnonzero((balanced.labels == label) & (balanced.stamped == stamped))[0]
            for label, stamped in kinds
        ]
    )
    columns = []
    for name, share in (("biased", BIASED), ("balanced", BALANCED)):
        classifier = train(draw_parts(PICTURES, share, seed=0), STEPS)
        found = examine(classifier, draw_parts(TESTED, share, seed=1), balanced)
        print(
            f"{name}: right on {found.alike:.1%} of pictures like its own, {found.balanced:.1%} of balanced "
            f"ones and {found.odd:.1%} of those whose stamp misleads;\n  of the map of its answer "
            f"{found.of_stamp:.0%} lies on the stamp ({found.on_stamp:.1f} times chance), on the defect "
            f"{found.on_defect:.1f} times chance"
        )
        logits, maps = explain(classifier, balanced.pixels[shown])
        answers = [CLASSES[answer] for answer in logits.argmax(dim=1).tolist()]
        columns.append([(f"{name}:\n{answer}", map_) for answer, map_ in zip(answers, maps, strict=True)])
    rows = [
        (f"{CLASSES[label]}, {'' if stamped else 'not '}stamped", balanced.pixels[at], maps)
        for (label, stamped), at, maps in zip(kinds, shown, zip(*columns, strict=True), strict=True)
    ]
    draw_maps(out, rows)
    print(f"maps of {len(rows)} pictures are in {out}")


if __name__ == "__main__":
    main()
