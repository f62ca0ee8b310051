"""The specification of a training or an evaluation: YAML, or labelled files alone, with `key=value` overrides."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator, model_validator

from corpusmill.filters.classifier.calibrate import Method
from corpusmill.filters.classifier.card import Form
from corpusmill.pipeline.config import Config, reason_of, resolve_options
from corpusmill.pipeline.errors import ConfigError
from corpusmill.pipeline.recipe import SHIPPED, apply_override, read_yaml
from corpusmill.pipeline.storage import is_remote

#: The form of a label, which becomes the name of a file and of a report's column.
LABEL = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
#: Columns of the table of examples, whose names no label may have.
RESERVED = ("text", "source", "document")
#: The folder of the specifications that ship, which have the names of their files.
FOLDER = SHIPPED / "classifiers"
Answer = Literal[0, 1]
#: A value of a label column, as text for comparisons: see `value_key`.
ValueKey = Annotated[str, BeforeValidator(lambda value: value_key(value))]


def value_key(value: Any) -> str:
    """Returns a label column's value as text, equal for all ways to write it in JSON, YAML and Parquet (`true`, `1`, `1.0`)."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


class ExampleSource(Config):
    """A source of examples, and the answers that are known for them."""

    name: str = Field(default="", description="By default the name of the first file.")
    files: tuple[str, ...] = Field(min_length=1, description="Files, folders and globs, relative to the spec.")
    text_column: str = "text"
    label_column: str | None = Field(
        default=None,
        description="The column of the answers. `label`, where nothing else gives answers.",
    )
    positive: ValueKey | None = Field(default=None, description="The value that means yes to the only label; all others mean no.")
    values: dict[ValueKey, dict[str, Answer]] = Field(
        default={}, description="What each value says: `offensive: {toxic: 1, hate: 0}`; a label that is left out is unknown."
    )
    label_columns: dict[str, str] = Field(default={}, description="A column of 0 and 1 for each label: `toxic: is_toxic`.")
    answers: dict[str, Answer] = Field(default={}, description="The answers of all its examples, where no column gives one.")
    limit: int | None = Field(default=None, ge=1, description="The most rows, drawn by the hash of the text.")
    pieces: int | None = Field(default=None, ge=20, description="Characters of the pieces into which texts are cut, at ends of words.")
    repeat: float = Field(default=1.0, gt=0, le=100, description="How often its examples are in the training; .5 draws half of them.")
    licence: str | None = None

    @field_validator("files")
    @classmethod
    def _from_spec(cls, files: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        folder = (info.context or {}).get("folder", ".")
        return tuple(file if is_remote(file) else os.path.normpath(os.path.join(folder, file)) for file in files)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        files = given.get("files")
        name = Path(str(files[0]).rstrip("/")).name if isinstance(files, list | tuple) and files else ""
        silent = not (given.get("label_columns") or given.get("answers"))
        return {"name": name, **({"label_column": "label"} if silent else {}), **given}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.label_column and (self.values or self.positive is not None or not (self.label_columns or self.answers)):
            raise ValueError("label_column: it is needed for values and positive, and where neither label_columns nor answers is given")
        if self.values and self.positive is not None:
            raise ValueError("positive: values say already what each value means")
        return self

    def labels(self) -> list[str]:
        """Returns the labels that the source names."""
        return [*(label for answers in self.values.values() for label in answers), *self.label_columns, *self.answers]


class Arguments(Config):
    """fastText's arguments, under fastText's names and with the same meanings."""

    dim: int = Field(default=16, ge=1, le=1000)
    epoch: int = Field(default=5, ge=1, le=1000)
    lr: float = Field(default=0.5, gt=0)
    wordNgrams: int = Field(default=2, ge=1, le=10)
    minn: int = Field(default=3, ge=0, le=20)
    maxn: int = Field(default=5, ge=0, le=20)
    minCount: int = Field(default=2, ge=1)
    bucket: int = Field(default=200_000, ge=1, le=100_000_000)
    loss: Literal["softmax", "hs", "ns"] = "softmax"

    @model_validator(mode="after")
    def _ngrams(self) -> Self:
        if self.minn > self.maxn:
            raise ValueError("minn is greater than maxn")
        return self


class TrainingSpec(Config):
    """The specification of a classifier. An evaluation uses `labels` and `sources` alone."""

    name: str = Field(pattern=LABEL, description="By default the name of the output folder.")
    labels: tuple[str, ...] = Field(min_length=1, description="By default one, which has the classifier's name.")
    sources: tuple[ExampleSource, ...] = Field(min_length=1)
    form: Form = Field(default="words", description="How texts are written for fastText.")
    window: int | None = Field(default=None, ge=1, description="Words of the windows by which documents are scored; null: as a whole.")
    seed: int = Field(default=1, ge=0, lt=1 << 31, description="Of the split, the order and the training.")
    validation: float = Field(default=0.1, gt=0, lt=0.5, description="The share of examples for calibration and threshold, by hash.")
    test: float = Field(default=0.1, gt=0, lt=0.5, description="The share of examples for the card's measures, by hash.")
    ratio: float = Field(default=4, ge=1, description="The rarer answer is repeated until the other is at most so many times as frequent.")
    fasttext: Arguments = Arguments()
    calibration: Method = Field(default="platt", description="How scores become probabilities.")
    length: float = Field(default=0.0, description="What a text e times as long gets on its log-odds; 1,000 characters get nothing.")
    stop_words: float = Field(default=0.0, description="What a share of English stop words of 1 gets on the log-odds; .4 gets nothing.")
    precision: float | None = Field(
        default=None, gt=0, le=1, description="The threshold is the lowest with this precision; null: the one with the best F1."
    )
    compress: bool = Field(default=True, description="A .ftz of a sixth of the size, with scores that differ by hundredths; false: a .bin.")
    cutoff: int = Field(default=0, ge=0, description="Words and n-grams that a .ftz keeps, those with the greatest norms; 0 keeps all.")
    ranks: bool = Field(default=False, description="For putting texts in order alone: the thresholds mean nothing on text of another kind.")
    limits: tuple[str, ...] = Field(default=(), description="What it cannot do, in plain words: for the card and for reports of runs.")
    licence: str | None = Field(default=None, description="Of the model, as its card states it.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for label in self.labels:
            if not re.match(LABEL, label) or label in RESERVED:
                raise ValueError(f"labels: {label!r} is no name for a label (letters, digits, - and _; not {', '.join(RESERVED)})")
        if len({label.lower() for label in self.labels}) < len(self.labels):
            raise ValueError("labels: two have one name")
        if (self.length or self.stop_words) and self.calibration != "platt":
            raise ValueError("length, stop_words: they need calibration: platt")
        names = [source.name for source in self.sources]
        for source in self.sources:
            if unknown := [label for label in source.labels() if label not in self.labels]:
                raise ValueError(f"sources: {source.name} answers {unknown[0]!r}, which is not among the labels ({', '.join(self.labels)})")
            if source.positive is not None and len(self.labels) > 1:
                raise ValueError(f"sources: {source.name} has a positive value, but there are several labels; give values")
            if names.count(source.name) > 1:
                raise ValueError(f"sources: two have the name {source.name}; give each a name")
        return self


def read_spec(given: Sequence[str], overrides: Sequence[str] = (), name: str = "classifier", labels: Sequence[str] = ()) -> TrainingSpec:
    """Reads a specification. `given`: a YAML file, the name of one that ships, or labelled files, each a source. `name`, `labels`: where it
    has none; without `labels` one that has its name. Raises InputError or ConfigError in one sentence.

    Files are relative to the specification, those of one that ships to the current folder.
    """
    folder, where, raw = ".", given[0], dict[str, Any]()
    shipped = {path.stem: path for path in FOLDER.glob("*.yaml")}
    if len(given) == 1 and (where in shipped or where.endswith((".yaml", ".yml"))):
        folder = "." if where in shipped else str(Path(where).parent)
        raw = read_yaml(shipped.get(where, where), "spec", "a training's options")
    else:
        raw["sources"] = [{"files": [file]} for file in given]
    for override in overrides:
        apply_override(raw, override)
    raw.setdefault("name", name)
    raw.setdefault("labels", list(labels) or [raw["name"]])
    try:
        return TrainingSpec.model_validate(resolve_options(TrainingSpec, raw, context={"folder": folder}))
    except ValidationError as error:
        raise ConfigError(f"{where}: {reason_of(error)}.") from None  # pydantic's own message has internals


def name_of(path: str | Path) -> str:
    """Returns a path's last part in the form of a classifier's name."""
    kept = re.sub(r"[^A-Za-z0-9_-]", "-", Path(path).absolute().name.partition(".")[0]).strip("-_")
    return kept[:64] or "classifier"
