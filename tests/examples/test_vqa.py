"""A network that answers questions, trained here and now, and the grounds of its answers."""

import numpy as np
import pytest
import torch
from examples.network import as_input
from examples.shapes import ANSWERS, draw_scenes
from looking import looking
from PIL import Image

from examples import vqa as example


@pytest.fixture(scope="module")
def vqa():
    return example.train(draw_scenes(example.PICTURES), example.STEPS)


@pytest.fixture(scope="module")
def scenes():
    """Pictures it has not seen."""
    return draw_scenes(200, seed=1)


@pytest.fixture(scope="module")
def asked(scenes):
    """Pictures, questions and the right answers."""
    return as_input(scenes.pixels), *example.encode_questions(scenes.questions)


def test_questions_as_numbers(scenes, asked):
    _, questions, answers = asked
    assert questions.shape == (200, 4, 6)
    assert [[ANSWERS[answer] for answer in row] for row in answers[:3].tolist()] == [
        [question.answer for question in row] for row in scenes.questions[:3]
    ]


def test_it_answers_questions_about_pictures_it_has_not_seen(vqa, asked):
    image, questions, answers = asked
    with torch.no_grad():
        given = vqa(image, questions).argmax(dim=2)
    assert (given == answers).float().mean() > 0.95


def test_an_answer_rests_on_the_thing_that_is_asked_about(vqa, scenes, asked):
    _, maps = example.explain_answers(vqa, *asked)
    things = np.array([[question.thing for question in row] for row in scenes.questions]).ravel()
    pictures = np.repeat(np.arange(200), 4)
    masks = scenes.masks
    found = looking(maps.flatten(0, 1), masks[pictures, things], masks[pictures, 1 - things])
    assert found.lift > 2.5
    assert found.lift > 2 * found.other
    assert found.pointing > 0.6


def test_other_questions_about_a_picture_have_other_grounds(vqa, asked):
    image, questions, answers = asked
    logits, maps = example.explain_answers(vqa, image, questions, answers)
    with torch.no_grad():
        expected = vqa(image, questions).gather(2, answers[..., None])[..., 0]
    torch.testing.assert_close(logits.float(), expected)
    first, _, second, _ = maps.flatten(2).unbind(dim=1)
    assert torch.cosine_similarity(first, second).median() < 0.5


def test_all_questions_at_once_are_each_alone(vqa, asked):
    image, questions, answers = (part[:3] for part in asked)
    _, maps = example.explain_answers(vqa, image, questions, answers)
    for at in range(4):
        one = slice(at, at + 1)
        _, alone = example.explain_answers(vqa, image, questions[:, one], answers[:, one])
        torch.testing.assert_close(alone, maps[:, one], rtol=1e-4, atol=1e-5)


def test_the_command_draws_a_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(example, "PICTURES", 64)
    monkeypatch.setattr(example, "STEPS", 2)
    example.main(["--out", str(tmp_path / "maps.png")])
    assert "of 2000 questions about new pictures are answered right" in capsys.readouterr().out
    with Image.open(tmp_path / "maps.png") as drawn:
        assert min(drawn.size) > 500
