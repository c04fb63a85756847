"""Making a study: the maps of every bundle for every image, drawn alike and under ids that say nothing.

Shape legend: H, W a network's input; h, w a map's grid.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from konkyo.evaluation.candidate import Candidate
from konkyo.evaluation.examples import Example, Examples
from konkyo.evaluation.sources import Source, find_source
from konkyo.imaging import Float32
from konkyo.models.card import InputSpec
from konkyo.study.drawing import SETTINGS, Canvas, common_window, to_png
from konkyo.study.records import Entry, Item
from konkyo.study.store import Store

OWN = "own"
"""The method of a bundle's own explanation."""

Target = Literal["true", "predicted"]


@dataclass(frozen=True)
class Plan:
    """What a study is to be.

    Attributes:
        target: the class that maps are for: the true one, or what each network predicts.
        number: of images, at most.
        per_class: of images of one class, at most; None: as many as there are.
        seed: of the choice of images.
        side: of the pictures, the longer one, in pixels.
    """

    title: str
    instruction: str
    target: Target = "true"
    number: int = 50
    per_class: int | None = None
    seed: int = 0
    side: int = 384


@dataclass(frozen=True)
class Compared:
    """A network with a method, and the images as this network sees them."""

    candidate: Candidate
    source: Source
    examples: Examples

    @classmethod
    def make(cls, candidate: Candidate, method: str, examples: Examples) -> Compared:
        """With the method of this name, or the bundle's ``OWN``.

        Raises:
            ValueError: there is no such method.
        """
        name = candidate.card.explanation.method if method == OWN else method
        return cls(candidate, find_source(name, candidate), examples)

    @property
    def entry(self) -> Entry:
        """As it is kept."""
        bundle = self.candidate.bundle
        return Entry(bundle.card.name, bundle.card.version, bundle.digest, self.source.name)

    def map(self, example: Example, target: Target) -> Float32:
        """What counts of the map for an image: (h, w), at least 0."""
        wanted = -1 if target == "predicted" or example.truth is None else example.truth
        pixels = torch.from_numpy(example.pixels.copy())[None]  # what is read may not be writable
        maps = self.source.maps(self.candidate, pixels, torch.tensor([[wanted]]))
        return np.asarray(self.source.important(maps)[0, 0].cpu(), np.float32)


def picture_spec(side: int) -> InputSpec:
    """How images are opened to be shown: the whole of each, finer than the pictures will be."""
    return InputSpec(width=2 * side, height=2 * side, resize_mode="squash", mean=(0, 0, 0), std=(1, 1, 1))


def create_study(store: Store, compared: Sequence[Compared], shown: Examples, plan: Plan) -> str:
    """Make a study; returns its id. Where it fails, nothing of it is left.

    Args:
        store: to put it into.
        compared: at least two.
        shown: the same images, opened by ``picture_spec``.
        plan: see there.

    Raises:
        ValueError: what is compared, the images or the words do not fit.
        StudyStoreFailed: the database failed.
    """
    _check(compared, plan)
    chosen = choose(compared[0].examples, plan)
    data = compared[0].examples
    settings = {
        **SETTINGS, "target": plan.target, "side": plan.side, "seed": plan.seed,
        "per_class": plan.per_class, "data": data.name, "images": data.description,
    }  # fmt: skip
    study = store.begin(plan.title, plan.instruction, settings, [each.entry for each in compared])
    try:
        for number, index in enumerate(tqdm(chosen, desc="images", disable=None), 1):
            store.add(study, number, make_item(compared, shown, index, plan))
        store.complete(study)
    except BaseException:
        store.delete(study)
        raise
    return study


def choose(examples: Examples, plan: Plan) -> list[int]:
    """Which images, in the order of the data: drawn at random by the seed, within the plan's numbers.

    None is opened for that.

    Raises:
        ValueError: there are none, or classes are to be counted or explained and an image has none.
    """
    truths = examples.truths()
    taken: Counter[int | None] = Counter()
    chosen: list[int] = []
    for index in np.random.default_rng(plan.seed).permutation(len(examples)).tolist():
        if len(chosen) == plan.number:
            break
        truth = truths[index]
        if truth is None and (plan.target == "true" or plan.per_class is not None):
            raise ValueError(
                f"{examples.names()[index]}: its class is not known; put images into folders named by their "
                "class, or explain what the networks predict: --target predicted"
            )
        if plan.per_class is None or taken[truth] < plan.per_class:
            taken[truth] += 1
            chosen.append(index)
    if not chosen:
        raise ValueError(f"{examples.name}: there is no image")
    return sorted(chosen)


def make_item(compared: Sequence[Compared], shown: Examples, index: int, plan: Plan) -> Item:
    """One image, and the map of everything that is compared over it.

    Raises:
        ValueError: a map cannot be drawn; or the networks were given different images.
    """
    seen = [each.examples.read(index) for each in compared]
    whole = shown.read(index)
    if {example.name for example in seen} != {whole.name}:
        raise ValueError(f"{whole.name}: the networks do not read the same images")
    window = common_window([example.geometry for example in seen])
    canvas = Canvas(whole.pixels, whole.geometry.original, window, plan.side)
    maps = []
    for each, example in zip(compared, seen, strict=True):
        try:
            maps.append(to_png(canvas.draw(each.map(example, plan.target), example.geometry)))
        except ValueError as error:
            raise ValueError(f"{each.entry.name}: {whole.name}: {error}") from None
    truth = seen[0].truth
    label = "" if truth is None else compared[0].candidate.card.labels[truth]
    return Item(whole.name, label, to_png(canvas.picture), maps, canvas.size)


def _check(compared: Sequence[Compared], plan: Plan) -> None:
    if len(compared) < 2:
        raise ValueError("a study compares at least two: name two bundles, or one with two methods")
    names = [each.entry.name for each in compared]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{twice[0]} is there twice")
    if not plan.title.strip() or not plan.instruction.strip():
        raise ValueError("the title and the instruction need words: subjects read them")
    words = f"{plan.title} {plan.instruction}".lower()
    for each in compared:
        if each.candidate.card.name.lower() in words:
            raise ValueError(
                f"the title or the instruction names {each.candidate.card.name}, which subjects must not know"
            )
