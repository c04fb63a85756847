"""The run: models over a data set, a line on disk for each image and measure as it is made.

Images come in a drawn order (``drawing``), so that those whose maps are measured are the first of it and
every image is read once. Started again after whatever ended it, a run does only the batches that lack a
line, whole and composed as before, so that it ends with the figures it would have had.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from konkyo.errors import KonkyoError
from konkyo.evaluation.ahead import read_ahead
from konkyo.evaluation.examples import Batch, Example
from konkyo.evaluation.lines import EXAMPLE, Lines, read_lines
from konkyo.evaluation.measures.base import Measure, Wants
from konkyo.evaluation.planning import Task
from konkyo.evaluation.recording import Subject, about, examples_path, lines_of, made_by, records_path
from konkyo.evaluation.sources import Source
from konkyo.evaluation.wanted import maps_of, targets_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pace:
    """What changes how long a run takes, and what it makes only in the last bits.

    Attributes:
        batch_size: images at once, halved where the device's memory does not hold them.
        images: the most images that maps are measured on, None for all.
        skip_broken: leave out images that cannot be read.
        restart: begin anew, whatever records there are.
    """

    batch_size: int = 32
    images: int | None = None
    skip_broken: bool = False
    restart: bool = False


def take(
    subject: Subject,
    tasks: Sequence[Task],
    order: Sequence[int],
    pace: Pace,
    out: Path,
    identity: Mapping[str, Any],
) -> None:
    """Measure one model, and keep the records.

    Args:
        subject: model and data.
        tasks: what to measure; those that are unsuited are left out.
        order: of the images.
        pace: how.
        out: folder of the results.
        identity: beside the model and its data, what records must have in common to belong together.

    Raises:
        ValueError: an image cannot be read, or the folder holds records that were made otherwise.
        KonkyoError, OSError: likewise.
        torch.OutOfMemoryError: the device does not hold a single image.
    """
    with ExitStack() as opened:
        run = _Run(subject, tasks, order, pace, out, identity, opened)
        run.all()


@dataclass
class _Open:
    """A task with its file, and the number of images at the beginning of the order it is taken on."""

    source: Source | None
    measure: Measure
    lines: Lines
    images: int


class _Run:
    """One model's run; its files are open as long as ``opened``."""

    def __init__(
        self,
        subject: Subject,
        tasks: Sequence[Task],
        order: Sequence[int],
        pace: Pace,
        out: Path,
        identity: Mapping[str, Any],
        opened: ExitStack,
    ) -> None:
        self.candidate, self.examples = subject
        self.order, self.pace, self.size = order, pace, pace.batch_size
        names = self.examples.names()
        self.names = [names[position] for position in order]
        whole = {**identity, **made_by(subject)}
        known = examples_path(out, self.candidate)
        self.known = opened.enter_context(Lines(known, whole, restart=pace.restart))
        self.broken = {line[EXAMPLE]: line["broken"] for line in read_lines(known) if line["broken"]}
        if self.broken and not pace.skip_broken:
            raise ValueError(next(iter(self.broken.values())))

        def opens(task: Task, measure: Measure) -> _Open:
            header = {**whole, "method": task.name, "measure": measure.name, "settings": task.settings}
            path = records_path(out, self.candidate, task.name, measure.name)
            lines = opened.enter_context(Lines(path, header, restart=pace.restart))
            return _Open(task.source, measure, lines, images_of(task, pace, len(order)))

        self.open = [opens(task, task.measure) for task in tasks if task.measure is not None]

    def all(self) -> None:
        """Do the batches that lack a line."""
        size, total = self.pace.batch_size, len(self.order)
        batches = [range(start, min(start + size, total)) for start in range(0, total, size)]
        lacking = [batch for batch in batches if self._lacks(batch)]
        # disable=None: no bar where stderr is no terminal
        with (
            closing(read_ahead(lacking, self._read)) as found,
            tqdm(total=sum(map(len, lacking)), desc=self.candidate.name, unit="image", disable=None) as bar,
        ):
            for places, examples in found:
                self._take(dict(zip(places, examples, strict=True)))
                bar.update(len(places))

    def _lacks(self, places: Sequence[int]) -> bool:
        known = all(self.names[place] in self.known.done for place in places)
        return not known or any(self._lacking(item, places) for item in self.open)

    def _lacking(self, item: _Open, places: Iterable[int]) -> bool:
        """Whether an image of these, that the task is to be taken on, has no line."""
        wanted = {self.names[place] for place in places if place < item.images}
        return not wanted - self.broken.keys() <= item.lines.done

    def _read(self, place: int) -> Example | Exception:
        try:
            return self.examples.read(self.order[place])
        except (KonkyoError, ValueError, OSError) as error:
            return error

    def _take(self, found: Mapping[int, Example | Exception]) -> None:
        """Note the images that cannot be read, and measure the others; by place in the order."""
        for place, error in found.items():
            if isinstance(error, Exception):
                if not self.pace.skip_broken:
                    raise error
                self.broken[self.names[place]] = str(error)
                self.known.append([{EXAMPLE: self.names[place], "broken": str(error)}])
        rest = [(place, item) for place, item in found.items() if isinstance(item, Example)]
        while rest:
            part = rest[: self.size]
            try:
                self._measure([place for place, _ in part], [example for _, example in part])
                rest = rest[self.size :]
                continue
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
            # Not in the handler: until it ends the error holds the tensors of the batch.
            self.size = len(part) // 2
            torch.cuda.empty_cache()
            logger.warning("the memory of the device does not hold %d images; now %d", len(part), self.size)

    def _measure(self, places: Sequence[int], examples: Sequence[Example]) -> None:
        pixels = torch.from_numpy(np.stack([example.pixels for example in examples]))
        pixels = pixels.to(self.candidate.device)
        batch = Batch(examples, pixels, self.candidate.logits(pixels))
        together: dict[tuple[Source | None, int], list[_Open]] = defaultdict(list)
        for item in self.open:
            if count := sum(place < item.images for place in places):
                together[item.source, count].append(item)
        for (source, count), items in together.items():
            lacking = [item for item in items if self._lacking(item, places)]
            if lacking:
                begin = Batch(examples[:count], pixels[:count], batch.logits[:count])
                # Also of those that are done: without their classes beside them maps differ in the last bits.
                self._explain(source, begin, {item.measure.wants for item in items}, lacking)
        self.known.append(about(batch))

    def _explain(
        self, source: Source | None, batch: Batch, wanted: Iterable[Wants], items: Iterable[_Open]
    ) -> None:
        """Take measures of one method."""
        targets = {wants: targets_of(wants, batch) for wants in sorted(wanted)}
        if source is None:
            maps = {
                wants: torch.zeros((len(batch), 0, 1, 1), device=batch.pixels.device) for wants in targets
            }
        else:
            maps = maps_of(source, self.candidate, batch, targets)
        for item in items:
            wants = item.measure.wants
            started = self._clock()
            records = item.measure.records(batch, targets[wants].to(batch.pixels.device), maps[wants])
            seconds = (self._clock() - started) / len(batch)
            item.lines.append(lines_of(batch, wants, targets[wants], records, seconds))

    def _clock(self) -> float:
        if self.candidate.device.type == "cuda":
            torch.cuda.synchronize(self.candidate.device)
        return time.perf_counter()


def images_of(task: Task, pace: Pace, total: int) -> int:
    """How many images of the order a task is taken on."""
    most = None if task.choice.kind.wants == "nothing" else pace.images
    return min(limit for limit in (total, most, task.choice.limit) if limit is not None)
