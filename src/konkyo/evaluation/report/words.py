"""What the report says of each measure, in one place, and the question that each helps to answer."""

from __future__ import annotations

from typing import Literal, NamedTuple

Question = Literal["place", "decision", "steady", "answer", "other"]

QUESTIONS: dict[Question, str] = {
    "place": "Does the map lie on the thing?",
    "decision": "Does the map explain the decision?",
    "steady": "Does the map hold still?",
    "answer": "Is the answer itself right?",
    "other": "Further measures",
}
"""In the order of the report."""

INTRODUCTIONS: dict[Question, str] = {
    "place": "Compared with what people marked in the images. A map may be right about the decision and lie "
    "beside the thing, if the model decides by something else: then the model is to blame, not the map.",
    "decision": "Asked of the model itself, without anything that people marked: does the answer depend on "
    "the places that the map shows?",
    "steady": "The same image, changed in ways that should not matter. No baseline is to be beaten here, as "
    "a map that never asks the model may be perfectly steady.",
    "answer": "A good map of a poor model shows why it is wrong.",
    "other": "Measures without a description of their own.",
}


class Words(NamedTuple):
    """A measure, to a person who must decide.

    Attributes:
        question: which it helps to answer.
        short: its name within a sentence.
        definition: what is done, in a sentence.
        says: what its figures mean.
        silent: what they do not mean.
        judged: whether the first screen holds maps against the baselines by it.
        figure: by which of its figures; empty: by the first.
        fails: the figure that is the share of maps that fail where passing is needed and no merit.
        diagonal: whether a curve on the diagonal is the ideal.
    """

    question: Question
    short: str
    definition: str
    says: str
    silent: str
    judged: bool = True
    figure: str = ""
    fails: str = ""
    diagonal: bool = False

    @property
    def beatable(self) -> bool:
        """Whether a baseline is something to beat."""
        return self.question not in ("steady", "answer")


STEADY = "A steady map may be steadily wrong."

WORDS: dict[str, Words] = {
    "pointing": Words(
        "place",
        "pointing",
        "The brightest point of the map is a hit if it lies inside what is marked, or within the tolerance.",
        "How often the one place that the map shows first is the right one.",
        "Nothing about the rest of the map. Large things in the middle are hit by any map: look at the "
        "baseline centre, and at energy, before a high figure is taken for a good map.",
    ),
    "pointing_rejection": Words(
        "place",
        "pointing with rejection",
        "Maps of the top predicted classes; a map whose maximum stays under a threshold says that its class "
        "is not there, which is right if it is not.",
        "Whether the strength of a map tells the classes that are there from those that are not.",
        "Rejecting every class is often right too: that share stands beside it and must be beaten. What "
        "nobody marked counts as not there. The best threshold was chosen on these images: its figure is too "
        "good.",
    ),
    "energy": Words(
        "place",
        "energy",
        "The share of the map's positive part that lies inside what is marked.",
        "How much of the whole map, not of its maximum alone, is on the thing.",
        "A small thing under a coarse map gets a low share even if the map is right: compare with the area "
        "of the thing, which is what an even map would get.",
    ),
    "localization": Words(
        "place",
        "boxes and class",
        "The box around the largest connected part of the map above a share of its maximum; right if it "
        "overlaps a marked box by half and the class is right.",
        "Whether answer and map together find the whole thing.",
        "An error here may come from a wrong class: the part of it stands beside. The error given the class "
        "says more of the map.",
        judged=False,
    ),
    "localization_given_class": Words(
        "place",
        "boxes",
        "The same box, of the map of the class that is there: right if it overlaps a marked box by half.",
        "Whether the map outlines the whole thing.",
        "A map on a part of the thing (a dog's face) fails, and so do two things whose parts run together. A "
        "map on the part that decides is not a bad explanation.",
    ),
    "seeds": Words(
        "place",
        "seeds",
        "The map, cut at a share of its maximum, taken as a segmentation; its overlap with the mask.",
        "Whether the map could serve as a first mask of the thing.",
        "A map that shows only what decides is smaller than the thing and loses here, rightly.",
    ),
    "expert_map": Words(
        "place",
        "expert map",
        "The mean squared difference between the map and that of an expert, 1 inside of what is marked; an "
        "attention map as it is, any other divided by its maximum.",
        "How alike the two pictures are, point by point.",
        "Where little is marked, an empty map is close to it: its error stands beside it and is the one to "
        "beat.",
        judged=False,
    ),
    "insertion_deletion": Words(
        "decision",
        "insertion and deletion",
        "Points of the image are removed, or put back into a blurred image, the most important first; the "
        "area under the probability of the class.",
        "A steep fall and a steep rise: the places that the map ranks first are what the answer needs.",
        "Images with holes look like nothing the model was trained on. A map of fine grains (as of "
        "gradients) can do well here and still show a person nothing.",
        figure="score",
    ),
    "threshold_insertion_deletion": Words(
        "decision",
        "insertion and deletion by threshold",
        "What the map shows above each threshold is kept (insertion), or what it shows below (deletion); the "
        "area under the accuracy.",
        "Whether the bright part of the map suffices for a right answer, and the dark part does not.",
        "The size of the bright part is the map's own choice: a map that is bright everywhere keeps the "
        "whole image and scores high in insertion; read both, and their difference.",
    ),
    "average_drop": Words(
        "decision",
        "average drop",
        "The image is shown through its map; how far the probability of the class falls, and in how many "
        "images it rises.",
        "Whether what the map lets through is enough for the answer.",
        "A map that lets everything through loses nothing: a low drop alone is no proof. It is here because "
        "other tools report it.",
        judged=False,
    ),
    "decline": Words(
        "decision",
        "decline",
        "Each class is scored by the sum of its map in place of the model's own output; the share of the "
        "accuracy that is lost.",
        "0: the map is the decision, and adding it up gives the same answers. 1: nothing of it is in it.",
        "A decline does not say that the map is wrong: cutting off negative parts, leaving out a constant "
        "and scaling each map by itself cause one as well. The causes stand under the table.",
    ),
    "occlusion_correlation": Words(
        "decision",
        "occlusion",
        "The rank correlation between the map and how far the score falls when each patch is covered.",
        "Whether the order of the places in the map is that of their effect on the score.",
        "Small figures are usual: covering one patch changes little where the thing is large. Compare "
        "methods with each other rather than with 1.",
    ),
    "randomization": Words(
        "decision",
        "random weights",
        "The weights are shuffled, from the output backwards; how alike the maps before and after are.",
        "A map that stays the same whatever the weights are does not explain the model: it draws the image.",
        "A low figure is needed for an explanation, but any noise has one: it proves nothing alone.",
        judged=False,
        fails="unchanged_all",
    ),
    "stability_jpeg": Words(
        "steady",
        "JPEG",
        "The map of the image against the map of the same image after JPEG compression.",
        "Whether an image that was stored or sent with loss still gets its map.",
        STEADY,
    ),
    "stability_shift": Words(
        "steady",
        "shift",
        "The map of the image against the map of the image moved by a few pixels, moved back.",
        "Whether the map goes with the thing.",
        STEADY + " A coarse map moves by whole cells, so it cannot follow a small shift.",
    ),
    "stability_batch": Words(
        "steady",
        "batch",
        "The map of an image alone against its map in the company of others.",
        "Whether the map depends on what else is asked at the same moment. It should not.",
        STEADY,
    ),
    "stability_half": Words(
        "steady",
        "half precision",
        "The map computed in half precision against the map in single precision.",
        "Whether the faster arithmetic may be used to show maps.",
        STEADY,
    ),
    "stability_onnx": Words(
        "steady",
        "ONNX",
        "The map by ONNX Runtime against the map by torch.",
        "Whether the exported model shows what the trained one showed.",
        STEADY,
    ),
    "classification": Words(
        "answer",
        "classification",
        "The model's answers against the true classes.",
        "How often the answer is right, and which classes are taken for which.",
        "Nothing about the maps. Where one class is most of the data, look at the balanced figure and at "
        "kappa, which chance does not raise.",
    ),
    "calibration": Words(
        "answer",
        "calibration",
        "The probability that the model gives its answer against how often it is right.",
        "Of answers given with 90 %, nine in ten should be right. The curve of such a model lies on the "
        "diagonal.",
        "A model may be well calibrated and poor, and the other way round.",
        diagonal=True,
    ),
}


def words_of(measure: str, title: str) -> Words:
    """The words of a measure, or few for one that has none here."""
    return WORDS.get(measure, Words("other", title, "", "", "", judged=True))
