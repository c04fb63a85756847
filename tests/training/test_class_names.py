"""What the names in a data set mean, among the labels of a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from konkyo.converters.labels import imagenet_labels
from konkyo.training.class_names import ClassNames
from konkyo.training.errors import DataError

LABELS = ("tabby, tabby cat", "Egyptian cat", "crane", "crane (machine), crane", "great white shark")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Egyptian cat", (1,)),
        ("egyptian CAT", (1,)),
        ("great_white_shark", (4,)),
        ("tabby", (0,)),
        ("Tabby Cat", (0,)),
        ("tabby, tabby cat", (0,)),
        ("crane", (2,)),  # the whole label, before one name of several
        ("4", (4,)),
        ("cat", ()),
        ("5", ()),
    ],
)
def test_equal_names_are_found(name: str, found: tuple[int, ...]) -> None:
    assert ClassNames(LABELS).find(name) == found


def test_a_synonym_may_be_of_several_classes() -> None:
    names = ClassNames(("tabby, cat", "Persian, cat"))
    assert names.find("cat") == (0, 1)
    with pytest.raises(
        DataError, match="'cat' means several classes of the model: 'tabby, cat', 'Persian, cat'"
    ):
        names.require("cat")


def test_case_matters_where_it_tells_classes_apart() -> None:
    names = ClassNames(("Cardigan", "cardigan"))
    assert [names.find(name) for name in ("Cardigan", "cardigan", "CARDIGAN")] == [(0,), (1,), (0, 1)]


def test_imagenet_is_also_known_by_number() -> None:
    names = ClassNames(imagenet_labels())
    assert names.require("n02123045") == names.require("281") == names.require("Tabby") == 281


def test_no_class_is_answered_with_the_nearest() -> None:
    with pytest.raises(DataError, match=r"'egyptian cats' is no class of the model \(near: Egyptian cat"):
        ClassNames(LABELS).require("egyptian cats")
    with pytest.raises(DataError, match="'xylophone' is no class of the model; name it in a file"):
        ClassNames(LABELS).require("xylophone")


def test_a_file_says_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    content = {"Cat": ["tabby", "Egyptian cat", 0], "crane": 3, "shark": "great white shark", "1": []}
    path.write_text(json.dumps(content))
    names = ClassNames(LABELS, path)
    assert [names.find(name) for name in ("cat", "crane", "shark", "1", "tabby")] == [
        (0, 1),
        (3,),
        (4,),
        (),
        (0,),
    ]
    assert names.require("crane") == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"cat": ["tabbi"]}', r"cat: 'tabbi' is no class of the model \(near: tabby"),
        ('{"cat": [5]}', "cat: 5 is no class of the model"),
        ('{"cat": [-1]}', "cat: -1 is no class"),
        ('{"cat": [true]}', "cat: True is no class"),
        ('{"cat": {"tabby": 1}}', "cat: {'tabby': 1} is no class"),
        ('["tabby"]', "expected an object"),
        ("{", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "classes.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=rf"classes\.json: {message}"):
        ClassNames(LABELS, path)


def test_the_things_of_coco_are_classes_of_imagenet() -> None:
    """A bird is no toy, and nobody is a groom because they are a person."""
    labels = imagenet_labels()
    names = ClassNames(labels, Path("coco-to-imagenet"))

    def found(name: str) -> list[str]:
        return [labels[index] for index in names.find(name)]

    assert found("cat") == ["tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"]
    assert names.find("dog") == tuple(range(151, 269))
    assert len(found("bird")) == 18 + 21 + 20
    assert {"king penguin", "kite", "cock"} <= set(found("bird"))
    assert found("bus") == ["minibus", "school bus", "trolleybus"]
    assert found("person") == found("kite") == found("giraffe") == []
    known = [names.find(name) for name in json.loads(_shipped())]
    assert (len(known), sum(map(bool, known))) == (80, 58)
    together = [index for found in known for index in found]
    assert len(together) == len(set(together))


def _shipped() -> str:
    from konkyo.training import class_names

    path = Path(class_names.__file__).with_name("classes") / "coco-to-imagenet.json"
    return path.read_text(encoding="utf-8")
