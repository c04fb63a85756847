import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from konkyo.errors import BundleError
from konkyo.export.bundle import Origin, write_bundle
from konkyo.export.onnx import OnnxModel
from konkyo.models.bundle import read_bundle
from konkyo.models.card import Accuracy
from konkyo.models.loading import load_explained

LABELS = ("good", "crack", "dent", "stain")
FILES = {"model.onnx", "weights.safetensors", "canary.png"}


def origin_of(network):
    return Origin(
        architecture=network.architecture,
        arguments=network.arguments,
        labels=LABELS,
        method=network.model.explanation.name,
        data="parts",
        licence="CC0",
        command="konkyo train",
        epochs=3,
        resize_mode="squash",
    )


@pytest.fixture(scope="session")
def written(network, images, tmp_path_factory):
    out = tmp_path_factory.mktemp("zoo") / "parts" / "7"
    bundle, _ = write_bundle(
        out,
        network.model.classifier.state_dict(),
        images,
        origin_of(network),
        measure=lambda graph: Accuracy(0.75, 12, 0.5, 0.25),
    )
    return bundle


@pytest.fixture(scope="session")
def gcm(make):
    return make("gcm")


@pytest.fixture(scope="session")
def gcm_bundle(gcm, images, tmp_path_factory):
    out = tmp_path_factory.mktemp("gcm") / "parts" / "1"
    bundle, _ = write_bundle(out, gcm.model.classifier.state_dict(), images, origin_of(gcm))
    return bundle


@pytest.fixture
def copy(gcm_bundle, tmp_path):
    """A bundle of its own to damage."""
    return shutil.copytree(gcm_bundle.path, tmp_path / "1")


def rewrite(path, **changes):
    card = json.loads((path / "card.json").read_text())
    (path / "card.json").write_text(json.dumps(card | changes))


def test_a_bundle_is_these_files_with_their_digests(written):
    assert {path.name for path in written.path.iterdir()} == FILES | {"card.json"}
    assert [path.name for path in written.path.parent.iterdir()] == ["7"]  # nothing is left over
    assert written.card.files.keys() == FILES
    for name, entry in written.card.files.items():
        content = (written.path / name).read_bytes()
        assert (entry.sha256, entry.bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    card = (written.path / "card.json").read_bytes()
    assert written.digest == f"sha256:{hashlib.sha256(card).hexdigest()}"
    assert len({(written.path / name).stat().st_mode for name in FILES}) == 1  # as readable as each other


def test_the_card_says_what_was_given(network, written):
    card = written.card
    assert (card.name, card.version, card.labels) == ("parts", "7", LABELS)
    assert (card.architecture, card.arguments) == (network.architecture, network.arguments)
    assert (card.input.width, card.input.height, card.input.resize_mode) == (24, 16, "squash")
    black_is_zero = network.architecture == "gcm"
    statistics = ((0,) * 3, (1,) * 3) if black_is_zero else ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert card.input.mean == pytest.approx(statistics[0])
    assert card.input.std == pytest.approx(statistics[1])
    origin = card.provenance
    assert (origin.data, origin.licence, origin.command, origin.epochs) == ("parts", "CC0", "konkyo train", 3)
    assert (origin.accuracy, origin.accuracy_images) == (0.75, 12)
    assert (origin.balanced_accuracy, origin.kappa) == (0.5, 0.25)
    assert origin.parameters == sum(parameter.numel() for parameter in network.model.parameters())
    assert 0 < origin.parity < 1e-5


def test_the_range_is_that_of_the_predicted_classes_maps(network, written, images):
    with torch.no_grad():
        logits = network.model.classifier(torch.from_numpy(images))
        _, maps = network.model(torch.from_numpy(images), logits.argmax(dim=1, keepdim=True))
    spec = written.card.explanation
    low, high = maps.min().item(), maps.max().item()
    assert spec.range == pytest.approx((low, high), abs=1e-5 * (high - low))
    assert spec.method == network.model.explanation.name
    assert spec.map_kind == network.model.explanation.map_kind
    explanation = network.model.explanation
    assert spec.class_specific == explanation.class_specific
    assert (spec.takes_attention, spec.scales) == (explanation.takes_attention, explanation.scales)
    assert (network.architecture, spec.scales, spec.takes_attention) in {
        ("gcm", 1, False),
        ("cnn", 1, False),
        ("multiscale-abn", 2, True),
    }
    if network.arguments.get("clipped"):
        assert spec.range[0] == 0


def test_the_canary_gives_the_logits_of_the_card(network, written):
    with Image.open(written.path / "canary.png") as file:
        canary = np.array(file)
    assert canary.shape == (16, 24, 3)
    logits, maps = OnnxModel((written.path / "model.onnx").read_bytes())(canary[None], np.array([[-1]]))
    assert tuple(logits[0].tolist()) == written.card.canary.logits
    assert np.ptp(maps) > 0
    with torch.no_grad():
        expected = network.model.classifier(torch.from_numpy(canary[None]))[0].numpy()
    np.testing.assert_allclose(logits[0], expected, rtol=0, atol=1e-5 * np.ptp(expected))


def test_both_runtimes_load_the_same_network(written, images):
    explained = load_explained(written)
    assert not explained.training
    targets = np.array([[-1, 2]] * 12)
    logits, maps = OnnxModel((written.path / "model.onnx").read_bytes())(images, targets)
    with torch.no_grad():
        expected = explained(torch.from_numpy(images), torch.from_numpy(targets))
    np.testing.assert_allclose(logits, expected[0], rtol=0, atol=1e-5 * np.ptp(logits))
    np.testing.assert_allclose(maps, expected[1], rtol=0, atol=1e-5 * np.ptp(maps))


def test_weights_arrive_unchanged(network, written):
    found = load_explained(written).classifier.state_dict()
    expected = network.model.classifier.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_reading_verifies(gcm_bundle, copy):
    assert read_bundle(copy).card == gcm_bundle.card
    assert read_bundle(copy).digest == gcm_bundle.digest


@pytest.mark.parametrize("name", sorted(FILES | {"card.json"}))
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(BundleError, match=rf"{name}: cannot be read: No such file") as caught:
        read_bundle(copy)
    assert caught.value.detail["file"] == name


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_truncated_file_is_named(copy, name):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[:-1])
    with pytest.raises(BundleError, match=rf"{name}: truncated: {len(content) - 1} of {len(content)} bytes"):
        read_bundle(copy)


@pytest.mark.parametrize("name", sorted(FILES))
def test_an_altered_file_is_named(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name}: altered"):
        read_bundle(copy)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "Invalid JSON"), ("{}", "name: Field required"), ("[]", "should be an object")],
)
def test_a_card_that_is_none_is_refused_in_one_line(copy, text, message):
    (copy / "card.json").write_text(text)
    with pytest.raises(BundleError, match=rf"card\.json: not a valid card: .*{message}") as caught:
        read_bundle(copy)
    assert "\n" not in caught.value.message


def test_an_unknown_field_in_the_card_is_refused(copy):
    rewrite(copy, mood="good")
    with pytest.raises(
        BundleError, match=r"card\.json: not a valid card: mood: Extra inputs are not permitted"
    ):
        read_bundle(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "nope"}, "no network as described: unknown network 'nope'"),
        ({"architecture": "cnn", "arguments": {}}, "CNN"),
        ({"arguments": {"widths": 3}}, "unexpected keyword argument 'widths'"),
        (
            {"arguments": {"encoder": [[8, 2]], "decoder": [[8, 1]]}},
            "divides by 2 but the decoder multiplies by 1",
        ),
        (
            {"arguments": {"encoder": [[8, 1]], "decoder": [[8, 1]]}},
            r"weights\.safetensors: .* is not part of it",
        ),
        ({"arguments": {}}, r"weights\.safetensors: .* is missing"),
    ],
)
def test_a_card_of_another_network_is_refused(copy, changes, message):
    rewrite(copy, **changes)
    with pytest.raises(BundleError, match=message):
        load_explained(read_bundle(copy))


def test_weights_for_other_classes_are_refused(copy, gcm_bundle):
    rewrite(copy, labels=LABELS[:3], canary={"file": "canary.png", "logits": [0, 1, 2]})
    message = (
        r"for 3 classes: network\.class_layer\.weight is float32\[4, .* instead of float32\[3, 6, 3, 3\]"
    )
    with pytest.raises(BundleError, match=message):
        load_explained(read_bundle(copy))


def test_weights_that_are_no_safetensors_are_refused(copy):
    (copy / "weights.safetensors").write_bytes(b"nothing of the kind")
    entry = {"sha256": hashlib.sha256(b"nothing of the kind").hexdigest(), "bytes": 19}
    files = json.loads((copy / "card.json").read_text())["files"]
    rewrite(copy, files=files | {"weights.safetensors": entry})
    with pytest.raises(BundleError, match=r"weights\.safetensors: cannot be read"):
        load_explained(read_bundle(copy))


def test_a_bundle_without_weights_says_so(copy):
    files = json.loads((copy / "card.json").read_text())["files"]
    del files["weights.safetensors"]
    rewrite(copy, files=files)
    with pytest.raises(BundleError, match=r"names no weights\.safetensors"):
        load_explained(read_bundle(copy))


def write_again(network, images, out, **changes):
    return write_bundle(out, network.model.classifier.state_dict(), images, origin_of(network), **changes)


def test_a_bundle_is_replaced_only_when_told_to(gcm, images, copy):
    before = read_bundle(copy)
    with pytest.raises(BundleError, match="a bundle here already; use --force"):
        write_again(gcm, images, copy, name="parts")
    assert read_bundle(copy).digest == before.digest
    after, _ = write_again(gcm, images, copy, name="other", force=True)
    assert read_bundle(copy).card.name == after.card.name == "other"
    assert [path.name for path in copy.parent.iterdir()] == ["1"]


def test_what_is_no_bundle_is_never_replaced(gcm, images, tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "thesis.txt").write_text("ten years")
    with pytest.raises(BundleError, match="something here that is not a bundle"):
        write_again(gcm, images, tmp_path / "1", name="parts", force=True)
    assert (tmp_path / "1" / "thesis.txt").read_text() == "ten years"


def test_a_failure_leaves_what_was_there(gcm, images, copy):
    before = read_bundle(copy)

    def fail(graph):
        raise ValueError("no data")

    with pytest.raises(ValueError, match="no data"):
        write_again(gcm, images, copy, name="parts", measure=fail, force=True)
    assert [path.name for path in copy.parent.iterdir()] == ["1"]
    assert read_bundle(copy).digest == before.digest


@pytest.mark.parametrize(
    ("out", "message"),
    [("Parts/1", "'Parts' cannot be the name"), ("parts/v1", "'v1' cannot be the version")],
)
def test_names_that_cannot_be_served_are_refused_before_any_work(gcm, images, tmp_path, out, message):
    with pytest.raises(BundleError, match=message):
        write_again(gcm, images, tmp_path / out)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_do_not_fit_are_refused(gcm, images, tmp_path):
    origin = replace(origin_of(gcm), labels=LABELS[:2])
    with pytest.raises(BundleError, match="not the weights of gcm for 2 classes"):
        write_bundle(tmp_path / "parts" / "1", gcm.model.classifier.state_dict(), images, origin)
    assert list((tmp_path / "parts").iterdir()) == []


def test_a_card_that_cannot_be_written_is_refused_in_one_line(gcm, images, tmp_path):
    origin = replace(origin_of(gcm), labels=("good", "good", "dent", "stain"))
    with pytest.raises(BundleError, match=r"no valid card can be written: .*labels repeat"):
        write_bundle(tmp_path / "parts" / "1", gcm.model.classifier.state_dict(), images, origin)
