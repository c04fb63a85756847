import pytest

from konkyo.converters.errors import ConversionError
from konkyo.converters.labels import imagenet_labels, labels_for, read_labels


def test_the_classes_of_imagenet():
    labels = imagenet_labels()
    assert len(labels) == len(set(labels)) == 1000
    known = {0: "tench", 281: "tabby", 134: "crane (bird)", 517: "crane (machine)", 999: "toilet tissue"}
    assert {index: labels[index] for index in known} == known
    assert (labels[638], labels[639]) == ("maillot (tights)", "maillot (tank suit)")


def test_a_file_of_names(tmp_path):
    (tmp_path / "labels.txt").write_text("good\n crack \ndent\n")
    assert labels_for(3, tmp_path / "labels.txt") == ("good", "crack", "dent")


def test_a_thousand_classes_are_imagenet_unless_named(tmp_path):
    assert labels_for(1000, None) == imagenet_labels()
    with pytest.raises(ConversionError, match="name the 5 classes in a file, one a line: --labels"):
        labels_for(5, None)
    (tmp_path / "labels.txt").write_text("good\ncrack\n")
    with pytest.raises(ConversionError, match="2 names, but the network has 1000 classes"):
        labels_for(1000, tmp_path / "labels.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "but line 1 is empty"), ("a\n\nb\n", "but line 2 is empty"), ("a\nb\na\n", "'a' is there twice")],
)
def test_bad_files_are_refused(text, message, tmp_path):
    (tmp_path / "labels.txt").write_text(text)
    with pytest.raises(ConversionError, match=rf"labels\.txt: .*{message}"):
        read_labels(tmp_path / "labels.txt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConversionError, match=r"none\.txt: cannot be read"):
        read_labels(tmp_path / "none.txt")
