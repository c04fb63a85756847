from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from konkyo.evaluation.lines import Lines, read_lines

IDENTITY = {"measure": "pointing", "settings": {"tolerance": 15.0}}
LINES = [{"example": name, "value": value} for name, value in [("a", 1.5), ("ä", None), ("c", [1, 2])]]


def test_lines_are_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.jsonl"
    with Lines(path, IDENTITY) as lines:
        lines.append([{"example": "a", "value": np.float64(1.5)}, {"example": "ä", "value": math.nan}])
        lines.append([{"example": "c", "value": np.array([1, 2])}, {"example": "a", "value": 7}])
        assert lines.done == {"a", "ä", "c"}
    assert list(read_lines(path)) == LINES
    with Lines(path, IDENTITY) as lines:
        assert lines.done == {"a", "ä", "c"}
    assert list(read_lines(path)) == LINES


@given(st.data())
def test_whatever_is_torn_off_is_written_again(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("torn") / "a.jsonl"
    with Lines(path, IDENTITY) as lines:
        lines.append(LINES)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with Lines(path, IDENTITY) as lines:
        kept = set(lines.done)
        lines.append(LINES)
    assert path.read_bytes() == whole
    assert sorted(kept) == sorted(["a", "ä", "c"][: len(kept)])  # a beginning of them


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        ({**IDENTITY, "settings": {"tolerance": 0.0}}, r"settings\.tolerance was 15\.0 and is now 0\.0"),
        ({**IDENTITY, "seed": 1}, "seed was null and is now 1"),
        ({"measure": "energy"}, 'measure was "pointing" and is now "energy"'),
    ],
)
def test_other_records_are_refused(tmp_path: Path, identity: dict[str, object], said: str) -> None:
    path = tmp_path / "a.jsonl"
    with Lines(path, IDENTITY) as lines:
        lines.append(LINES)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=said), Lines(path, identity):
        pass
    assert path.read_bytes() == before
    with Lines(path, identity, restart=True) as lines:
        assert lines.done == set()
    assert list(read_lines(path)) == []


@pytest.mark.parametrize("content", [b'{"a": 1}\n', b"[]\n", b"hello\n"])
def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="line 1 is no record"), Lines(path, IDENTITY):
        pass
    assert path.read_bytes() == content


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Lines(path, IDENTITY) as lines:
        lines.append(LINES)
    path.write_bytes(path.read_bytes().replace(b'{"example": "a"', b'{"example": '))
    with (
        pytest.raises(ValueError, match="line 2 is no record; begin anew by --restart"),
        Lines(path, IDENTITY),
    ):
        pass


def test_two_do_not_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    other = Lines(path, IDENTITY)
    with Lines(path, IDENTITY), pytest.raises(BlockingIOError, match="another process writes"):
        other.__enter__()
    with Lines(path, IDENTITY) as lines:
        lines.append(LINES)
    assert json.loads(path.read_text().splitlines()[0])["format"] == "konkyo-records/1"
