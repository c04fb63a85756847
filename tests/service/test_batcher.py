"""Every promise of the batcher. Nothing here sleeps: an engine waits at a gate until told."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from faults import Clock, Gate

from konkyo.errors import (
    DeadlineExceeded,
    DeadlineUnreachable,
    Draining,
    InferenceFailed,
    KonkyoError,
    NotReady,
    QueueFull,
)
from konkyo.service.batcher import MAX_CELLS, Answer, Batcher, Execution
from konkyo.service.engines.base import Float32, Int64, Outputs, UInt8

Fault = Callable[[list[int], Outputs], Outputs]


def image(number: int) -> UInt8:
    """An image that says which one it is."""
    return np.full((1, 2, 3), [number // 256, number % 256, 0], np.uint8)


class Numbers:
    """Image n: logits (n, 2 n), a map [[n, t]] for each target t, −1 left as it is.

    With edited maps in the batch, [[n, e]] with e the mean of the image's own instead.
    """

    name, device, faithful = "numbers", "cpu", True

    def __init__(self) -> None:
        self.gate = Gate()
        self.batches: list[list[int]] = []
        self.edits: list[Float32 | None] = []
        self.most_at_once = 0
        self.fault: Fault | None = None
        self._inside = 0
        self._lock = threading.Lock()

    def run(self, images: UInt8, targets: Int64, attention: Float32 | None = None) -> Outputs:
        with self._lock:
            self._inside += 1
            self.most_at_once = max(self.most_at_once, self._inside)
        try:
            numbers = [int(one[0, 0, 0]) * 256 + int(one[0, 0, 1]) for one in images]
            self.batches.append(numbers)
            self.edits.append(attention)
            self.gate.pass_through()
            column = np.asarray(numbers, np.float32)
            second = targets.astype(np.float32)
            if attention is not None:
                second = np.broadcast_to(attention.mean(axis=(1, 2))[:, None], targets.shape)
            maps = np.stack([np.broadcast_to(column[:, None], targets.shape), second], axis=-1)
            outputs = Outputs(np.stack([column, 2 * column], axis=1), maps[:, :, None])
            return self.fault(numbers, outputs) if self.fault else outputs
        finally:
            with self._lock:
                self._inside -= 1

    def warm_up(self) -> None: ...

    def close(self) -> None: ...

    @property
    def seen(self) -> list[int]:
        return [number for batch in self.batches for number in batch]


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    # Two threads, so that only the lease keeps two batches apart.
    with ThreadPoolExecutor(2) as executor:
        yield executor


class Desk:
    """Makes batchers in front of one engine, and submits to them in the background."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self.engine = Numbers()
        self.executions: list[Execution] = []
        self.batchers: list[Batcher] = []
        self._executor = executor
        self._lease = asyncio.Lock()

    def batcher(self, **changes: Any) -> Batcher:
        options: dict[str, Any] = {
            "max_batch": 8,
            "capacity": 100,
            "lease": self._lease,
            "executor": self._executor,
            "on_execution": self.executions.append,
        }
        batcher = Batcher(self.engine, **{**options, **changes})
        batcher.start()
        self.batchers.append(batcher)
        return batcher

    async def hold(self, batcher: Batcher) -> asyncio.Task[Answer]:
        """Occupy the engine with image 0."""
        self.engine.gate.shut()
        task = (await self.submit(batcher, [0]))[0]
        await self.engine.gate.entered()
        return task

    async def submit(
        self,
        batcher: Batcher,
        numbers: Sequence[int],
        targets: Sequence[int] = (),
        deadline: float | None = None,
        attention: Float32 | None = None,
    ) -> list[asyncio.Task[Answer]]:
        tasks = [
            asyncio.create_task(
                batcher.submit(image(number), targets, attention=attention, deadline=deadline)
            )
            for number in numbers
        ]
        await asyncio.sleep(0)  # each runs up to where it waits
        return tasks

    def fails(self, *poison: int) -> None:
        """From now on a batch with any of these fails."""

        def fault(numbers: list[int], outputs: Outputs) -> Outputs:
            if set(poison) & set(numbers):
                raise ValueError("poison")
            return outputs

        self.engine.fault = fault


@pytest.fixture
async def desk(executor: ThreadPoolExecutor) -> Any:
    desk = Desk(executor)
    yield desk
    desk.engine.gate.open()
    for batcher in desk.batchers:
        await batcher.close()


async def outcomes(tasks: Sequence[asyncio.Task[Answer]]) -> list[Any]:
    """The number each answer is of, or the type of the error; everybody within the patience."""
    async with asyncio.timeout(20):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    return [int(result.logits[0]) if isinstance(result, Answer) else type(result) for result in results]


# batches


async def test_images_times_targets_are_bounded_where_that_takes_the_memory(desk: Desk) -> None:
    batcher = desk.batcher(max_batch=8, max_maps=6)
    tasks = [await desk.hold(batcher)]
    for number, width in enumerate([2, 2, 4, 2, 9, 0, 1], start=1):
        tasks += await desk.submit(batcher, [number], targets=[0] * width)
    desk.engine.gate.open()
    assert await outcomes(tasks) == list(range(8))
    # Of what would make a batch too wide the first in the queue goes first, the others wait.
    assert desk.engine.batches == [[0], [1, 2, 4], [3], [5], [6, 7]]


@pytest.mark.parametrize("stage", ["forward", "explain"])
async def test_the_time_of_a_batch_is_that_of_its_stage(desk: Desk, stage: Any) -> None:
    (answer,) = [await task for task in await desk.submit(desk.batcher(stage=stage), [1])]
    seconds = {"forward": answer.forward_seconds, "explain": answer.explain_seconds}
    assert seconds.pop(stage) > 0
    assert list(seconds.values()) == [0]


@pytest.mark.usefixtures("clock")  # stands still: a timer could never fire
async def test_an_idle_server_never_waits(desk: Desk) -> None:
    batcher = desk.batcher(max_batch=8)
    answer = await batcher.submit(image(7))
    assert answer.logits.tolist() == [7, 14]
    assert answer.batch_size == 1
    assert answer.queue_seconds == 0
    assert desk.engine.batches == [[7]]


async def test_what_arrives_while_the_engine_is_busy_forms_full_batches_in_order(desk: Desk) -> None:
    batcher = desk.batcher(max_batch=4)
    tasks = [await desk.hold(batcher), *await desk.submit(batcher, range(1, 11))]
    assert batcher.depth == 10
    desk.engine.gate.open()
    assert await outcomes(tasks) == list(range(11))
    assert desk.engine.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    assert [task.result().batch_size for task in tasks] == [1, 4, 4, 4, 4, 4, 4, 4, 4, 2, 2]
    assert [execution.size for execution in desk.executions] == [1, 4, 4, 2]
    assert batcher.depth == 0


async def test_batchers_of_one_engine_take_turns_and_wait_with_their_batch(desk: Desk) -> None:
    first, second = desk.batcher(), desk.batcher()
    held = await desk.hold(first)
    early = await desk.submit(second, [1])
    assert second.depth == 1  # not taken: it would miss the company of what still arrives
    late = await desk.submit(second, [2, 3])
    again = await desk.submit(first, [4])
    desk.engine.gate.open()
    assert await outcomes([held, *early, *late, *again]) == [0, 1, 2, 3, 4]
    assert desk.engine.batches == [[0], [1, 2, 3], [4]]
    assert desk.engine.most_at_once == 1


async def test_many_batchers_never_run_together(desk: Desk) -> None:
    batchers = [desk.batcher(max_batch=3) for _ in range(4)]
    tasks = [task for n in range(40) for task in await desk.submit(batchers[n % 4], [n])]
    assert await outcomes(tasks) == list(range(40))
    assert desk.engine.most_at_once == 1


async def test_everyone_gets_their_own_answer(desk: Desk) -> None:
    batcher = desk.batcher(max_batch=16, capacity=600)
    tasks = [
        task
        for number in range(600)
        for task in await desk.submit(batcher, [number], targets=tuple(range(number % 4)))
    ]
    assert await outcomes(tasks) == list(range(600))
    for number, task in enumerate(tasks):
        assert task.result().maps.tolist() == [[[number, target]] for target in range(number % 4)]


async def test_targets_of_different_lengths_share_a_batch(desk: Desk) -> None:
    batcher = desk.batcher()
    held = await desk.hold(batcher)
    wanted: list[tuple[int, ...]] = [(), (3,), (-1,), (5, 4, 3), (9, -1)]
    tasks = [task for n, targets in enumerate(wanted, 1) for task in await desk.submit(batcher, [n], targets)]
    desk.engine.gate.open()
    assert await outcomes([held, *tasks]) == [0, 1, 2, 3, 4, 5]
    assert desk.engine.batches == [[0], [1, 2, 3, 4, 5]]
    assert [task.result().maps[:, 0, 1].tolist() for task in tasks] == [[], [3], [-1], [5, 4, 3], [9, -1]]


async def test_maps_that_are_not_one_a_target_are_all_kept(desk: Desk) -> None:
    def three_scales(numbers: list[int], outputs: Outputs) -> Outputs:
        scales = np.arange(3, dtype=np.float32)
        maps = np.asarray(numbers, np.float32)[:, None] * 10 + scales
        return Outputs(outputs.logits, maps[:, :, None, None])

    desk.engine.fault = three_scales
    batcher = desk.batcher(map_per_target=False)
    tasks = [*await desk.submit(batcher, [1]), *await desk.submit(batcher, [2], targets=(4,))]
    await outcomes(tasks)
    assert [task.result().maps.ravel().tolist() for task in tasks] == [[10, 11, 12], [20, 21, 22]]


# edited maps


def edit(side: int, value: float = 0.5) -> Float32:
    """A square one of a single value."""
    return np.full((side, side), value, np.float32)


async def test_who_brings_no_edited_map_shares_a_batch_with_who_does(desk: Desk) -> None:
    batcher = desk.batcher()
    held = await desk.hold(batcher)
    tasks = [
        *await desk.submit(batcher, [1], (0,)),
        *await desk.submit(batcher, [2], (0,), attention=edit(3, 0.25)),
        *await desk.submit(batcher, [3], (0,), attention=edit(3, 0.75)),
        *await desk.submit(batcher, [4], (0,)),
    ]
    desk.engine.gate.open()
    assert await outcomes([held, *tasks]) == [0, 1, 2, 3, 4]
    assert desk.engine.batches == [[0], [1, 2, 3, 4]]
    assert desk.engine.edits[0] is None
    given = desk.engine.edits[1]
    assert given is not None
    assert (given.shape, given.dtype) == ((4, 3, 3), np.float32)
    assert given.mean(axis=(1, 2)).tolist() == [-1, 0.25, 0.75, -1]  # −1: the network's own value
    assert [task.result().maps[0, 0, 1] for task in tasks] == [-1, 0.25, 0.75, -1]


async def test_edited_maps_of_another_size_wait_in_order_and_nobody_starves(desk: Desk) -> None:
    batcher = desk.batcher(max_batch=4)
    held = await desk.hold(batcher)
    sides = {1: 3, 2: 5, 3: None, 4: 5, 5: 3, 6: 7, 7: None, 8: 5, 9: 3}
    tasks = [
        task
        for number, side in sides.items()
        for task in await desk.submit(batcher, [number], attention=edit(side) if side else None)
    ]
    desk.engine.gate.open()
    assert await outcomes([held, *tasks]) == list(range(10))
    assert desk.engine.batches == [[0], [1, 3, 5, 7], [2, 4, 8], [6], [9]]


async def test_a_stream_of_one_size_does_not_hold_up_another(desk: Desk) -> None:
    batcher = desk.batcher(max_batch=2)
    held = await desk.hold(batcher)
    odd = (await desk.submit(batcher, [99], attention=edit(9)))[0]
    stream = [task for n in range(1, 9) for task in await desk.submit(batcher, [n], attention=edit(2))]
    desk.engine.gate.open()
    assert await outcomes([held, odd, *stream]) == [0, 99, *range(1, 9)]
    assert desk.engine.batches[1] == [99]  # the first in the queue is always taken


async def test_large_edited_maps_make_small_batches(desk: Desk) -> None:
    batcher = desk.batcher(max_batch=8)
    held = await desk.hold(batcher)
    large = edit(1024)
    tasks = [
        *await desk.submit(batcher, [1, 2]),
        *await desk.submit(batcher, [3, 4, 5, 6, 7], attention=large),
        *await desk.submit(batcher, [8, 9]),
    ]
    desk.engine.gate.open()
    assert await outcomes([held, *tasks]) == list(range(10))
    assert desk.engine.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9]]
    sizes = [given.size for given in desk.engine.edits if given is not None]
    assert sizes == [MAX_CELLS, MAX_CELLS]


async def test_late_and_cancelled_edits_cost_nothing(desk: Desk, clock: Clock) -> None:
    batcher = desk.batcher()
    held = await desk.hold(batcher)
    late = await desk.submit(batcher, [1], deadline=clock.now() + 5, attention=edit(3))
    leaver = await desk.submit(batcher, [2], attention=edit(4))
    stayer = await desk.submit(batcher, [3], attention=edit(5))
    leaver[0].cancel()
    await clock.advance(6)
    desk.engine.gate.open()
    assert await outcomes([held, *late, *leaver, *stayer]) == [
        0, DeadlineExceeded, asyncio.CancelledError, 3,
    ]  # fmt: skip
    assert desk.engine.batches == [[0], [3]]


async def test_a_poisoned_edit_fails_alone(desk: Desk) -> None:
    batcher = desk.batcher()
    held = await desk.hold(batcher)
    desk.fails(3)
    tasks = [
        task
        for number in range(1, 5)
        for task in await desk.submit(batcher, [number], (0,), attention=edit(2) if number % 2 else None)
    ]
    desk.engine.gate.open()
    assert await outcomes([held, *tasks]) == [0, 1, 2, InferenceFailed, 4]
    assert desk.engine.batches == [[0], [1, 2, 3, 4], [1, 2], [3, 4], [3], [4]]
    assert [given is None for given in desk.engine.edits] == [True, False, False, False, False, True]


# who leaves, and who is late


async def test_cancelled_in_the_queue_costs_nothing_and_frees_the_place_at_once(desk: Desk) -> None:
    batcher = desk.batcher(capacity=2)
    held = await desk.hold(batcher)
    first, second = await desk.submit(batcher, [1, 2])
    assert await outcomes(await desk.submit(batcher, [3])) == [QueueFull]
    first.cancel()
    assert await outcomes([first]) == [asyncio.CancelledError]
    assert batcher.depth == 1
    third = await desk.submit(batcher, [4])
    desk.engine.gate.open()
    assert await outcomes([held, second, *third]) == [0, 2, 4]
    assert desk.engine.batches == [[0], [2, 4]]


async def test_cancelled_in_the_moment_before_the_engine_comes(desk: Desk) -> None:
    batcher = desk.batcher()
    leaver, stayer = await desk.submit(batcher, [1, 2])
    leaver.cancel()  # the batch is made before the caller's task wakes up to leave the queue
    assert await outcomes([leaver, stayer]) == [asyncio.CancelledError, 2]
    assert desk.engine.batches == [[2]]


async def test_cancelled_mid_batch_leaves_the_others_alone(desk: Desk) -> None:
    batcher = desk.batcher()
    desk.engine.gate.shut()
    tasks = await desk.submit(batcher, [1, 2, 3])
    await desk.engine.gate.entered()
    tasks[1].cancel()
    assert await outcomes([tasks[1]]) == [asyncio.CancelledError]  # while the engine is still at it
    desk.engine.gate.open()
    assert await outcomes([tasks[0], tasks[2]]) == [1, 3]
    assert desk.engine.batches == [[1, 2, 3]]
    assert await outcomes(await desk.submit(batcher, [4])) == [4]


async def test_overdue_in_the_queue_is_told_at_once_and_never_computed(desk: Desk, clock: Clock) -> None:
    batcher = desk.batcher()
    held = await desk.hold(batcher)
    late = await desk.submit(batcher, [1, 2], deadline=clock.now() + 5)
    patient = await desk.submit(batcher, [3], deadline=clock.now() + 500)
    await clock.advance(6)
    assert await outcomes(late) == [DeadlineExceeded] * 2  # while the engine is still held
    assert batcher.depth == 1
    desk.engine.gate.open()
    assert await outcomes([held, *patient]) == [0, 3]
    assert desk.engine.batches == [[0], [3]]


async def test_overdue_mid_batch(desk: Desk, clock: Clock) -> None:
    batcher = desk.batcher()
    desk.engine.gate.shut()
    late, patient = (
        asyncio.create_task(batcher.submit(image(number), deadline=clock.now() + seconds))
        for number, seconds in ((1, 5), (2, 500))
    )
    await desk.engine.gate.entered()
    await clock.advance(6)
    assert await outcomes([late]) == [DeadlineExceeded]
    desk.engine.gate.open()
    assert await outcomes([patient]) == [2]
    assert desk.engine.batches == [[1, 2]]


async def test_a_deadline_that_has_passed_is_refused(desk: Desk, clock: Clock) -> None:
    batcher = desk.batcher()
    assert await outcomes(await desk.submit(batcher, [1], deadline=clock.now())) == [DeadlineExceeded]
    assert desk.engine.batches == []


# a full queue


async def test_a_full_queue_refuses_at_once_and_keeps_what_it_took(desk: Desk) -> None:
    batcher = desk.batcher(capacity=5, max_batch=2)
    held = await desk.hold(batcher)
    accepted = await desk.submit(batcher, range(1, 6))
    refused = await desk.submit(batcher, range(6, 13))
    assert all(task.done() for task in refused)
    assert await outcomes(refused) == [QueueFull] * 7
    assert batcher.depth == 5
    desk.engine.gate.open()
    assert await outcomes([held, *accepted]) == [0, 1, 2, 3, 4, 5]
    assert sorted(desk.engine.seen) == [0, 1, 2, 3, 4, 5]
    assert await outcomes(await desk.submit(batcher, [13])) == [13]


# failures


@pytest.mark.parametrize(
    ("poison", "runs"),
    [
        ({5}, 7),  # 8, 4, 2, 1 on the way down to it, and the good 4, 2 and 1 beside
        ({1, 8}, 11),  # 8; twice 4, 2, 1, 1, 2
        ({1, 2}, 7),  # 8; 4, 2, 1, 1; 2; 4
        ({1, 2, 3, 4, 5, 6, 7, 8}, 15),  # every node of the tree
    ],
)
async def test_poisoned_items_fail_alone(desk: Desk, poison: set[int], runs: int) -> None:
    batcher = desk.batcher()
    held = await desk.hold(batcher)
    tasks = await desk.submit(batcher, range(1, 9))
    desk.fails(*poison)
    desk.engine.gate.open()
    expected = [InferenceFailed if number in poison else number for number in range(1, 9)]
    assert await outcomes([held, *tasks]) == [0, *expected]
    assert len(desk.engine.batches) == 1 + runs
    failed = sum(execution.error is not None for execution in desk.executions)
    assert failed == sum(1 for batch in desk.engine.batches if poison & set(batch))
    cause = tasks[min(poison) - 1].exception()
    assert cause is not None
    assert isinstance(cause.__cause__, ValueError)


async def test_the_cancelled_are_not_retried(desk: Desk) -> None:
    batcher = desk.batcher()
    desk.fails(4)
    desk.engine.gate.shut()
    tasks = await desk.submit(batcher, [1, 2, 3, 4])
    await desk.engine.gate.entered()
    tasks[0].cancel()
    tasks[1].cancel()
    desk.engine.gate.open()
    assert await outcomes(tasks) == [asyncio.CancelledError, asyncio.CancelledError, 3, InferenceFailed]
    assert desk.engine.batches == [[1, 2, 3, 4], [3, 4], [3], [4]]


async def test_an_engine_that_always_fails_and_then_recovers(desk: Desk) -> None:
    batcher = desk.batcher()
    desk.fails(*range(20))
    assert await outcomes(await desk.submit(batcher, range(10))) == [InferenceFailed] * 10
    assert batcher.alive
    assert batcher.failing
    desk.fails()
    assert await outcomes(await desk.submit(batcher, [3])) == [3]
    assert not batcher.failing


@pytest.mark.parametrize("error", [StopIteration(), CancelledError(), TimeoutError("engine")])
async def test_errors_that_mean_something_to_a_future_are_failures_like_others(
    desk: Desk, error: Exception
) -> None:
    def fault(numbers: list[int], outputs: Outputs) -> Outputs:
        raise error

    desk.engine.fault = fault
    batcher = desk.batcher()
    assert await outcomes(await desk.submit(batcher, [1, 2])) == [InferenceFailed] * 2
    desk.engine.fault = None
    assert await outcomes(await desk.submit(batcher, [3])) == [3]


@pytest.mark.parametrize("change", [-1, 1])
@pytest.mark.parametrize("part", ["logits", "maps"])
async def test_outputs_of_the_wrong_length_are_never_delivered(desk: Desk, part: str, change: int) -> None:
    def fault(numbers: list[int], outputs: Outputs) -> Outputs:
        parts = {"logits": outputs.logits, "maps": outputs.maps}
        parts[part] = parts[part][:change] if change < 0 else np.concatenate([parts[part], parts[part][:1]])
        return Outputs(**parts)

    desk.engine.fault = fault
    batcher = desk.batcher()
    tasks = await desk.submit(batcher, [1, 2, 3], targets=(1,))
    assert await outcomes(tasks) == [InferenceFailed] * 3
    assert "for 1 images" in str(tasks[0].exception())


async def test_out_of_memory_halves_the_batch(desk: Desk) -> None:
    def small_memory(numbers: list[int], outputs: Outputs) -> Outputs:
        if len(numbers) > 2:
            raise MemoryError
        return outputs

    desk.engine.fault = small_memory
    batcher = desk.batcher()
    tasks = await desk.submit(batcher, range(8))
    assert await outcomes(tasks) == list(range(8))
    assert [len(batch) for batch in desk.engine.batches] == [8, 4, 2, 2, 4, 2, 2]
    assert [task.result().batch_size for task in tasks] == [2] * 8
    assert not batcher.failing


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
async def test_logits_that_are_not_finite_fail_alone(desk: Desk, value: float) -> None:
    def fault(numbers: list[int], outputs: Outputs) -> Outputs:
        outputs.logits[numbers.index(2), 1] = value
        return outputs

    desk.engine.fault = fault
    tasks = await desk.submit(desk.batcher(), [1, 2, 3])
    assert await outcomes(tasks) == [1, InferenceFailed, 3]
    assert desk.engine.batches == [[1, 2, 3]]


async def test_images_of_different_sizes_fail_without_harm(desk: Desk) -> None:
    batcher = desk.batcher()
    odd = asyncio.create_task(batcher.submit(np.zeros((3, 3, 3), np.uint8)))
    tasks = [odd, *await desk.submit(batcher, [4, 5])]
    assert await outcomes(tasks) == [0, 4, 5]  # halved until each batch can be stacked


# the end


async def test_close_finishes_what_was_accepted_and_takes_nothing_new(desk: Desk) -> None:
    batcher = desk.batcher(max_batch=2)
    tasks = [await desk.hold(batcher), *await desk.submit(batcher, range(1, 6))]
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    assert await outcomes(await desk.submit(batcher, [6])) == [Draining]
    assert not closing.done()
    desk.engine.gate.open()
    assert await outcomes(tasks) == [0, 1, 2, 3, 4, 5]
    await closing
    assert not batcher.alive


async def test_close_with_limited_patience_leaves_nobody_waiting(desk: Desk, clock: Clock) -> None:
    batcher = desk.batcher(max_batch=2)
    tasks = [await desk.hold(batcher), *await desk.submit(batcher, range(1, 6))]
    closing = asyncio.create_task(batcher.close(patience=30))
    await asyncio.sleep(0)
    await clock.advance(31)
    await closing
    assert await outcomes(tasks) == [Draining] * 6
    assert batcher.depth == 0
    desk.engine.gate.open()


async def test_close_is_harmless_at_any_time(desk: Desk) -> None:
    idle = desk.batcher()
    await idle.close()
    await idle.close()
    assert await outcomes(await desk.submit(idle, [1])) == [Draining]

    unstarted = Batcher(
        desk.engine, max_batch=1, capacity=1, lease=asyncio.Lock(), executor=ThreadPoolExecutor(1)
    )
    assert not unstarted.alive
    assert await outcomes(await desk.submit(unstarted, [1])) == [NotReady]
    await unstarted.close()

    busy = desk.batcher()
    held = await desk.hold(busy)
    both = [asyncio.create_task(busy.close()) for _ in range(2)]
    await asyncio.sleep(0)
    desk.engine.gate.open()
    await asyncio.gather(*both)
    assert await outcomes([held]) == [0]


async def test_a_dead_queue_leaves_nobody_waiting(desk: Desk) -> None:
    def observe(execution: Execution) -> None:
        raise SystemError("injected")

    batcher = desk.batcher(max_batch=2, on_execution=observe)
    tasks = [await desk.hold(batcher), *await desk.submit(batcher, range(1, 6))]
    desk.engine.gate.open()
    assert await outcomes(tasks) == [NotReady] * 6
    assert not batcher.alive
    assert batcher.depth == 0
    assert await outcomes(await desk.submit(batcher, [6])) == [NotReady]


# all at once


@pytest.mark.parametrize("seed", range(5))
async def test_exactly_once_in_a_storm(desk: Desk, clock: Clock, seed: int) -> None:
    chance = random.Random(seed)
    poison = set(chance.sample(range(1, 501), 15))
    desk.fails(*poison)
    batcher = desk.batcher(max_batch=7, capacity=40)
    never: set[int] = set()  # those who left the queue before the engine came
    tasks: dict[int, asyncio.Task[Answer]] = {}
    brought: dict[int, float | None] = {}  # the value of the edited map
    for wave in range(10):
        tasks[-wave] = await desk.hold(batcher)
        numbers = range(wave * 50 + 1, wave * 50 + 51)
        for number in numbers:
            deadline = clock.now() + 5 if chance.random() < 0.15 else None
            side = chance.choice([0, 0, 0, 1, 2])
            attention = edit(side, number / 512) if side else None
            tasks[number] = (await desk.submit(batcher, [number], (1,), deadline, attention))[0]
            brought[number] = number / 512 if side else None
            if chance.random() < 0.15:
                leaving = chance.choice(numbers[: number - numbers[0] + 1])
                if not tasks[leaving].done():
                    tasks[leaving].cancel()
                    never.add(leaving)
        if chance.random() < 0.5:
            await clock.advance(6)
            never |= {n for n in numbers if tasks[n].done()}
        desk.engine.gate.open()
        for _ in range(chance.randrange(200)):
            await asyncio.sleep(0)
        for number in chance.sample(numbers, 5):  # wherever they are by now
            tasks[number].cancel()
        await outcomes([tasks[number] for number in numbers] + [tasks[-wave]])

    ends = dict(zip(tasks, await outcomes(list(tasks.values())), strict=True))
    counts = Counter(end if isinstance(end, type) else "answer" for number, end in ends.items() if number > 0)
    assert counts.total() == 500
    assert counts.keys() <= {
        *("answer", QueueFull, DeadlineExceeded, DeadlineUnreachable, InferenceFailed),
        asyncio.CancelledError,
    }
    assert min(counts[kind] for kind in ("answer", QueueFull, InferenceFailed, asyncio.CancelledError)) > 0
    assert all(end == max(number, 0) for number, end in ends.items() if not isinstance(end, type))
    for number, value in brought.items():  # its own edit, or none: the target, or −1 beside others
        if not isinstance(ends[number], type):
            assert tasks[number].result().maps[0, 0, 1] in ([1, -1] if value is None else [value])
    assert {number for number, end in ends.items() if end is InferenceFailed} <= poison
    refused = {number for number, end in ends.items() if end in (QueueFull, DeadlineUnreachable)}
    assert not (never | refused) & set(desk.engine.seen)
    good = [number for batch in desk.engine.batches for number in batch if number and not poison & set(batch)]
    assert len(good) == len(set(good))
    assert batcher.alive
    assert batcher.depth == 0


def test_every_refusal_is_of_the_one_tree() -> None:
    assert all(issubclass(kind, KonkyoError) for kind in (QueueFull, Draining, NotReady, DeadlineExceeded))
