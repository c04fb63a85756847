"""What may stop a run, each said in one sentence that a person can act on.

``TrainingError`` is the base; ``DataError`` and ``CheckpointError`` say where the fault lies.
"""

from __future__ import annotations


class TrainingError(ValueError):
    """The run cannot start or go on as it was asked to."""


class DataError(TrainingError):
    """The data cannot be trained on; the message names the folder or file and says why."""


class CheckpointError(TrainingError):
    """A checkpoint that is missing, unreadable, incomplete, or of another run."""
