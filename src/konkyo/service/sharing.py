"""Metrics that several processes add to: files mapped into memory, which any of them can add up.

Prometheus' own client does it; here the files belong to a *place* among the processes, not to a process
id. Whoever takes the place of a process that died goes on where it stopped: no counter falls, and the
files do not become more. What is said of now, such as how many wait, ends with the process.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Metric, ProcessCollector, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

NOTHING = {"livesum": 0.0, "livemin": math.inf, "livemax": -math.inf}
"""By the mode of a gauge, the value that leaves those of other processes as they are."""


def join(folder: Path, place: int) -> None:
    """Keep every metric that is made from now on in the folder; for one process at a place at a time."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)  # read by the client whenever it opens a file
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: place)  # type: ignore[no-untyped-call]


def left(folder: Path, place: int) -> None:
    """The process at a place has died: forget what it said of now."""
    mark_process_dead(place, str(folder))  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Sharing:
    """Who shares metrics.

    Attributes:
        folder: where they are.
        supervisor: id of the process whose children share them.
    """

    folder: Path
    supervisor: int


class Shared(Collector):
    """The metrics of all processes, added up."""

    def __init__(self, folder: Path) -> None:
        self._files = MultiProcessCollector(None, str(folder))  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        """Every family, without the gauges of what is not there any more."""
        for family in self._files.collect():  # type: ignore[no-untyped-call]
            if family.type == "gauge":
                family.samples = [sample for sample in family.samples if not math.isinf(sample.value)]
            yield family


class Processes(Collector):
    """Memory, time and files of a process and its children, as ``ProcessCollector`` has them of one.

    The time of children that have ended stays in the sum.
    """

    def __init__(self, parent: int) -> None:
        self._parent = parent

    def collect(self) -> Iterable[Metric]:
        """Sums, but for the time of the start, which is the parent's."""
        ended, families = _seconds_of_ended_children(self._parent), self._add_up()
        while (later := _seconds_of_ended_children(self._parent)) != ended:
            ended, families = later, self._add_up()  # a child ended: its time was in neither, or in both
        if CPU in families:
            _add(families[CPU], ended)
        return families.values()

    def _add_up(self) -> dict[str, Metric]:
        families = {family.name: family for family in self._of(self._parent)}
        for child in _children(self._parent):
            for family in self._of(child):
                if family.samples and family.name in families and family.name != START:
                    _add(families[family.name], family.samples[0].value)
        return families

    def _of(self, process: int) -> Iterable[Metric]:
        return ProcessCollector(pid=lambda: process, registry=None).collect()


START, CPU = "process_start_time_seconds", "process_cpu_seconds"


def _add(family: Metric, value: float) -> None:
    [sample] = family.samples
    family.samples = [sample._replace(value=sample.value + value)]


def _children(process: int) -> list[int]:
    try:
        return [
            int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()
        ]
    except OSError:  # no Linux, or one without this list
        return []


def _seconds_of_ended_children(process: int) -> float:
    """``cutime`` and ``cstime`` of proc(5): fields 16 and 17, and the name before them may have spaces."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
