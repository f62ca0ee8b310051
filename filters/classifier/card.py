"""What a trained classifier is on disk: a folder with `classifier.json`, a fastText model a label, and a card for readers.

    MODEL_DIR/classifier.json   what programs read: labels, calibrations, thresholds, and everything that is known about the training
    MODEL_DIR/LABEL.ftz         (or .bin) one fastText model a label, with the labels `__label__yes` and `__label__no`
    MODEL_DIR/README.md         the card, as people read it
    MODEL_DIR/training.hashes   hashes of the texts that it has learned from: see score.py

A label is a question with the answer yes or no. Labels may hold at once, and an example may have no answer to one; so each label has a
model, a calibration and a threshold of its own.
"""

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from corpusmill.filters.classifier.calibrate import Calibration
from corpusmill.pipeline.config import Config, canonical_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import stays_inside

FILE = "classifier.json"
YES, NO = "__label__yes", "__label__no"

#: How a text is written for fastText, when it is trained and when it scores: see forms.py.
Form = Literal["plain", "lower", "words"]


class ClassifierHead(Config):
    """One label: its model's file, what the model's raw score means, and where yes begins."""

    label: str
    file: str = Field(description="Name of the model's file in the folder.")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="Of that file.")
    positive: str = Field(default=YES, description="The fastText label whose probability is the raw score.")
    complement: bool = Field(default=False, description="The raw score is one less that probability: `positive` names the answer no.")
    calibration: Calibration = Calibration()
    threshold: float = Field(default=0.5, ge=0, le=1, description="The calibrated score from which the answer is yes.")

    @field_validator("file")
    @classmethod
    def _in_the_folder(cls, file: str) -> str:
        """A description may come from a stranger, and what it names is opened, or made where a URL's folder is fetched to."""
        if "/" in file or not stays_inside(file):
            raise ValueError(f"{file!r} is no name of a file in the folder")
        return file


class ClassifierDescription(Config):
    """The content of `classifier.json`."""

    format: Literal[1] = 1
    name: str
    form: Form = "words"
    window: int | None = Field(
        default=None, ge=1, description="Words of a window; a document's score is the greatest of its windows'. None: all at once."
    )
    ranks: bool = Field(
        default=False, description="Its scores put texts in order and no more: its thresholds mean nothing on text of another kind."
    )
    heads: tuple[ClassifierHead, ...] = Field(min_length=1)
    card: dict[str, Any] = Field(default={}, description="What it was trained on and how good it is: train.py.")

    def digest(self) -> str:
        """sha256 (hex) of everything that decides about a score: not of the card."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json", exclude={"card"})).encode()).hexdigest()


def read_classifier(folder: str | Path) -> ClassifierDescription:
    """Reads `classifier.json`. Raises InputError in one sentence where there is none, or it is damaged."""
    path = Path(folder) / FILE
    try:
        return ClassifierDescription.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{folder}: not a classifier's folder ({FILE}: {error.strerror}).") from error
    except ValidationError as error:
        found = error.errors()[0]
        place = ".".join(map(str, found["loc"])) or "the file"
        raise InputError(f"{path}: not a classifier's description ({place}: {found['msg']}).") from error
