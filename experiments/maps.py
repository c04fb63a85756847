"""Every evaluation of the maps in docs/results.md, as the command that anybody can type, and its table.

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
from konkyo.evaluation.results import FigureResult, Results

EVALUATIONS = Path("runs/evaluation")
ZOO, MODELS, PHOTOS = "src/konkyo/zoo", "models", "data/photos"
IMAGENET = (
    f"{ZOO}/efficientnet-lite0-imagenet/1 {MODELS}/efficientnet-lite1/1 {MODELS}/efficientnet-lite2/1 "
    f"{MODELS}/resnet50-keras/1"
)
CIFAR = f"{ZOO}/cnn-cifar10/1 {ZOO}/gcm-cifar10/1 {ZOO}/gcm-clipped-cifar10/1"
TILES = f"{ZOO}/abn-magnetic-tile/1 {ZOO}/multiscale-abn-magnetic-tile/1"

_MODEL = "classification,calibration"
_FAITHFUL = "insertion_deletion,average_drop,occlusion_correlation,randomization"
_STABLE = "stability_jpeg,stability_shift,stability_batch,stability_half,stability_onnx"
_LOCAL = "pointing,pointing_rejection,energy,localization,localization_given_class,seeds"
_BASELINES = "random,centre,edges"

Columns = Mapping[str, tuple[str, str]]
"""Head of a column to a measure and its figure."""

_FAITHFUL_COLUMNS = {
    "insertion ↑": ("insertion_deletion", "insertion"),
    "deletion ↓": ("insertion_deletion", "deletion"),
    "rank correlation with occlusion ↑": ("occlusion_correlation", "correlation"),
    "average drop, % ↓": ("average_drop", "average_drop"),
    "increase, % ↑": ("average_drop", "increase"),
    "same map by random weights, rank correlation ↓": ("randomization", "correlation_all"),
}
_LOCAL_COLUMNS = {
    "pointing, 15 px ↑": ("pointing", "accuracy"),
    "inside ↑": ("pointing", "inside"),
    "mass inside ↑": ("energy", "energy"),
    "lift ↑": ("energy", "lift"),
    "box error, class given ↓": ("localization_given_class", "error"),
    "seeds, IoU ↑": ("seeds", "iou"),
}
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
        name: of the run and, with the table's, of the place in docs/results.md.
        arguments: of the command but ``--out``.
        tables: their columns by name.
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
        "cifar10-decline",
        f"{CIFAR} --data cifar10 --data-root data/cifar10 --images 0 --measures {_MODEL},decline "
        "--methods guided-backprop,guided-gradcam,cam,gradcam,gcm",
        {
            "decline": {
                "weight map": ("decline", "decline_raw"),
                "absolute": ("decline", "decline_absolute"),
                "blend": ("decline", "decline_blend"),
                "product": ("decline", "decline_product"),
            }
        },
    ),
    Evaluation(
        "cifar10",
        f"{CIFAR} --data cifar10 --data-root data/cifar10 --images 500 --measures {_FAITHFUL},{_STABLE} "
        f"--methods gcm,contribution,cam,gradcam,guided-gradcam,guided-backprop,occlusion,{_BASELINES}",
        {"faithful": _FAITHFUL_COLUMNS, "stable": _STABLE_COLUMNS},
    ),
    Evaluation(
        "tiles",
        f"{TILES} --data data/magnetic-tile --fold 0 --images 0 "
        f"--measures {_MODEL},{_FAITHFUL},{_STABLE},{_LOCAL},expert_map,threshold_insertion_deletion "
        f"--methods attention,attention:1,attention:2,cam,gradcam,guided-gradcam,occlusion,{_BASELINES}",
        {"local": _LOCAL_COLUMNS, "faithful": _FAITHFUL_COLUMNS, "stable": _STABLE_COLUMNS},
    ),
    Evaluation(
        "cells",
        f"{ZOO}/amb-elpv/1 --data elpv --images 300 "
        f"--measures {_MODEL},{_FAITHFUL},{_STABLE},threshold_insertion_deletion "
        f"--methods attention,cam,gradcam,guided-gradcam,occlusion,{_BASELINES}",
        {"faithful": _FAITHFUL_COLUMNS, "stable": _STABLE_COLUMNS},
    ),
    Evaluation(
        "imagenet",
        f"{IMAGENET} --data {PHOTOS}/imagenet --images 0 --measures {_MODEL},{_FAITHFUL},{_STABLE} "
        f"--methods cam,gradcam,layercam,guided-gradcam,occlusion,{_BASELINES}",
        {"faithful": _FAITHFUL_COLUMNS, "stable": _STABLE_COLUMNS},
    ),
    Evaluation(
        "coco",
        f"{IMAGENET} --data {PHOTOS}/coco --classes coco-to-imagenet --images 0 --measures {_LOCAL} "
        f"--methods cam,gradcam,layercam,guided-gradcam,occlusion,{_BASELINES}",
        {"local": _LOCAL_COLUMNS},
    ),
)


def tables() -> Iterator[tuple[str, Iterator[str]]]:
    """The lines of each table whose run is done, by the name of its place."""
    for evaluation in PLAN:
        path = evaluation.folder / "results.json"
        if path.exists():
            results = Results.model_validate_json(path.read_text(encoding="utf-8"))
            for name, columns in evaluation.tables.items():
                yield f"{evaluation.name}-{name}", _lines(results, columns)
            yield f"{evaluation.name}-models", _models(results)


def _lines(results: Results, columns: Columns) -> Iterator[str]:
    """One row a method of a model, where it has any of the figures."""
    found = {
        (item.candidate, item.source, item.measure, figure.name): figure
        for item in results.measures
        for figure in item.figures
    }
    sources = list(dict.fromkeys(item.source for item in results.measures if item.source))
    rows = []
    for candidate in results.candidates:
        for source in sources:
            cells = [_cell(found.get((candidate.name, source, *column))) for column in columns.values()]
            if any(cells):
                rows.append([candidate.name.partition("/")[0], source, *cells])
    return table(["model", "method", *columns], rows)


def _models(results: Results) -> Iterator[str]:
    """Every figure of the models themselves, without their maps."""
    own = [item for item in results.measures if item.source is None and item.figures]
    heads = list(dict.fromkeys(figure.title for item in own for figure in item.figures))
    rows = []
    for candidate in results.candidates:
        figures = {f.title: f for item in own if item.candidate == candidate.name for f in item.figures}
        rows.append([candidate.name.partition("/")[0], *(_cell(figures.get(head)) for head in heads)])
    return table(["model", *heads], rows)


def _cell(figure: FigureResult | None) -> str:
    """A figure with its interval, such as ``0.581 (0.52, 0.64)``."""
    if figure is None or figure.value is None:
        return ""
    interval = f" ({figure.low:.2f}, {figure.high:.2f})" if figure.low is not None else ""
    return f"{figure.value:.3f}{interval}"
