"""``konkyo dissect``: from a bundle and photos with masks to names of neurons in the bundle."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from konkyo.cli import app
from konkyo.export.neurons import write_neurons
from konkyo.models.bundle import CARD, NEURONS, read_bundle
from konkyo.models.neurons import Neurons, read_neurons
from konkyo.service.settings import ZOO

NAMES = Neurons.model_validate(
    {"layer": "encoder", "threshold": 0.05, "neurons": {"3": {"concept": "red", "iou": 0.5}}}
)


def konkyo(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def bundle(tmp_path):
    """A copy of a bundle that ships, to write into."""
    return read_bundle(shutil.copytree(ZOO / "gcm-cifar10" / "1", tmp_path / "gcm-cifar10" / "1"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A red and a blue side, the one as large as the other."""
    root = tmp_path_factory.mktemp("concepts")
    for folder in ("images", "masks/red", "masks/blue"):
        (root / folder).mkdir(parents=True)
    for index in range(6):
        red = np.zeros((32, 32), bool)
        red[:, :16] = index % 2
        red[:, 16:] = not index % 2
        pixels = np.where(red[..., None], (200, 30, 30), (30, 30, 200)).astype(np.uint8)
        for path, content in (("images", pixels), ("masks/red", red), ("masks/blue", ~red)):
            Image.fromarray(content).save(root / path / f"{index}.png")
    return root


def test_names_are_written_and_an_older_list_is_replaced(bundle):
    first = write_neurons(bundle, NAMES)
    assert read_neurons(first) == NAMES
    assert first.card.model_dump(exclude={"files"}) == bundle.card.model_dump(exclude={"files"})
    assert first.card.files == bundle.card.files | {NEURONS: first.card.files[NEURONS]}

    second = write_neurons(first, NAMES.model_copy(update={"threshold": 0.1}))
    assert read_neurons(second).threshold == 0.1
    assert len({bundle.digest, first.digest, second.digest}) == 3
    assert {path.name for path in bundle.path.iterdir()} == {CARD, *second.card.files}


def test_the_command_names_neurons_in_the_bundle(bundle, photos):
    result = konkyo("dissect", bundle.path, "--data", photos, "--quantile", 0.25)
    assert result.exit_code == 0, result.output
    found = read_bundle(bundle.path)
    names = read_neurons(found)
    assert names.layer == "encoder"
    assert names.threshold == 0.05
    assert {item.concept for item in names.neurons.values()} == {"red", "blue"}
    assert f"{len(names.neurons)} of " in result.stdout
    assert "by 6 images; with the masks of other images" in result.stdout
    shown = konkyo("inspect", bundle.path)
    assert shown.exit_code == 0
    assert NEURONS in shown.stdout


def test_to_a_file_of_ones_own_the_bundle_stays_as_it_is(bundle, photos, tmp_path):
    out = tmp_path / "names.json"
    result = konkyo("dissect", bundle.path, "--data", photos, "--out", out, "--threshold", 0.99)
    assert result.exit_code == 0, result.output
    assert json.loads(out.read_text()) == {"layer": "encoder", "threshold": 0.99, "neurons": {}}
    assert read_bundle(bundle.path).digest == bundle.digest


def test_what_is_wrong_is_said_in_one_line(bundle, photos, tmp_path):
    for arguments, message in (
        ((bundle.path, "--data", tmp_path), f"{tmp_path / 'images'}: no images here"),
        ((bundle.path, "--data", photos, "--quantile", 0), "a quantile lies between 0 and 1, not at 0"),
    ):
        result = konkyo("dissect", *arguments)
        assert (result.exit_code, result.stderr) == (1, f"error: {message}\n")
