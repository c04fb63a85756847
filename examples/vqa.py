"""Grad-CAM of an answer: where in a picture a network looks that answers questions about it.

    python -m examples.vqa --out vqa.png

A small network for visual question answering is trained on coloured shapes (``shapes.py``), and the logit
of the answer is differentiated by its last features (Selvaraju et al., IJCV 2020, section 8.2). So the
same picture has other grounds for other questions.

Shape legend: B pictures, Q questions about each, L words of the longest, h, w grid of the features.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from examples.network import PictureAndWords, as_input, explain, fit
from examples.picture import draw_maps
from examples.shapes import ANSWERS, Question, Scenes, draw_scenes, encode

PICTURES, STEPS = 4000, 400
LONGEST = 6
"""L."""


class VQA(PictureAndWords):
    """Answers several questions about each picture."""

    def __init__(self) -> None:
        super().__init__(len(ANSWERS))

    def forward(self, image: Tensor, questions: Tensor) -> Tensor:
        """Pictures (B, 3, H, W), words (B, Q, L) -> logits (B, Q, answers)."""
        states = self.read(questions.flatten(0, 1))[:, -1]  # (B Q, hidden)
        return self.decide(self.look(image), states.view(-1, questions.shape[1], states.shape[1]))


def train(scenes: Scenes, steps: int, seed: int = 0) -> VQA:
    """A network that answers questions about such pictures, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vqa = VQA()
        questions, answers = encode_questions(scenes.questions)

        def loss(image: Tensor, questions: Tensor, answers: Tensor) -> Tensor:
            return F.cross_entropy(vqa(image, questions).flatten(0, 1), answers.flatten())

        fit(vqa, (as_input(scenes.pixels), questions, answers), loss, steps=steps)
    return vqa


def encode_questions(questions: Sequence[Sequence[Question]]) -> tuple[Tensor, Tensor]:
    """The same number about each picture -> words (B, Q, L) and the positions of the right answers (B, Q)."""
    words = np.stack([encode([question.text for question in asked], LONGEST) for asked in questions])
    answers = [[ANSWERS.index(question.answer) for question in asked] for asked in questions]
    return torch.from_numpy(words), torch.tensor(answers)


def explain_answers(vqa: VQA, image: Tensor, questions: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
    """Why these answers, whether they were given or not.

    Args:
        vqa: in eval mode.
        image: (B, 3, H, W).
        questions: (B, Q, L).
        answers: (B, Q) positions in ``ANSWERS``.

    Returns:
        logits (B, Q) and maps (B, Q, h, w), signed.
    """
    return explain(vqa, image, questions, lambda logits: logits.gather(2, answers[..., None])[..., 0])


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, answer questions about new pictures, and draw why."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("vqa.png"))
    out = parser.parse_args(arguments).out
    vqa = train(draw_scenes(PICTURES), STEPS)
    scenes = draw_scenes(500, seed=1)
    image = as_input(scenes.pixels)
    questions, right = encode_questions(scenes.questions)
    with torch.no_grad():
        given = vqa(image, questions).argmax(dim=2)
    share = (given == right).float().mean()
    print(f"{share:.1%} of {right.numel()} questions about new pictures are answered right")
    shown = slice(6)
    _, maps = explain_answers(vqa, image[shown], questions[shown], given[shown])
    rows = []
    for index, asked in enumerate(scenes.questions[shown]):
        titled = [
            (f"{question.text.replace(' is', chr(10) + 'is')}?\n{ANSWERS[answer]}", map_)
            for question, answer, map_ in zip(asked, given[index], maps[index], strict=True)
        ]
        rows.append(("", scenes.pixels[index], titled))
    draw_maps(out, rows)
    print(f"maps of {len(rows)} of them are in {out}")


if __name__ == "__main__":
    main()
