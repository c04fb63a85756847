"""A page as a tree, by the standard library alone."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder

VOID = {"meta", "img", "br", "link", "path", "rect", "circle"}


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.builder = TreeBuilder()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.builder.start(tag, {name: value or "" for name, value in attrs})
        if tag in VOID:
            self.builder.end(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            self.builder.end(tag)

    def handle_data(self, data: str) -> None:
        self.builder.data(data)


def tree(page: Path | str) -> Element:
    """The root of a page; an element that is left open or closed twice is an error."""
    reader = _Reader()
    reader.feed(page if isinstance(page, str) else page.read_text(encoding="utf-8"))
    reader.close()
    return reader.builder.close()


def text(element: Element) -> str:
    """All of its text, in single spaces."""
    return " ".join("".join(element.itertext()).split())


def classed(root: Element, name: str, tag: str = "*") -> list[Element]:
    """Every element of a class."""
    return [element for element in root.iter() if name in element.get("class", "").split()
            and tag in ("*", element.tag)]  # fmt: skip


def section(root: Element, heading: str) -> Element:
    """The section or article that a heading of this text names."""
    for element in (*root.iter("section"), *root.iter("article")):
        labelled = element.get("aria-labelledby")
        titles = [item for item in element.iter() if item.get("id") == labelled]
        if titles and text(titles[0]) == heading:
            return element
    raise AssertionError(f"no section {heading!r}")


def rows(table: Element) -> dict[str, list[str]]:
    """Texts of the cells of a table's rows, by the text of the row's head."""
    found = {}
    for row in table.iter("tr"):
        heads = [cell for cell in row.iter("th") if cell.get("scope") == "row"]
        if heads:
            found[text(heads[0])] = [text(cell) for cell in row.iter("td")]
    return found
