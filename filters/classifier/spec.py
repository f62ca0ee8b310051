"""The specification of a training: the YAML of `corpusmill classifier train --spec`. The command's options become such a spec, too."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from corpusmill.filters.classifier.calibrate import Method, ThresholdRule
from corpusmill.filters.classifier.card import Form
from corpusmill.pipeline.config import Config, unknown_key
from corpusmill.pipeline.errors import ConfigError
from corpusmill.pipeline.recipe import read_yaml
from corpusmill.pipeline.storage import is_remote

#: The form of a label, which becomes the name of a file and of a report's column.
LABEL = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
#: Columns of the table of examples, whose names no label may have.
RESERVED = ("text", "source", "document")
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


class PieceLength(Config):
    """The length of the pieces into which long documents are cut, so that training texts have the same length."""

    characters: int | None = Field(default=None, ge=20, description="Length of a piece; it ends where a word does.")
    words: int | None = Field(default=None, ge=3, description="Words of a piece.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.characters is None) == (self.words is None):
            raise ValueError("give characters or words")
        return self


class ExampleSource(Config):
    """A source of examples, and the answers that are known for them."""

    name: str | None = Field(default=None, description="By default the name of the first file or of the run.")
    files: tuple[str, ...] = Field(default=(), description="Files, folders and globs, relative to the spec.")
    format: Literal["auto", "jsonl", "parquet", "lines", "documents"] = Field(
        default="auto",
        description="auto: what the file holds; a text file is one document in a folder, and an example a line where it is named itself. "
        "lines: an example a line; documents: an example a file.",
    )
    run: str | None = Field(default=None, description="A run's folder: its documents.")
    stage: Literal["ingest", "filter", "dedup"] = Field(default="ingest", description="The stage of the run whose documents are taken.")
    failed: tuple[str, ...] = Field(
        default=(), description="Of a run: only documents that failed one of these rules of its filter stage, which must be finished."
    )
    labelled: str | None = Field(default=None, description="The folder of a run: its documents that people have labelled.")
    text_column: str = "text"
    label_column: str | None = Field(default=None, description="The column of the answers: a value, or a list of values that hold at once.")
    values: dict[ValueKey, dict[str, Answer]] = Field(
        {}, description="What each value says: `offensive: {toxic: 1, hate: 0}`; a label that is left out is unknown."
    )
    label_columns: dict[str, str] = Field(default={}, description="A column of 0 and 1 for each label: `toxic: is_toxic`.")
    answers: dict[str, Answer] = Field(default={}, description="The answers of all its examples, where no column gives one.")
    weak: dict[str, str] = Field(
        default={}, description="For each label, a file with a word list: a text that has one of its words has the answer yes."
    )
    limit: int | None = Field(default=None, ge=1, description="The most rows, drawn by the hash of the text; for a run 20,000 by default.")
    pieces: PieceLength | None = None
    repeat: float = Field(default=1.0, gt=0, le=100, description="How often its examples are in the training; .5 draws half of them.")
    licence: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if [bool(self.files), bool(self.run), bool(self.labelled)].count(True) != 1:
            raise ValueError("give files, a run or a labelled run")
        if not (self.labelled or self.label_column or self.label_columns or self.answers or self.weak):
            raise ValueError("give label_column, label_columns, answers or weak, or nothing is known of its examples")
        if self.failed and not (self.run and self.stage == "ingest"):
            raise ValueError("failed needs a run, and documents of its stage ingest")
        if self.values and not (self.label_column or self.labelled):
            raise ValueError("values needs a label_column")
        if self.labelled and (self.label_column or self.label_columns):
            raise ValueError("a labelled run has labels, and no columns of them")
        return self

    def named(self) -> str:
        """Returns the source's name."""
        return self.name or Path((self.run or self.labelled or self.files[0]).rstrip("/")).name

    def labels(self) -> list[str]:
        """Returns the labels that the source has answers to."""
        found = [*self.label_columns, *self.answers, *self.weak]
        return list(dict.fromkeys([label for answers in self.values.values() for label in answers] + found))


class SplitShares(Config):
    """The shares of the parts, into which examples are divided by the hash of their content."""

    train: float = Field(default=0.8, gt=0, lt=1)
    validation: float = Field(default=0.1, gt=0, lt=1)
    test: float = Field(default=0.1, gt=0, lt=1)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if abs(self.train + self.validation + self.test - 1) > 1e-9:
            raise ValueError("train, validation and test must add up to 1")
        return self


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


class Quantisation(Config):
    """fastText's quantisation (`.ftz`): rows by product quantisation.

    The file is a sixth of the size. Without `cutoff`, scores change by some hundredths (docs/stages/classifiers.md has figures).
    """

    cutoff: int = Field(default=0, ge=0, description="Words and n-grams that stay, those with the greatest norms; 0 keeps all.")
    retrain: bool = Field(default=True, description="Train the remaining rows again after the cutoff.")
    dsub: int = Field(default=2, ge=1, le=16)
    qnorm: bool = True


def parse_rule(given: Any) -> Any:
    """Returns a ThresholdRule: `best_f1`, `precision=.9` (the lowest threshold with it) or `kept=.1` (the share of examples with yes)."""
    if not isinstance(given, str):
        return given
    kind, equals, value = given.partition("=")
    if (kind, equals) == ("best_f1", ""):
        return {"kind": kind}
    try:
        if kind in ("precision", "kept") and 0 < float(value) < 1:
            return {"kind": kind, "value": float(value)}
    except ValueError:
        pass
    raise ValueError(f"a threshold rule is best_f1, precision=.9 or kept=.1, not {given}")


class TrainingSpec(Config):
    """The specification of a classifier's training. Paths are absolute, or relative to the current folder: `read_spec` resolves them."""

    name: str = Field(pattern=LABEL)
    labels: tuple[str, ...] = Field(min_length=1)
    sources: tuple[ExampleSource, ...] = Field(min_length=1)
    form: Form = "words"
    window: int | None = Field(default=None, ge=1)
    seed: int = Field(default=1, ge=0, lt=1 << 31)
    split: SplitShares = SplitShares()
    balance: Literal["repeat", "sample", "none"] = Field(
        default="repeat",
        description="What to do if the answers differ by more than `ratio`: repeat the rarer one, draw fewer of the other, or nothing.",
    )
    ratio: float = Field(default=4, ge=1, description="How many times as often as a label's rarer answer the other may be trained on.")
    fasttext: Arguments = Arguments()
    autotune: float | None = Field(default=None, gt=0, description="Seconds of fastText's search for better arguments, for each label.")
    calibration: Method = "platt"
    length: float = Field(default=0.0, description="What a text e times as long gets on its log-odds; 1,000 characters get nothing.")
    stop_words: float = Field(default=0.0, description="What a share of English stop words of 1 gets on the log-odds; .4 gets nothing.")
    calibrate_on: Literal["held_out", "unseen_source"] = Field(
        default="held_out",
        description="held_out: .5 means .5 on the validation part; unseen_source: on sources left out in turn.",
    )
    threshold_on: Literal["auto", "held_out", "unseen_source"] = Field(
        default="auto",
        description="held_out: on the validation part; unseen_source: on sources left out in turn; auto: on both where at least two "
        "sources have both answers.",
    )
    threshold_rule: Annotated[ThresholdRule, BeforeValidator(parse_rule)] = ThresholdRule()
    compress: Quantisation | None = Quantisation()
    ranks: bool = Field(default=False, description="For putting texts in order alone: the thresholds mean nothing on text of another kind.")
    limits: tuple[str, ...] = Field(default=(), description="What it cannot do, in plain words: for the card and for reports of runs.")
    licence: str | None = Field(default=None, description="Of the model, as its card states it.")

    @field_validator("compress", mode="before")
    @classmethod
    def _switched(cls, given: Any) -> Any:
        return {True: Quantisation(), False: None}.get(given, given) if isinstance(given, bool) else given

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for label in self.labels:
            if not re.match(LABEL, label) or label in RESERVED:
                raise ValueError(f"labels: {label!r} is no name for a label (letters, digits, - and _; not {', '.join(RESERVED)})")
        if len({label.lower() for label in self.labels}) < len(self.labels):
            raise ValueError("labels: two have one name")
        if (self.length or self.stop_words) and self.calibration != "platt":
            raise ValueError("length, stop_words: they need calibration: platt")
        names = [source.named() for source in self.sources]
        for source, name in zip(self.sources, names):
            unknown = [label for label in source.labels() if label not in self.labels]
            if unknown:
                raise ValueError(f"sources: {name} answers {unknown[0]!r}, which is not among the labels ({', '.join(self.labels)})")
            if names.count(name) > 1:
                raise ValueError(f"sources: two have the name {name}; give each a name")
        return self


def read_spec(path: str | Path, options: Mapping[str, Any] | None = None) -> TrainingSpec:
    """Reads a YAML spec; `options` override its values. Raises InputError or ConfigError in one sentence."""
    raw = read_yaml(path, "spec", "a training's options")
    spec = make_spec({"name": name_of(path), **raw, **(options or {})}, str(path))
    return spec.model_copy(update={"sources": tuple(_resolved(source, Path(path).parent) for source in spec.sources)})


def _resolved(source: ExampleSource, folder: Path) -> ExampleSource:
    """Returns a source whose paths are resolved relative to `folder`."""

    def joined(path: str) -> str:
        return path if is_remote(path) else str(folder / path)

    return source.model_copy(
        update={
            "files": tuple(map(joined, source.files)),
            "run": joined(source.run) if source.run else None,
            "labelled": joined(source.labelled) if source.labelled else None,
            "weak": {label: joined(path) for label, path in source.weak.items()},
        }
    )


def make_spec(raw: Mapping[str, Any], where: str) -> TrainingSpec:
    """Returns the spec of plain values. Raises ConfigError, which begins with `where`, if they do not fit."""
    try:
        return TrainingSpec.model_validate(dict(raw))
    except ValidationError as error:
        raise ConfigError(f"{where}: " + "; ".join(_explain(e) for e in _root_causes(error.errors())) + ".") from error


def _root_causes(errors: Sequence[Any]) -> list[Any]:
    """Returns the errors without those that only follow from others: a list counts as too short if all its items are refused."""
    return [one for one in errors if not any(other is not one and other["loc"][: len(one["loc"])] == one["loc"] for other in errors)]


def _explain(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{place}: {unknown_key(TrainingSpec, error['loc'])}"
    if error["type"] == "value_error":
        return f"{place}: {error['msg'].removeprefix('Value error, ')}" if place else error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{place}: is missing"
    given = f", not {error['input']!r}" if isinstance(error["input"], str | int | float | None) else ""
    return f"{place}: {error['msg'][0].lower()}{error['msg'][1:]}{given}"


def name_of(path: str | Path) -> str:
    """Returns a path's last part in the form of a classifier's name."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in Path(path).name.split(".")[0]).strip("-_")
    return kept[:64] or "classifier"
