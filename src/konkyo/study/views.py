"""What a subject is told, and what a subject sends. Nothing here knows what made a map.

The service imports this whether or not it has studies: no database here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


@dataclass(frozen=True, slots=True)
class Subject:
    """Who asks.

    Attributes:
        seed: of the order of images and maps.
    """

    id: str
    study: str
    seed: str


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ItemSummary(_View):
    """An image, and how far its ranking is."""

    item: str
    number: int
    state: Literal["new", "draft", "done"]


class Overview(_View):
    """The study as one subject sees it.

    Attributes:
        subject: tells the subjects of a study apart.
        maps: to rank for each image.
        items: in this subject's order.
        done: how many of them are.
        next: the first that is not; None where all are.
    """

    subject: str
    title: str
    instruction: str
    maps: int
    closed: bool
    finished: bool
    items: list[ItemSummary]
    done: int
    next: str | None


class Ranking(_View):
    """As it is saved.

    Attributes:
        ranking: ids of pictures, the best first.
        done: whether the subject means it so; else a draft, maybe of some maps only.
        revision: 0 before anything is saved.
    """

    ranking: list[str] = []
    done: bool = False
    revision: int = 0


class RankingRequest(_View):
    """A ranking to save; ``revision`` is the one it was made from."""

    ranking: list[str] = Field(max_length=1000)
    done: bool
    revision: int = Field(ge=0)


class ItemView(Ranking):
    """An image to rank the maps of.

    Attributes:
        of: how many images there are.
        label: the class that its maps are for; empty where that is not known.
        image: id of its picture.
        maps: ids of the pictures of its maps, all of them, in this subject's order.
        width, height: of each of these pictures.
    """

    item: str
    number: int
    of: int
    label: str
    image: str
    maps: list[str]
    width: int
    height: int


class Finished(_View):
    """The subject has finished."""

    finished: Literal[True] = True
