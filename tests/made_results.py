"""Results of an evaluation that never happened, for tests of the report, with pictures of their own."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from konkyo.evaluation.comparing import Entry, best_baseline, best_map, entries_of, is_baseline
from konkyo.evaluation.measures.base import Better
from konkyo.evaluation.report import Look
from konkyo.evaluation.results import (
    FEW,
    CandidateResult,
    CurveResult,
    DataResult,
    DifferenceResult,
    FigureResult,
    MatrixResult,
    MeasureResult,
    Results,
    WorstCase,
)

MODEL = "abn-magnetic-tile/1"
LABELS = ("blowhole", "break", "crack", "fray", "free", "uneven")
METHODS = ("attention", "gradcam", "guided-backprop")
BASELINES = ("random", "centre", "edges")


def figure(
    name: str,
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    *,
    title: str = "",
    better: Better = "higher",
    images: int = 62,
) -> FigureResult:
    return FigureResult(
        name=name, title=title or name, better=better, value=value, low=low, high=high,
        images=images, few=images < FEW,
    )  # fmt: skip


def measured(measure: str, source: str | None, *figures: FigureResult, **more: Any) -> MeasureResult:
    given = {
        "candidate": MODEL,
        "title": measure.replace("_", " ").capitalize(),
        "reference": "A paper",
        **more,
    }
    settings = given.pop("settings", {})
    return MeasureResult(source=source, measure=measure, figures=figures, settings=settings, **given)


def differing(measures: Sequence[MeasureResult]) -> list[MeasureResult]:
    """With differences as of figures that have nothing in common: told apart where no intervals overlap."""

    def difference(of: FigureResult, other: Entry) -> DifferenceResult:
        to = other.figure
        assert of.value is not None
        assert to.value is not None
        known = of.low is not None and of.high is not None and to.low is not None and to.high is not None
        return DifferenceResult(
            candidate=other.result.candidate, source=other.result.source, value=of.value - to.value,
            low=of.low - to.high if known else None, high=of.high - to.low if known else None,
        )  # fmt: skip

    def told(result: MeasureResult, of: FigureResult) -> FigureResult:
        entries = entries_of([item for item in measures if item.measure == result.measure], of.name)
        others = (best_baseline(entries, result.candidate), best_map(entries))
        known = [other for other in others if other is not None and other.result is not result]
        differences = [] if of.value is None or is_baseline(result) else [difference(of, it) for it in known]
        return of.model_copy(update={"differences": tuple(differences)})

    return [
        result.model_copy(update={"figures": tuple(told(result, of) for of in result.figures)})
        for result in measures
    ]


def results(*measures: MeasureResult, candidates: Sequence[str] = (MODEL,), **more: Any) -> Results:
    """An evaluation of these."""
    given: dict[str, Any] = {
        "command": "konkyo evaluate zoo/abn-magnetic-tile/1 --data surfaces --out report",
        "date": "2026-11-20",
        "settings": {"data": "surfaces", "seed": 0, "resamples": 1000, "level": 0.95},
        "versions": {"konkyo": "0.5.0", "torch": "2.15.0"},
        "data": DataResult(
            name="magnetic tiles", description="fold 0 of 5, split by tile; 221 grey images of tiles",
            licence="no licence file; its page welcomes use and asks for citation",
            images=221, explained=200, marked=62, grouped=True,
        ),
        "candidates": tuple(
            CandidateResult(
                name=name, digest="sha256:" + "3f" * 32, architecture="abn", labels=LABELS, input="64x64"
            )
            for name in candidates
        ),
        **more,
    }  # fmt: skip
    return Results(measures=tuple(differing(measures)), **given)


FIGURES: dict[str, tuple[tuple[str, str, Better], ...]] = {
    "pointing": (
        ("accuracy", "hits within 15 px, mean of the classes", "higher"),
        ("inside", "hits inside, mean of the classes", "higher"),
        ("distance", "pixels to the region, where a map points", "lower"),
    ),
    "energy": (
        ("energy", "mass inside, mean of the classes", "higher"),
        ("lift", "lift over a flat map", "higher"),
    ),
    "localization_given_class": (("error", "localisation error, of all things", "lower"),),
    "seeds": (("iou", "IoU of seeds at 20 %, mean of the classes", "higher"),),
    "insertion_deletion": (
        ("insertion", "area under the insertion curve", "higher"),
        ("deletion", "area under the deletion curve", "lower"),
        ("score", "insertion area less deletion area", "higher"),
    ),
    "occlusion_correlation": (("correlation", "rank correlation of what counts of the map", "higher"),),
    "decline": (
        ("decline_raw", "decline of the raw map", "lower"),
        ("decline_absolute", "decline of the absolute value of the map", "lower"),
        ("decline_blend", "decline of the map in the colours of jet, blended with the picture", "lower"),
        ("decline_product", "decline of the product of map and picture", "lower"),
        ("accuracy", "accuracy of the network", "higher"),
    ),
    "stability_jpeg": (("correlation", "rank correlation, quality 75", "higher"),),
    "stability_shift": (("correlation", "rank correlation, 4 px", "higher"),),
}
GOODNESS = {
    "attention": 0.78, "gradcam": 0.52, "guided-backprop": 0.36, "occlusion": 0.7, "rise": 0.6, "cam": 0.55,
    "guided-gradcam": 0.5, "counterfactual": 0.2, "random": 0.18, "centre": 0.31, "edges": 0.3,
}  # fmt: skip
"""By source, for figures in the order that one expects."""


def realistic(
    candidates: Sequence[str] = (MODEL,),
    methods: Sequence[str] = METHODS,
    worst: int = 6,
    points: int = 29,
) -> Results:
    """Every measure of every map, in figures as they may come out."""
    measures = [_classification(name, 0.91 - 0.04 * order) for order, name in enumerate(candidates)]
    for order, candidate in enumerate(candidates):
        for source in (*methods, *BASELINES):
            measures.extend(
                _measure(measure, candidate, source, 1 - 0.12 * order, worst, points) for measure in FIGURES
            )
        measures.append(
            MeasureResult(
                candidate=candidate,
                source=None,
                measure="stability_onnx",
                title="Stability by ONNX Runtime",
                reference="our own",
                settings={},
                unsuited="the bundle has no model.onnx",
            )
        )
    return results(*measures, candidates=candidates)


def _measure(
    measure: str, candidate: str, source: str, share: float, worst: int, points: int
) -> MeasureResult:
    given = {
        "candidate": candidate,
        "title": TITLES[measure],
        "reference": REFERENCES.get(measure, "our own"),
    }
    if source in BASELINES and measure in ("decline", "stability_shift"):
        reason = "a baseline has the same map for every class"
        return MeasureResult(source=source, measure=measure, settings={}, unsuited=reason, **given)
    good = GOODNESS[source] * share
    found = []
    for number, (name, title, better) in enumerate(FIGURES[measure]):
        value = good * (1 - 0.15 * number) + _wobble(measure, source, name)
        scale = 40 if name == "distance" else 4 if name == "lift" else 1
        value = scale * (1 - value if better == "lower" else value)
        half = 0.06 * scale
        images = 12 if measure == "seeds" else 62
        found.append(
            figure(name, value, value - half, value + half, title=title, better=better, images=images)
        )
    return MeasureResult(
        source=source,
        measure=measure,
        settings=SETTINGS.get(measure, {}),
        figures=tuple(found),
        curves=_curves(good, points) if measure == "insertion_deletion" else (),
        notes=NOTES if measure == "decline" else (),
        worst_by=FIGURES[measure][0][1],
        worst=tuple(
            WorstCase(example=f"crack/exp{k}_num_{k * 37}.jpg", about="crack", target=2, value=0.02 * k)
            for k in range(worst if source not in BASELINES and measure in ("pointing", "seeds") else 0)
        ),
        seconds=3.5,
        **given,
    )


TITLES = {
    "pointing": "Pointing game",
    "energy": "Energy inside the mask",
    "localization_given_class": "Localisation error given the class",
    "seeds": "Overlap of segmentation seeds",
    "insertion_deletion": "Insertion and deletion",
    "occlusion_correlation": "Rank correlation with occlusion",
    "decline": "Decline ratio",
    "stability_jpeg": "Stability under JPEG",
    "stability_shift": "Stability under shifts",
}
REFERENCES = {
    "pointing": "Zhang et al., IJCV 2018, section 4.1; Grad-CAM, section 4.3",
    "energy": "Score-CAM (Wang et al., 2020), section 4.3",
    "insertion_deletion": "RISE (Petsiuk et al., BMVC 2018), section 4.2",
}
SETTINGS: dict[str, dict[str, Any]] = {
    "pointing": {"tolerance": 15.0},
    "seeds": {"threshold": 0.2},
    "insertion_deletion": {"step": 64, "blur": {"kernel": 11, "sigma": 5}, "fill": [0, 0, 0]},
    "stability_jpeg": {"quality": 75},
}
NOTES = (
    "The signed map and the bias of the head are the score, so each decline has its causes here.",
    "The decline of the raw map is 0.220: +0.120 by the ReLU, which drops what speaks against a class; "
    "+0.100 by the bias of the head, which no map holds.",
)


def _wobble(*of: str) -> float:
    return (zlib.crc32("/".join(of).encode()) % 1000 / 1000 - 0.5) * 0.1


def _curves(good: float, points: int) -> tuple[CurveResult, ...]:
    x = tuple(round(k / (points - 1), 4) for k in range(points))
    found = []
    for name, y in (
        ("insertion", [1 - math.exp(-6 * good * at) for at in x]),
        ("deletion", [math.exp(-6 * good * at) for at in x]),
    ):
        found.append(
            CurveResult(
                name=name,
                x_title=f"share of the pixels that is {'shown' if name == 'insertion' else 'removed'}",
                y_title="probability of the class",
                x=x,
                y=tuple(y),
                low=tuple(max(v - 0.05, 0) for v in y),
                high=tuple(min(v + 0.05, 1) for v in y),
            )
        )
    return tuple(found)


def _classification(candidate: str, accuracy: float) -> MeasureResult:
    counts = np.full((6, 6), 1.0) + np.diag([12, 8, 7, 3, 110, 9])
    return measured(
        "classification", None,
        figure("accuracy", accuracy, accuracy - 0.04, accuracy + 0.03, title="accuracy", images=221),
        figure("balanced", accuracy - 0.2, accuracy - 0.3, accuracy - 0.1, title="balanced", images=221),
        candidate=candidate, title="Classification", reference="scikit-learn",
        matrices=(
            MatrixResult(
                name="confusion", title="Confusions", row_title="true class", column_title="predicted class",
                rows=LABELS, columns=LABELS, values=tuple(map(tuple, counts.tolist())),
            ),
        ),
    )  # fmt: skip


def look(result: MeasureResult, worst: WorstCase, side: int = 64) -> Look:
    """A tile with a scratch, and a map beside it."""
    generator = np.random.default_rng(zlib.crc32(worst.example.encode()))
    rows, columns = np.mgrid[:side, :side] / side
    grey = 120 + 40 * np.sin(3 * rows + 2 * columns) + generator.normal(0, 6, (side, side))
    at = 0.2 + 0.6 * generator.random()
    mask = np.abs(columns - at - 0.2 * rows) < 0.04
    pixels = np.repeat(np.where(mask, 40, grey)[..., None], 3, axis=2).clip(0, 255).astype(np.uint8)
    y, x = np.mgrid[:8, :8] / 7
    map_ = np.exp(-((x - generator.random()) ** 2 + (y - generator.random()) ** 2) / 0.08)
    if result.source == "guided-backprop":
        map_ = map_ - 0.3
    return Look(
        pixels, worst.example, "free", 0.83, truth="crack", map=map_.astype(np.float32), explained="crack",
        mask=mask, boxes=np.array([[at * side - 4, 2, at * side + 16, side - 2]]),
    )  # fmt: skip
