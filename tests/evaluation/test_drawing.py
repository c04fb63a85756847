from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from konkyo.evaluation.drawing import draw

TRUTHS = st.lists(st.integers(0, 3) | st.none(), max_size=40)


@given(TRUTHS, st.integers(0, 9))
def test_every_beginning_is_even_over_the_classes(truths: list[int | None], seed: int) -> None:
    order = draw(truths, seed)
    assert sorted(order) == list(range(len(truths)))
    whole, begun = Counter(truths), Counter[int | None]()
    for position in order:
        begun[truths[position]] += 1
        waiting = [begun[label] for label in whole if begun[label] < whole[label]]
        # Whoever has some left has given as many as anybody, or one less.
        assert all(number >= max(begun.values()) - 1 for number in waiting)


def test_is_of_the_seed() -> None:
    truths = [0] * 50 + [1] * 50
    assert draw(truths, 1) == draw(truths, 1)
    assert draw(truths, 1) != draw(truths, 2)
    assert sorted(draw(truths, 1)[:2]) != sorted(draw(truths, 2)[:2])
