"""Grad-CAM of a caption: a map for each word, and one for the whole.

    python -m examples.captioner --out captioner.png

A small captioner is trained on coloured shapes (``shapes.py``), and the log-probability of each word of
what it says, given the words before it, is differentiated by the last features, as is their sum, the
log-probability of the caption (Selvaraju et al., IJCV 2020, section 8.1). Since gradients add up, so do
the maps.

Shape legend: B pictures, T words of the longest caption with its end, h, w grid of the features.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from examples.network import PictureAndWords, as_input, explain, fit
from examples.picture import draw_maps
from examples.shapes import END, LONGEST, NONE, START, WORDS, Scenes, draw_scenes, encode

PICTURES, STEPS = 6000, 700


class Captioner(PictureAndWords):
    """Says of each word how likely it is to come next."""

    def __init__(self) -> None:
        super().__init__(len(WORDS))

    def forward(self, image: Tensor, words: Tensor) -> Tensor:
        """Pictures (B, 3, H, W), words so far (B, T) from ``START`` on -> logits (B, T, words)."""
        return self.decide(self.look(image), self.read(words))


def train(scenes: Scenes, steps: int, seed: int = 0) -> Captioner:
    """A captioner of such pictures, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        captioner = Captioner()
        before, after = _shifted(scenes.captions)

        def loss(image: Tensor, before: Tensor, after: Tensor) -> Tensor:
            logits = captioner(image, before)
            return F.cross_entropy(logits.flatten(0, 1), after.flatten(), ignore_index=NONE)

        fit(captioner, (as_input(scenes.pixels), before, after), loss, steps=steps)
    return captioner


def caption(captioner: Captioner, image: Tensor) -> list[str]:
    """What is said of pictures (B, 3, H, W), the likeliest word each time."""
    words = torch.full((len(image), 1), START)
    with torch.no_grad():
        for _ in range(LONGEST - 1):
            following = captioner(image, words)[:, -1].argmax(dim=1, keepdim=True)
            words = torch.cat([words, following], dim=1)
    said = (" ".join(WORDS[word] for word in row) for row in words[:, 1:].tolist())
    return [text.partition(f" {WORDS[END]}")[0] for text in said]


def explain_captions(captioner: Captioner, image: Tensor, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Why these captions, whether they were said or not.

    Args:
        captioner: in eval mode.
        image: (B, 3, H, W).
        captions: one a picture.

    Returns:
        log-probabilities (B, T + 1) and maps (B, T + 1, h, w), signed: of each word, of the end, 0 of what
        is not there in shorter captions, and last of the whole.
    """
    before, after = _shifted(captions)

    def score(logits: Tensor) -> Tensor:
        words = logits.log_softmax(dim=2).gather(2, after[..., None])[..., 0]  # (B, T)
        words = words * (after != NONE)
        return torch.cat([words, words.sum(dim=1, keepdim=True)], dim=1)

    return explain(captioner, image, before, score)


def _shifted(captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The words before each word, and the words: (B, T) both."""
    words = encode([f"{WORDS[START]} {text} {WORDS[END]}" for text in captions], LONGEST + 1)
    return torch.from_numpy(words[:, :-1]), torch.from_numpy(words[:, 1:])


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, say what is in new pictures, and draw why."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("captioner.png"))
    out = parser.parse_args(arguments).out
    captioner = train(draw_scenes(PICTURES), STEPS)
    scenes = draw_scenes(500, seed=1)
    image = as_input(scenes.pixels)
    said = caption(captioner, image)
    right = sum(text == true for text, true in zip(said, scenes.captions, strict=True))
    print(f"{right} of {len(said)} new pictures have the right caption")
    shown = slice(6)
    scores, maps = explain_captions(captioner, image[shown], said[shown])
    rows = []
    for index, text in enumerate(said[shown]):
        parts = [*enumerate(text.split()), (-1, "whole caption")]
        titled = [(f"{name}\n{scores[index, at]:.1e}", maps[index, at]) for at, name in parts]
        rows.append((text, scenes.pixels[index], titled))
    draw_maps(out, rows)
    print(f"maps of {len(rows)} of them are in {out}")


if __name__ == "__main__":
    main()
