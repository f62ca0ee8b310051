"""The options of a classifier in a recipe: the model, the meaning of its labels, and which scores keep a document."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

import yaml
from pydantic import Field, ValidationInfo, field_validator, model_validator

from corpusmill.filters.classifier.card import FILE, ClassifierDescription, Form, read_classifier
from corpusmill.filters.fasttext_model import read_model
from corpusmill.filters.step import short_form
from corpusmill.pipeline.cache import cache_folder, check_sha256, fetch, sha256_of
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import is_remote

# ---- The conventions of public fastText classifiers
#
# A recipe names a convention with `preset`, and the file by path or URL: `- classifier: {preset: dclm, model: openhermes_....bin}`.

Where = Literal["high", "low"]


class Convention(Config):
    """How to use a public model. `values`: the number that each of its labels stands for, if the labels are a scale."""

    source: str
    name: str  # name of the column
    form: Form = "plain"
    keep_where: Where
    positive: str | None = None  # the fastText label whose probability is the score
    values: Mapping[str, float] = {}
    threshold: float | None = None  # the threshold of the model's authors
    comparison: str | None = None  # the comparison by which a document fails; None: as for all models (step.py)


_PUBLIC = yaml.safe_load(Path(__file__).with_name("conventions.yaml").read_text("utf-8"))
CONVENTIONS: dict[str, Convention] = {name: Convention.model_validate(each) for name, each in _PUBLIC.items()}


# ---- The options in a recipe

#: Endings of fastText's files. Any other model in a recipe is a classifier's folder.
FASTTEXT_FILES = (".bin", ".ftz")
NAME = re.compile(r"[A-Za-z]\w{0,63}")
Preset = Literal["dclm", "dolma-jigsaw-hatespeech", "dolma-jigsaw-nsfw", "fineweb-edu", "textbook-quality"]
Number = TypeVar("Number")


class DecisionOptions(Config):
    """Which scores keep a document."""

    window: int | None = Field(
        None, ge=1, description="Words of a window: a score is the greatest of the windows'. By default as the classifier has it."
    )
    keep_where: Where | None = Field(
        None, description="Which scores are good: `high` (quality) or `low` (toxicity). Built-in classifiers and presets set it."
    )
    threshold: Literal["own"] | float | dict[str, Literal["own"] | float] | None = Field(
        None,
        description="Where the verdict changes: a number, or `own` for the classifier's; or one of these by label. With high scores "
        "kept, a document fails below it, else from it on. A single one is for the label that has the classifier's name, else for all.",
    )
    keep: float | dict[str, float] | None = Field(
        None, description="In place of a threshold: the share of the corpus that is kept (0.1: the best tenth), or one by label."
    )
    of: Literal["passing", "all"] = Field(
        "passing", description="The documents of which `keep` is a share: those that pass all rules with a threshold, or all documents."
    )
    max_share: float | dict[str, float] | None = Field(
        None, description="With windows: a document fails where more than this share of them is at the classifier's threshold or above."
    )
    measure_only: bool = Field(False, description="Scores decide nothing, whatever a preset or a built-in would do.")
    raw: bool = Field(False, description="The model's uncalibrated scores go into the report, too (NAME_raw).")

    @model_validator(mode="after")
    def _decide_one_way(self) -> Self:
        if self.keep is not None and self.threshold is not None:
            raise ValueError("keep: a threshold is given, too; a kept share finds its own")
        for label, share in _by_label(self.keep).items():
            if not 0 < share <= 1:
                raise ValueError(f"keep{label and f'.{label}'}: a share is above 0 and at most 1, not {share}")
        for label, share in _by_label(self.max_share).items():
            if not 0 <= share <= 1:
                raise ValueError(f"max_share{label and f'.{label}'}: a share is between 0 and 1, not {share}")
        for label, value in _by_label(self.threshold).items():
            if value != "own" and value != value:
                raise ValueError(f"threshold{label and f'.{label}'}: not a number")
        if self.measure_only and not self.threshold == self.keep == self.max_share is None:
            raise ValueError("measure_only: then there is no threshold, keep or max_share")
        return self


def _by_label(value: Number | dict[str, Number] | None) -> dict[str, Number]:
    """Returns the values by label; a single value has the label ''."""
    if value is None:
        return {}
    return value if isinstance(value, dict) else {"": value}


class ModelOptions(DecisionOptions):
    """The options of one model: a classifier's folder, or a fastText model's file, by path or URL."""

    model: str | None = Field(
        None,
        description="Folder of a classifier (`corpusmill classifier train`), or a fastText model (.bin, .ftz); its path, relative to the "
        "recipe, or its URL (https, s3, hf and what fsspec knows), from which it is fetched once.",
    )
    sha256: str | None = Field(None, description="The expected sha256 of the file (for a folder: of its classifier.json).")
    preset: Preset | None = Field(None, description="The conventions of a public model (filters/classifier/options.py).")
    name: str | None = Field(None, description="Name of its columns; by default the classifier's or the preset's, else the file's.")
    form: Form | None = Field(
        None, description="Of a fastText model: how a text is written for it: plain (newlines are spaces), lower, words. Default: plain."
    )
    positive: str | dict[str, str] | None = Field(
        None, description="Of a fastText model: its label that means yes; or several, by the name of their column (NAME_KEY)."
    )
    values: dict[str, float] | None = Field(
        None, description="Of a fastText model whose labels are a scale: the number that each stands for. NAME is the expected value."
    )

    @field_validator("model")
    @classmethod
    def _from_recipe(cls, model: str | None, info: ValidationInfo) -> str | None:
        if model is None or is_remote(model):
            return model
        return str((Path((info.context or {}).get("folder", ".")) / model.removeprefix("file://")).resolve())

    @field_validator("name")
    @classmethod
    def _names_columns(cls, name: str | None) -> str | None:
        if name is not None and not NAME.fullmatch(name):
            raise ValueError(f"a column's name has letters, digits and underscores, and begins with a letter, not {name!r}")
        return name

    @field_validator("sha256")
    @classmethod
    def _is_hash(cls, sha256: str | None) -> str | None:
        if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
            raise ValueError("64 hexadecimal digits are needed")
        return sha256.lower() if sha256 else None

    @property
    def convention(self) -> Convention | None:
        return CONVENTIONS[self.preset] if self.preset else None

    @property
    def scale(self) -> Mapping[str, float]:
        """The number that each label of the model stands for; empty if its labels are no scale."""
        return self.values or (self.convention.values if self.convention else {})

    @property
    def is_file(self) -> bool:
        """Whether the model is a fastText file, not a classifier's folder."""
        return self.model is not None and self.model.partition("?")[0].endswith(FASTTEXT_FILES)

    @model_validator(mode="after")
    def _labels_have_a_meaning(self) -> Self:
        if self.model is None:
            return self
        if not self.is_file:
            given = [key for key in ("preset", "form", "positive", "values") if getattr(self, key) is not None]
            if given:
                raise ValueError(f"{given[0]}: a classifier's folder says that itself; it is for .bin and .ftz files")
            return self
        if (self.positive is not None) + (self.values is not None) > 1:
            raise ValueError("values: positive is given, too; a scale has no single answer yes")
        if self.preset and (self.positive is not None or self.values is not None):
            raise ValueError(f"preset: {self.preset} says what the labels mean, and so does {'values' if self.values else 'positive'}")
        if not (self.preset or self.positive or self.values):
            raise ValueError(f"positive: say which label of {self.model} means yes ({_labels_of(self.model)})")
        if self.scale and self.window:
            raise ValueError("values: the expected value is that of the whole text; window does not go with it")
        return self


def _labels_of(path: str) -> str:
    """Returns the labels of a local model, for a message."""
    try:
        labels = read_model(path).labels if not is_remote(path) else ()
    except (OSError, ValueError):
        labels = ()
    return f"it has {', '.join(labels[:20])}" if labels else "positive: __label__..."


class ClassifierConfig(ModelOptions):
    """Scores of a trained classifier or of a fastText model, and what the scores decide; several models with `models`."""

    models: tuple[ModelOptions, ...] = Field(
        (), description="Several, in place of `model`: each with the options of one; texts are read once."
    )
    only_passing: bool = Field(False, description="Documents that fail a rule of an earlier step are not scored (null), which saves time.")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        """Accepts `- classifier: PATH` and `- classifier: {models: [PATH, ...]}`."""
        if isinstance(given, Mapping) and isinstance(given.get("models"), list | tuple):
            given = {**given, "models": [{"model": item} if isinstance(item, str) else item for item in given["models"]]}
        return short_form(given, "model", cls) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _one_or_several(self) -> Self:
        if bool(self.models) == (self.model is not None):
            raise ValueError(
                "model: give one, or several with `models`" if self.models else "model: say which (a folder, a .bin or .ftz file, or a URL)"
            )
        misplaced = [
            key for key in ModelOptions.model_fields if self.models and getattr(self, key) != ModelOptions.model_fields[key].default
        ]
        if misplaced:
            raise ValueError(f"{misplaced[0]}: with `models`, each of them has its own")
        if any(options.model is None for options in self.models):
            raise ValueError("models: each needs a model")
        return self

    @property
    def each(self) -> tuple[ModelOptions, ...]:
        return self.models or (self,)


# ---- From a recipe's model to a classifier on this disk: fetches files, and describes a bare fastText model.

LABEL_PREFIX = "__label__"


@dataclass(frozen=True)
class Resolved:
    """A classifier whose files are on this disk: one model file for each head. `files`: the sha256 of each file, by name."""

    classifier: ClassifierDescription
    folder: Path
    files: dict[str, str]


def column_name(text: str) -> str:
    """Returns a label, or a file's name, as part of a column's name."""
    name = re.sub(r"\W+", "_", text.removeprefix(LABEL_PREFIX)).strip("_")
    return name if name[:1].isalpha() else f"model_{name}".rstrip("_")


def describe(options: ModelOptions) -> ClassifierDescription:
    """Returns what is known of a model before it is fetched: the description in a classifier's folder, or what the recipe and its preset
    say of a bare model, whose heads have no sha256 yet. From a URL, only the description is fetched. Raises InputError."""
    assert options.model is not None
    if not options.is_file:
        remote = is_remote(options.model)
        found = read_classifier(fetch(f"{options.model.rstrip('/')}/{FILE}", options.sha256).parent if remote else options.model)
        return found.model_copy(update={"window": options.window or found.window})
    convention, path = options.convention, Path(urlsplit(options.model).path)
    name = options.name or (convention.name if convention else column_name(path.stem))
    positive = options.positive or (convention.positive if convention else None)
    if values := options.scale:
        positive = {label: label for label in values}
    asked = positive if isinstance(positive, dict) else {name: positive}
    own = convention.threshold if convention and convention.threshold is not None else 0.5
    heads = [{"label": column_name(label), "file": path.name, "positive": meant, "threshold": own} for label, meant in asked.items()]
    card = {"model": options.model} | ({"preset": options.preset, "conventions": convention.source} if convention else {})
    form = options.form or (convention.form if convention else "plain")
    return ClassifierDescription.model_validate({"name": name, "form": form, "window": options.window, "heads": heads, "card": card})


def resolve(options: ModelOptions) -> Resolved:
    """Fetches all files of the classifier that are not on this disk. Raises InputError in one sentence."""
    assert options.model is not None
    classifier = describe(options)
    if options.is_file:
        path = fetch(options.model, options.sha256) if is_remote(options.model) else Path(options.model)
        check_sha256(path, found := sha256_of(path), options.sha256)
        heads = tuple(head.model_copy(update={"file": path.name, "sha256": found}) for head in classifier.heads)
        card = classifier.card | {"sha256": found}
        return Resolved(classifier.model_copy(update={"heads": heads, "card": card}), path.parent, {path.name: found})
    if is_remote(options.model):
        folder = _fetched_heads(options.model, classifier)
    else:
        folder = Path(options.model)
        check_sha256(folder / FILE, sha256_of(folder / FILE), options.sha256) if options.sha256 else None
    files = {head.file: sha256_of(folder / head.file) for head in classifier.heads}
    for head in classifier.heads:
        if files[head.file] != head.sha256:
            raise InputError(
                f"{folder / head.file}: it is another file than {FILE} means (its sha256 is {files[head.file]}, expected {head.sha256})."
            )
    return Resolved(classifier, folder, files)


def _fetched_heads(url: str, classifier: ClassifierDescription) -> Path:
    """Fetches the files of a classifier's heads; returns a folder with links to them.

    In the cache each file lies under its own sha256, so the links stand for the folder of the URL.
    """
    folder = cache_folder() / "models" / "folders" / classifier.digest()
    folder.mkdir(parents=True, exist_ok=True)
    for head in classifier.heads:
        file, link = fetch(f"{url.rstrip('/')}/{head.file}", head.sha256), folder / head.file
        if link.resolve() != file.resolve():
            link.unlink(missing_ok=True)
            link.symlink_to(file)
    return folder
