"""Every evaluation of the maps in docs/results.md, as the command that anybody can type, and its table.

A figure that is told apart from the best baseline of its model has ▲ where it is better, ▼ where worse.
Whether a map stays when weights are random is no contest with baselines, which never ask the model.

Photographs of others cannot ship: ``PHOTOS`` holds ``imagenet/INDEX/*.jpg``, labelled by class index, and
``coco/`` with images, panoptic masks and ``panoptic.json``; ``MODELS`` what ``konkyo import`` makes of
published ImageNet weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments.markdown import table
from experiments.plan import Run
from experiments.run import DONE, is_done
from konkyo.evaluation.comparing import Entry, best_baseline, entries_of
from konkyo.evaluation.report.verdicts import Standing, standing
from konkyo.evaluation.report.words import words_of
from konkyo.evaluation.results import Results
from konkyo.evaluation.sources import BASELINES

EVALUATIONS = Path("runs/evaluation")
ZOO, MODELS, PHOTOS = "src/konkyo/zoo", "models", "data/photos"
LITE0 = f"{ZOO}/efficientnet-lite0-imagenet/1"
IMAGENET = f"{LITE0} {MODELS}/efficientnet-lite1/1 {MODELS}/efficientnet-lite2/1 {MODELS}/resnet50-keras/1"
CNN, GCM = f"{ZOO}/cnn-cifar10/1", f"{ZOO}/gcm-cifar10/1 {ZOO}/gcm-clipped-cifar10/1"
TILES = f"{ZOO}/abn-magnetic-tile/1 {ZOO}/multiscale-abn-magnetic-tile/1"

_MODEL = "classification,calibration"
_FAITHFUL = "insertion_deletion,average_drop,occlusion_correlation,randomization"
_STABLE = "stability_jpeg,stability_shift,stability_batch,stability_half,stability_onnx"
_LOCAL = "pointing,pointing_rejection,energy,localization,localization_given_class,seeds"
_BASELINES = "random,centre,edges"

MARKS: dict[Standing, str] = {"better": " ▲", "open": "", "worse": " ▼"}

Columns = Mapping[str, tuple[str, str]]
"""Head of a column to a measure and its figure."""

_FAITHFUL_COLUMNS = {
    "insertion ↑": ("insertion_deletion", "insertion"),
    "deletion ↓": ("insertion_deletion", "deletion"),
    "rank correlation with occlusion ↑": ("occlusion_correlation", "correlation"),
    "average drop ↓": ("average_drop", "average_drop"),
    "increase ↑": ("average_drop", "increase"),
    "same map, last third random ↓": ("randomization", "correlation_third"),
    "same map, all random ↓": ("randomization", "correlation_all"),
}
_LOCAL_COLUMNS = {
    "pointing, 15 px ↑": ("pointing", "accuracy"),
    "inside ↑": ("pointing", "inside"),
    "mass inside ↑": ("energy", "energy"),
    "lift ↑": ("energy", "lift"),
    "box error, class given ↓": ("localization_given_class", "error"),
    "seeds, IoU ↑": ("seeds", "iou"),
}
_MODEL_COLUMNS = {
    "accuracy": ("classification", "accuracy"),
    "balanced": ("classification", "balanced_accuracy"),
    "kappa": ("classification", "kappa"),
    "expected calibration error": ("calibration", "expected_error"),
    "overconfidence": ("calibration", "overconfidence"),
}
_DECLINE_COLUMNS = {
    "weight map": ("decline", "decline_raw"),
    "absolute": ("decline", "decline_absolute"),
    "blend": ("decline", "decline_blend"),
    "product": ("decline", "decline_product"),
}
_BOX_COLUMNS = {"top-1 ↓": ("localization", "error_top1"), "top-5 ↓": ("localization", "error_top5")}
_THRESHOLD_COLUMNS = {"score by threshold ↑": ("threshold_insertion_deletion", "score")}
_STABLE_COLUMNS = {
    "JPEG 75": ("stability_jpeg", "correlation"),
    "shift by 2 px": ("stability_shift", "correlation"),
    "other batch": ("stability_batch", "correlation"),
    "float16": ("stability_half", "correlation"),
    "ONNX Runtime": ("stability_onnx", "correlation"),
}


@dataclass(frozen=True)
class Evaluation:
    """A run of ``konkyo evaluate``, and the columns of the tables made from it.

    Attributes:
        name: of the run.
        arguments: of the command but ``--out``.
        tables: columns by the name of the table's place; runs may share one.
    """

    name: str
    arguments: str
    tables: Mapping[str, Columns]

    @property
    def run(self) -> Run:
        """The command."""
        return Run(self.name, f"konkyo evaluate {self.arguments} --out {self.folder}", root=EVALUATIONS)

    @property
    def folder(self) -> Path:
        """Of the report."""
        return EVALUATIONS / self.name


PLAN = (
    Evaluation(
        "decline-cnn",
        f"{CNN} --data cifar10 --data-root data/cifar10 --images 0 --measures {_MODEL},decline "
        "--methods guided-backprop,guided-gradcam,cam,gradcam",
        {"models": _MODEL_COLUMNS, "decline": _DECLINE_COLUMNS},
    ),
    Evaluation(
        "decline-gcm",
        f"{GCM} --data cifar10 --data-root data/cifar10 --images 0 --measures {_MODEL},decline --methods gcm",
        {"models": _MODEL_COLUMNS, "decline": _DECLINE_COLUMNS},
    ),
    Evaluation(
        "cifar10",
        f"{CNN} {GCM} --data cifar10 --data-root data/cifar10 --images 500 --measures {_FAITHFUL},{_STABLE} "
        f"--methods gcm,contribution,cam,gradcam,guided-gradcam,guided-backprop,{_BASELINES}",
        {"faithful-cifar10": _FAITHFUL_COLUMNS, "stable": _STABLE_COLUMNS},
    ),
    Evaluation(
        "tiles",
        f"{TILES} --data data/magnetic-tile --fold 0 --images 120 "
        f"--measures {_MODEL},{_FAITHFUL},{_STABLE},{_LOCAL},expert_map,threshold_insertion_deletion "
        f"--methods attention,attention:1,attention:2,cam,gradcam,guided-gradcam,{_BASELINES}",
        {
            "models": _MODEL_COLUMNS,
            "local-tiles": {**_LOCAL_COLUMNS, "squared error ↓": ("expert_map", "error")},
            "faithful-tiles": {**_FAITHFUL_COLUMNS, **_THRESHOLD_COLUMNS},
            "stable": _STABLE_COLUMNS,
        },
    ),
    Evaluation(
        "cells",
        f"{ZOO}/amb-elpv/1 --data elpv --images 200 "
        f"--measures {_MODEL},{_FAITHFUL},{_STABLE},threshold_insertion_deletion "
        f"--methods attention,gradcam,guided-gradcam,{_BASELINES}",
        {
            "models": _MODEL_COLUMNS,
            "faithful-cells": {**_FAITHFUL_COLUMNS, **_THRESHOLD_COLUMNS},
            "stable": _STABLE_COLUMNS,
        },
    ),
    Evaluation(
        "imagenet",
        f"{IMAGENET} --data {PHOTOS}/imagenet --images 0 "
        f"--measures {_MODEL},{_FAITHFUL},{_STABLE} --methods gradcam,guided-gradcam,{_BASELINES}",
        {"models": _MODEL_COLUMNS, "faithful-imagenet": _FAITHFUL_COLUMNS, "stable": _STABLE_COLUMNS},
    ),
    Evaluation(
        "coco",
        f"{IMAGENET} --data {PHOTOS}/coco --classes coco-to-imagenet --images 0 --measures {_LOCAL} "
        f"--methods cam,gradcam,layercam,guided-gradcam,occlusion,{_BASELINES}",
        {"local-coco": {**_LOCAL_COLUMNS, **_BOX_COLUMNS}},
    ),
)


def tables() -> Iterator[tuple[str, Iterator[str]]]:
    """The lines of each table by the name of its place, of the runs that are done; and their commands."""
    done = [evaluation for evaluation in PLAN if is_done(evaluation.run)]
    rows: dict[str, list[list[str]]] = {}
    heads: dict[str, Columns] = {}
    for evaluation in done:
        path = evaluation.folder / "results.json"
        results = Results.model_validate_json(path.read_text(encoding="utf-8"))
        for name, columns in evaluation.tables.items():
            heads[name] = columns
            rows.setdefault(name, []).extend(_rows(results, columns))
    for name, columns in heads.items():
        own = all(not row[2] for row in rows[name])  # figures of the models have no method
        first = ["data", "model", *([] if own else ["method"])]
        lines = [[*row[:2], *row[3:]] for row in rows[name]] if own else rows[name]
        yield name, table([*first, *columns], lines)
    if done:
        yield (
            "map-commands",
            (f"    {item.run.command}    # {(item.folder / DONE).read_text().strip()} s" for item in done),
        )


def _rows(results: Results, columns: Columns) -> Iterator[list[str]]:
    """One a method of a model, where it has any of the figures; how steady a baseline is says nothing."""
    found = {
        (item.candidate, item.source, item.measure, figure.name): Entry(item, figure)
        for item in results.measures
        for figure in item.figures
    }
    for candidate in results.candidates:
        for source in dict.fromkeys(item.source for item in results.measures):
            cells = [
                _cell(found.get((candidate.name, source, *column)), results) for column in columns.values()
            ]
            if any(cells) and not (columns is _STABLE_COLUMNS and source in BASELINES):
                name = candidate.name.partition("/")[0]
                yield [results.data.name, name, f"`{source}`" if source else "", *cells]


def _cell(entry: Entry | None, results: Results) -> str:
    """A figure with its interval, such as ``0.581 (0.523, 0.640) ▲``."""
    if entry is None or entry.figure.value is None:
        return ""
    result, figure = entry
    interval = f" ({figure.low:.3f}, {figure.high:.3f})" if figure.low is not None else ""
    same = entries_of((item for item in results.measures if item.measure == result.measure), figure.name)
    baseline = best_baseline(same, result.candidate)
    words = words_of(result.measure, result.title)
    mark = ""
    if baseline is not None and words.beatable and not words.fails:
        mark = MARKS[standing(figure, baseline)]
    return f"{figure.value:.3f}{interval}{mark}"
