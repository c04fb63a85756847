"""A captioner trained here and now, and the grounds of its words."""

import numpy as np
import pytest
import torch
from examples.network import as_input
from examples.shapes import LONGEST, draw_scenes, encode, things_named
from looking import looking
from PIL import Image

from examples import captioner as example


@pytest.fixture(scope="module")
def captioner():
    return example.train(draw_scenes(example.PICTURES), example.STEPS)


@pytest.fixture(scope="module")
def scenes():
    """Pictures it has not seen."""
    return draw_scenes(200, seed=1)


@pytest.fixture(scope="module")
def image(scenes):
    return as_input(scenes.pixels)


@pytest.fixture(scope="module")
def explained(captioner, image, scenes):
    return example.explain_captions(captioner, image, scenes.captions)


def test_it_says_what_is_in_pictures_it_has_not_seen(captioner, image, scenes):
    said = example.caption(captioner, image)
    assert np.mean([text == true for text, true in zip(said, scenes.captions, strict=True)]) > 0.9


@pytest.mark.parametrize(("place", "pointing"), [(1, 0.7), (2, 0.5)], ids=["colours", "shapes"])
def test_a_word_rests_on_the_thing_it_names(explained, scenes, place, pointing):
    _, maps = explained
    rows = [
        (picture, at, thing)
        for picture, text in enumerate(scenes.captions)
        for at, thing in enumerate(things_named(text))
        if thing is not None and at in (place, len(text.split()) - 3 + place)
    ]
    assert len(rows) == 2 * len(maps)
    pictures, positions, things = (np.array(column) for column in zip(*rows, strict=True))
    masks = scenes.masks
    found = looking(maps[pictures, positions], masks[pictures, things], masks[pictures, 1 - things])
    assert found.lift > 2.5
    assert found.lift > 2 * found.other
    assert found.pointing > pointing


def test_the_caption_rests_on_both_things(explained, scenes):
    both = scenes.masks.max(axis=1)
    found = looking(explained[1][:, -1], both, 1 - both)
    assert found.lift > 1.4
    assert found.other < 1
    assert found.pointing > 0.4


def test_the_caption_is_the_sum_of_its_words(explained):
    scores, maps = explained
    torch.testing.assert_close(scores[:, -1], scores[:, :-1].sum(dim=1))
    largest = maps.abs().amax(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(maps[:, -1:] / largest, maps[:, :-1].sum(1, keepdim=True) / largest)
    assert maps[:, -1].abs().amax() > 0


def test_what_a_shorter_caption_has_not_has_no_score_and_no_map(explained, scenes):
    short = [picture for picture, text in enumerate(scenes.captions) if "above" in text]
    assert short
    scores, maps = explained
    assert (scores[short, LONGEST - 1] == 0).all()
    assert (maps[short, LONGEST - 1] == 0).all()
    assert (scores[:, : LONGEST - 1] <= 0).all()  # 0 of a word that could be no other
    assert (scores[:, : LONGEST - 1] < 0).double().mean() > 0.9


def test_maps_are_those_of_the_network_differentiated_by_hand(captioner, image, scenes):
    few = slice(3)
    scores, maps = example.explain_captions(captioner, image[few], scenes.captions[few])
    words = torch.from_numpy(encode([f"<start> {text} <end>" for text in scenes.captions[few]], LONGEST + 1))
    for picture, text in enumerate(scenes.captions[few]):
        row = words[picture : picture + 1]
        features = captioner.look(image[picture : picture + 1]).detach().requires_grad_()
        logits = captioner.decide(features, captioner.read(row[:, :-1])).double().log_softmax(dim=2)[0]
        for at, word in enumerate(row[0, 1 : len(text.split()) + 2]):
            (gradient,) = torch.autograd.grad(logits[at, word], features, retain_graph=True)
            expected = (features * gradient.mean(dim=(2, 3), keepdim=True)).sum(dim=1)[0]
            assert scores[picture, at].item() == pytest.approx(logits[at, word].item(), rel=1e-3, abs=1e-12)
            largest = expected.abs().max()
            assert ((maps[picture, at] - expected).abs().max() <= 2e-3 * largest).item()


def test_nothing_is_left_on_the_network(captioner, image, scenes):
    captioner.zero_grad()
    before = {name: value.clone() for name, value in captioner.state_dict().items()}
    example.explain_captions(captioner, image[:2], scenes.captions[:2])
    assert all(parameter.grad is None for parameter in captioner.parameters())
    assert all(torch.equal(value, before[name]) for name, value in captioner.state_dict().items())
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    assert not any(getattr(module, kind) for module in captioner.modules() for kind in hooks)


def test_the_command_draws_a_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(example, "PICTURES", 64)
    monkeypatch.setattr(example, "STEPS", 2)
    example.main(["--out", str(tmp_path / "maps.png")])
    assert "of 500 new pictures have the right caption" in capsys.readouterr().out
    with Image.open(tmp_path / "maps.png") as drawn:
        assert min(drawn.size) > 500
