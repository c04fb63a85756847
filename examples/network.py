"""A small network that looks at a picture and reads words, and maps of any score it gives.

The picture becomes features by convolutions, the words a state by an LSTM, and a decision is made by
their product, as in VQA (Lu et al., 2015) and in captioners that merge words and picture late (Tanti et
al., 2017). The features are where it is explained: nothing is added for that, and no hook is left.

Shape legend: B pictures, T states of words, N scores, C feature channels, h, w grid of the features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from examples.shapes import SIDE, WORDS, UInt8
from konkyo.models.cut import Cut
from konkyo.models.explain.gradcam import weighted_sum
from konkyo.models.explain.gradients import differentiate

BATCH = 64


class PictureAndWords(nn.Module):
    """What the captioner and the network that answers questions share.

    Args:
        outputs: logits for each state of the words.
        width: C.
        hidden: size of a state.
    """

    place: Tensor

    def __init__(self, outputs: int, width: int = 96, hidden: int = 96) -> None:
        super().__init__()
        line = torch.linspace(-1, 1, SIDE)
        self.register_buffer("place", torch.stack(torch.meshgrid(line, line, indexing="ij"))[None])
        self.features = nn.Sequential(*_layer(5, 16, 2), *_layer(16, 40, 2), *_layer(40, width))
        self.features.to(memory_format=torch.channels_last)  # faster on processors
        self.picture = nn.Linear(width, hidden)
        self.embed = nn.Embedding(len(WORDS), 32)
        self.lstm = nn.LSTM(32, hidden, batch_first=True)
        self.gate = nn.Linear(hidden, hidden)
        self.by_both = nn.Linear(hidden, outputs)
        self.by_words = nn.Linear(hidden, outputs)

    def look(self, image: Tensor) -> Tensor:
        """Pictures (B, 3, SIDE, SIDE) -> features (B, C, h, w); each pixel knows its place in the picture."""
        features: Tensor = self.features(torch.cat([image, self.place.expand(image.shape[0], -1, -1, -1)], 1))
        return features

    def read(self, words: Tensor) -> Tensor:
        """Words (B, T) -> a state after each (B, T, hidden)."""
        states: Tensor
        states, _ = self.lstm(self.embed(words))
        return states

    def decide(self, features: Tensor, states: Tensor) -> Tensor:
        """(B, C, h, w), (B, T, hidden) -> logits (B, T, outputs)."""
        seen = self.picture(features.mean(dim=(2, 3)))[:, None]
        logits: Tensor = self.by_both(seen * self.gate(states)) + self.by_words(states)
        return logits


def _layer(inputs: int, outputs: int, pool: int = 1) -> Iterator[nn.Module]:
    yield nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    yield nn.MaxPool2d(pool)
    yield nn.BatchNorm2d(outputs)
    yield nn.ReLU()


def explain(
    network: PictureAndWords, image: Tensor, words: Tensor, score: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Grad-CAM of any scores, from one look at the picture.

    Args:
        network: in eval mode.
        image: (B, 3, SIDE, SIDE).
        words: as ``network`` takes them.
        score: what the network returns to scores (B, N), any differentiable function.

    Returns:
        scores (B, N) float64 and maps (B, N, h, w) float32, signed.
    """
    cut = Cut(network, "features")
    with torch.no_grad():
        features, *rest = cut.trunk(image, words)
        count = score(cut.tail(features, *rest)).shape[1]
    # Twice the precision: 1 - p, by which a sure word's log-probability is differentiated, rounds to 0.
    scores, gradients = differentiate(
        features,
        lambda leaf: score(cut.tail(leaf, *rest).double()),
        torch.arange(count).expand(len(image), -1),
    )
    return scores, weighted_sum(features, gradients.mean(dim=(-2, -1)))


def as_input(pixels: UInt8) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W)."""
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25


def fit(
    network: PictureAndWords,
    inputs: tuple[Tensor, ...],
    loss: Callable[..., Tensor],
    *,
    steps: int,
    rate: float = 8e-3,
) -> None:
    """Train in place, by AdamW and one cycle of the learning rate; leaves the network in eval mode.

    Args:
        inputs: pictures, words and answers, each with n rows.
        loss: of a batch of the inputs.
    """
    optimizer = torch.optim.AdamW(network.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    network.train()
    for rows in _batches(len(inputs[0]), steps):
        optimizer.zero_grad()
        loss(*(tensor[rows] for tensor in inputs)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    network.eval()


def _batches(count: int, steps: int) -> Iterator[Tensor]:
    """Rows of each batch, all of them once before any comes again."""
    while steps > 0:
        order = torch.randperm(count)
        starts = range(0, count, BATCH)[:steps]
        yield from (order[start : start + BATCH] for start in starts)
        steps -= len(starts)
