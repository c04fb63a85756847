"""What is said of the pictures is so."""

import numpy as np
import pytest
from examples.shapes import COLOURS, LONGEST, SHAPES, SIDE, WORDS, draw_scenes, encode, things_named


@pytest.fixture(scope="module")
def scenes():
    return draw_scenes(200, seed=3)


def test_a_seed_is_a_set_of_pictures(scenes):
    again = draw_scenes(200, seed=3)
    assert np.array_equal(again.pixels, scenes.pixels)
    assert again.captions == scenes.captions
    assert draw_scenes(200, seed=4).captions != scenes.captions


def test_captions_name_the_colours_and_say_which_thing_is_where(scenes):
    assert scenes.pixels.shape == (200, SIDE, SIDE, 3)
    assert scenes.masks.sum(axis=1).max() == 1  # they do not touch
    relations = set()
    for pixels, masks, caption in zip(scenes.pixels, scenes.masks, scenes.captions, strict=True):
        words = caption.split()
        first, second = (np.argwhere(mask).mean(axis=0) for mask in masks)
        down, across = second - first
        relation = "left" if across > abs(down) else "above"
        assert max(across, down) > abs(min(across, down))
        assert words[3] == relation
        for mask, colour in zip(masks, (words[1], words[-2]), strict=True):
            paint = pixels[mask == 1].mean(axis=0)
            nearest = min(COLOURS, key=lambda name: np.abs(np.array(COLOURS[name]) - paint).sum())
            assert nearest == colour
        relations.add(relation)
    assert relations == {"left", "above"}


def test_shapes_fill_their_box_as_such_shapes_do(scenes):
    filled = {shape: [] for shape in SHAPES}
    for masks, caption in zip(scenes.masks, scenes.captions, strict=True):
        words = caption.split()
        for mask, shape in zip(masks, (words[2], words[-1]), strict=True):
            filled[shape].append(mask.sum() / (mask.any(axis=1).sum() * mask.any(axis=0).sum()))
    expected = {"circle": np.pi / 4, "square": 1, "triangle": 1 / 2}
    assert {shape: np.mean(shares) for shape, shares in filled.items()} == pytest.approx(expected, abs=0.06)
    assert max(filled["triangle"]) < min(filled["circle"]) < max(filled["circle"]) < min(filled["square"])


def test_questions_are_about_the_thing_they_say(scenes):
    for caption, questions in zip(scenes.captions, scenes.questions, strict=True):
        words = caption.split()
        named = ((words[1], words[2]), (words[-2], words[-1]))
        assert [question.thing for question in questions] == [0, 0, 1, 1]
        for question in questions:
            colour, shape = named[question.thing]
            assert (question.text, question.answer) in {
                (f"what colour is the {shape}", colour),
                (f"what shape is the {colour} one", shape),
            }


def test_words_as_numbers_and_the_things_they_name():
    assert things_named("a red circle left of a blue square") == (None, 0, 0, None, None, None, 1, 1)
    (row,) = encode(["<start> a red circle above a blue square <end>"], LONGEST + 1)
    assert " ".join(WORDS[word] for word in row) == "<start> a red circle above a blue square <end> <none>"
