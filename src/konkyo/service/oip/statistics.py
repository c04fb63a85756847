"""The statistics extension: what the metrics say, in its words.

Read from what is exposed, and so of all processes where there are several. It counts images, and not
requests: each image of a request is batched, answered and counted by itself.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, ClassVar

from konkyo.service.metrics import Metrics
from konkyo.service.model import Model

COMPUTED = ("compute_input", "compute_infer", "compute_output")


def statistics(metrics: Metrics, models: list[Model]) -> list[dict[str, Any]]:
    """``model_stats``, of each model since the process started; times in ns."""
    metrics.sample()
    found = {(model.name, model.version): _Samples() for model in models}
    for family in metrics.exposition.collect():
        for name, labels, value, *_ in family.samples:
            samples = found.get((labels.get("model", ""), labels.get("version", "")))
            if samples is not None:
                samples.add(name.removeprefix("konkyo_"), labels, value)
    return [
        {"name": name, "version": version, **samples.body()} for (name, version), samples in found.items()
    ]


class _Samples:
    """The samples of one model that the statistics are made of, added up over the rest of their labels."""

    _KEPT: ClassVar[dict[str, str | None]] = {
        "requests_total": "outcome",
        "inference_seconds_total": "phase",
        "batches_total": "size",
        "batch_seconds_total": "size",
        "executions_total": None,
        "queue_seconds_count": None,
        "queue_seconds_sum": None,
        "last_inference_timestamp_seconds": None,
    }

    def __init__(self) -> None:
        self._sums: dict[str, defaultdict[str, float]] = {name: defaultdict(float) for name in self._KEPT}

    def add(self, name: str, labels: dict[str, str], value: float) -> None:
        """A sample, if it is one of those."""
        if name in self._KEPT:
            by = self._KEPT[name]
            self._sums[name][labels[by] if by else ""] += value

    def body(self) -> dict[str, Any]:
        """All but the name of the model."""
        outcomes, seconds = self._sums["requests_total"], self._sums["inference_seconds_total"]
        answered = outcomes["success"] + outcomes["shed"]
        counts = {"success": answered, "fail": sum(outcomes.values()) - answered}
        counts |= dict.fromkeys(COMPUTED, answered)
        return {
            "last_inference": int(self._one("last_inference_timestamp_seconds") * 1e3),
            "inference_count": int(answered),
            "execution_count": int(self._one("executions_total")),
            "inference_stats": {
                **{phase: _duration(count, seconds[phase]) for phase, count in counts.items()},
                "queue": _duration(self._one("queue_seconds_count"), self._one("queue_seconds_sum")),
            },
            "batch_stats": [
                {
                    "batch_size": int(size),
                    "compute_infer": _duration(count, self._sums["batch_seconds_total"][size]),
                }
                for size, count in sorted(
                    self._sums["batches_total"].items(), key=lambda batch: int(batch[0])
                )
            ],
        }

    def _one(self, name: str) -> float:
        return self._sums[name][""]


def _duration(count: float, seconds: float) -> dict[str, int]:
    return {"count": int(count), "ns": int(seconds * 1e9)}
