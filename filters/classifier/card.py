"""The format of a trained classifier: a folder with `classifier.json`, a fastText model for each label, and a card for readers.

    MODEL_DIR/classifier.json   what programs read: labels, calibrations, thresholds, and a record of the training
    MODEL_DIR/LABEL.ftz         (or .bin) a fastText model for each label, with the labels `__label__yes` and `__label__no`
    MODEL_DIR/README.md         the card for people
    MODEL_DIR/training.hashes   hashes of the training texts: see score.py

A label is a question with the answer yes or no. Several labels may be yes at once, and an example may lack an answer to some, so each
label has its own model, calibration and threshold.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from corpusmill.filters.classifier.calibrate import Calibration
from corpusmill.pipeline.config import Config, canonical_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import stays_inside

FILE, CARD = "classifier.json", "README.md"
YES, NO = "__label__yes", "__label__no"

#: How a text is written for fastText, in training and in scoring: see forms.py.
Form = Literal["plain", "lower", "words"]


class ClassifierHead(Config):
    """One label: the file of its model, the meaning of the model's raw score, and the threshold for yes."""

    label: str
    file: str = Field(description="Name of the model's file in the folder.")
    sha256: str = Field(default="", pattern="^[0-9a-f]{64}$", description="Of that file; empty where a recipe describes it.")
    positive: str = Field(default=YES, description="The fastText label whose probability is the raw score.")
    calibration: Calibration = Calibration()
    threshold: float = Field(default=0.5, ge=0, le=1, description="The calibrated score from which the answer is yes.")

    @field_validator("file")
    @classmethod
    def _in_the_folder(cls, file: str) -> str:
        """Refuses paths.

        A description may come from a stranger, and the file that it names is opened, or created if it is fetched from a URL.
        """
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
        """Returns the sha256 (hex) of everything that can change a score, so without the card."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json", exclude={"card"})).encode()).hexdigest()


def read_classifier(folder: str | Path) -> ClassifierDescription:
    """Reads `classifier.json`. Raises InputError in one sentence if it is missing or damaged."""
    path = Path(folder) / FILE
    try:
        return ClassifierDescription.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{folder}: not a classifier's folder ({FILE}: {error.strerror}).") from error
    except ValidationError as error:
        found = error.errors()[0]
        place = ".".join(map(str, found["loc"])) or "the file"
        raise InputError(f"{path}: not a classifier's description ({place}: {found['msg']}).") from error


# ---- For people, in Markdown


def card_text(classifier: ClassifierDescription) -> str:
    """Returns the card of a trained classifier."""
    files = [(source["name"], file) for source in classifier.card["data"]["sources"] for file in source["files"]]
    return _rendered("card.md.jinja", dict(classifier) | {"files": files})


def evaluation_text(result: Mapping[str, Any], doubts: Mapping[str, Sequence[str]]) -> str:
    """Returns the result of `evaluate_files`. `doubts`: by label, sentences with the reasons to doubt the measures."""
    return _rendered("evaluation.md.jinja", {**result, "doubts": doubts})


def _rendered(template: str, values: Mapping[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)  # measures.md.jinja has the tables of both
    environment = Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)  # `plain` escapes
    environment.filters |= {"plain": _without_markup, "n": "{:,}".format}
    return environment.get_template(template).render(values) + "\n"


def _without_markup(text: str) -> str:
    """Escapes a name for Markdown: without markup, line breaks and unprintable characters."""
    shown = "".join(character if character.isprintable() else "?" for character in text)
    for character in "\\`*_{}[]<>|#&":
        shown = shown.replace(character, f"\\{character}") if character != "&" else shown.replace("&", "&amp;")
    return shown
