"""The stamp that gives a bias away: two networks trained here and now, and where they look."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from examples import bias as example

PICTURES, STEPS = 1200, 200


@pytest.fixture(scope="module")
def balanced() -> example.Parts:
    """Pictures no network has seen."""
    return example.draw_parts(400, example.BALANCED, seed=2)


@pytest.fixture(scope="module")
def findings(balanced: example.Parts) -> dict[float, example.Findings]:
    """Of a network trained on biased pictures, and of one trained on balanced ones."""
    return {
        share: example.examine(
            example.train(example.draw_parts(PICTURES, share), STEPS),
            example.draw_parts(400, share, seed=1),
            balanced,
        )
        for share in (example.BIASED, example.BALANCED)
    }


def test_stamps_are_where_they_are_said_to_be_and_as_often() -> None:
    parts = example.draw_parts(2000, example.BIASED)
    scratches = parts.labels == 1
    assert scratches.sum() == 1000
    assert parts.stamped[scratches].mean() == pytest.approx(0.98, abs=0.02)
    assert parts.stamped[~scratches].mean() == pytest.approx(0.02, abs=0.02)
    plain = example.draw_parts(2000, 0)  # the same parts; the scratches of these have no stamp
    both = scratches & parts.stamped & ~plain.stamped
    changed = (parts.pixels != plain.pixels).any(axis=3)
    assert np.array_equal(changed[both], parts.stamps[both] == 1)
    assert set(parts.stamps[both].sum(axis=(1, 2))) == {36}
    assert (parts.defects.sum(axis=(1, 2)) > 0).all()


def test_the_bias_cannot_be_seen_on_data_that_has_it_too(findings: dict[float, example.Findings]) -> None:
    assert findings[example.BIASED].alike > 0.94
    assert findings[example.BIASED].balanced < 0.65
    assert findings[example.BIASED].odd < 0.3


def test_the_map_shows_it(findings: dict[float, example.Findings]) -> None:
    found = findings[example.BIASED]
    assert found.on_stamp > 6
    assert found.on_stamp > 2 * found.on_defect


def test_balanced_data_heal_it(findings: dict[float, example.Findings]) -> None:
    biased, found = findings[example.BIASED], findings[example.BALANCED]
    assert found.balanced > 0.8
    assert found.odd > 0.7
    assert found.on_defect > 5
    assert found.on_defect > 2 * biased.on_defect
    assert found.of_stamp < biased.of_stamp / 2


def test_training_leaves_the_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    example.train(example.draw_parts(8, example.BALANCED), 1)
    assert torch.rand(1) == expected


def test_the_command_draws_a_picture(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(example, "PICTURES", 64)
    monkeypatch.setattr(example, "TESTED", 64)
    monkeypatch.setattr(example, "STEPS", 2)
    example.main(["--out", str(tmp_path / "maps.png")])
    said = capsys.readouterr().out
    assert said.count("of those whose stamp misleads") == 2
    assert "maps of 4 pictures" in said
    with Image.open(tmp_path / "maps.png") as drawn:
        assert min(drawn.size) > 300
