"""The options of a classifier in a recipe: the model, the meaning of its labels, and which scores keep a document."""

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import Field, FiniteFloat, ValidationInfo, field_validator, model_validator

from corpusmill.filters.classifier.card import FILE, ClassifierDescription, ClassifierHead, Form, read_classifier
from corpusmill.filters.classifier.corpora import code_key
from corpusmill.filters.classifier.spec import TrainingSpec, read_spec
from corpusmill.filters.fasttext_model import read_model
from corpusmill.pipeline.cache import cache_folder, check_sha256, fetch, made, sha256_of
from corpusmill.pipeline.config import Config, digest
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.extras import CLASSIFIERS, require
from corpusmill.pipeline.names import instead_of
from corpusmill.pipeline.storage import is_remote

Where = Literal["high", "low"]
Preset = Literal["dclm", "dolma-jigsaw-hatespeech", "dolma-jigsaw-nsfw", "fineweb-edu", "textbook-quality"]
#: By preset: `options`, the defaults of a recipe's options for a public model, and their `source`.
PRESETS: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("conventions.yaml").read_text("utf-8"))
#: Endings of fastText's files. Any other model in a recipe is a classifier's folder.
FASTTEXT_FILES = (".bin", ".ftz")


class ClassifierConfig(Config):
    """Scores of a trained classifier or of a fastText model, and what the scores decide."""

    #: The name of a step that has one score of its own (`quality`, ...), and its defaults for these options.
    STEP: ClassVar[str] = ""
    DEFAULTS: ClassVar[Mapping[str, Any]] = {}

    model: str | None = Field(
        None,
        description="Folder of a classifier (`corpusmill classifier train`), or a fastText model (.bin, .ftz); its path, relative to the "
        "recipe, or its URL (https, hf or an object store), from which it is fetched once.",
    )
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="The expected sha256 of the file (for a folder: of its classifier.json)."
    )
    preset: Preset | None = Field(None, description="A public model whose conventions give the defaults (classifier/conventions.yaml).")
    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z]\w{0,63}$",
        description="Name of its columns; by default the classifier's or the preset's, else the file's.",
    )
    form: Form | None = Field(
        None, description="Of a fastText model: how a text is written for it: plain (newlines are spaces), lower, words. Default: plain."
    )
    positive: str | dict[str, str] | None = Field(
        None, description="Of a fastText model: its label that means yes; or several, by the name of their column (NAME_KEY)."
    )
    values: dict[str, float] | None = Field(
        None, description="Of a fastText model whose labels are a scale: the number that each stands for. NAME is the expected value."
    )
    window: int | None = Field(
        None, ge=1, description="Words of a window: a score is the greatest of the windows'. By default as the classifier has it."
    )
    keep_where: Where | None = Field(
        None, description="Which scores are good: `high` (quality) or `low` (toxicity). Presets and the steps with these names set it."
    )
    threshold: Literal["own"] | FiniteFloat | dict[str, Literal["own"] | FiniteFloat] | None = Field(
        None,
        description="Where the verdict changes: a number, or `own` for the classifier's; or one of these by label. With high scores "
        "kept, a document fails below it, else from it on. A single one is for the label that has the classifier's name, else for all. "
        "null: nothing is dropped, whatever a preset says.",
    )
    keep: float | dict[str, float] | None = Field(
        None, description="In place of a threshold: the share of the corpus that is kept (0.1: the best tenth), or one by label."
    )
    of: Literal["passing", "all"] = Field(
        "passing", description="The documents of which `keep` is a share: those that pass all rules with a threshold, or all documents."
    )
    only_passing: bool = Field(False, description="Documents that fail a rule of an earlier step are not scored (null), which saves time.")

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, given: Any) -> Any:
        """Accepts `- classifier: PATH`, and fills in the defaults of a preset and of a named step."""
        given = {"model": given} if isinstance(given, str) else given
        if not isinstance(given, Mapping):
            return given
        preset = PRESETS[given["preset"]]["options"] if given.get("preset") in PRESETS else {}
        found_by_share = {"threshold": None} if given.get("keep") is not None else {}
        return {**preset, **cls.DEFAULTS, **found_by_share, **given}

    @field_validator("model")
    @classmethod
    def _from_recipe(cls, model: str | None, info: ValidationInfo) -> str | None:
        if model is None or is_remote(model):
            return model
        return str((Path((info.context or {}).get("folder", ".")) / model.removeprefix("file://")).resolve())

    @property
    def is_file(self) -> bool:
        """Whether the model is a fastText file, not a classifier's folder."""
        return self.model is not None and self.model.partition("?")[0].endswith(FASTTEXT_FILES)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.keep is not None and self.threshold is not None:
            raise ValueError("keep: a threshold is given, too; a kept share finds its own")
        for share in self.keep.values() if isinstance(self.keep, dict) else [1.0 if self.keep is None else self.keep]:
            if not 0 < share <= 1:
                raise ValueError(f"keep: a share is above 0 and at most 1, not {share}")
        if self.model is None and self.STEP not in BUILTIN:
            raise ValueError(f"model: {NO_MODEL[self.STEP] if self.STEP else 'say which (a folder, a .bin or .ftz file, or a URL)'}")
        if not self.is_file:
            for key in ("preset", "form", "positive", "values"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key}: a classifier's folder says that itself; it is for .bin and .ftz files")
        elif self.positive is None and self.values is None:
            raise ValueError(f"positive: say which label of {self.model} means yes ({_labels_of(str(self.model))})")
        elif self.positive is not None and self.values is not None:
            raise ValueError("values: positive is given, too; a scale has no single answer yes")
        elif self.values and self.window:
            raise ValueError("values: the expected value is that of the whole text; window does not go with it")
        return self


def _labels_of(path: str) -> str:
    """Returns the labels of a local model, for a message."""
    try:
        labels = read_model(path).labels if not is_remote(path) else ()
    except (OSError, ValueError):
        labels = ()
    return f"it has {', '.join(labels[:20])}" if labels else "positive: __label__..."


# ---- The steps `quality`, `toxicity` and `spam`: the options of `classifier` with other defaults.
#
# The model of `quality` is trained at first use, on data from registry packages. It puts pages in order, so it decides by a kept share or
# by a threshold in the recipe; without these it drops nothing. `toxicity` and `spam` need a model from the user: no package has text that
# people have judged for toxicity, nor spam of the web, and classifiers made without such text fired on most clean pages
# (docs/stages/classifiers.md).

BUILTIN = ("quality",)
#: For steps without a built-in model: why there is none, and how to make one.
NO_MODEL = {
    name: f"none is built in, since no package ships {what}; train one on labelled texts (`corpusmill classifier train labelled.jsonl "
    f"--output models/{name}`, where `label` is 1 or 0) and name it: `- {name}: models/{name}` (docs/stages/classifiers.md)"
    for name, what in (("toxicity", "text that people have judged"), ("spam", "judged spam of the web"))
}


class QualityConfig(ClassifierConfig):
    """A quality score in [0, 1]; by default of a built-in classifier: edited prose against mail. Drops nothing by default."""

    STEP = "quality"
    DEFAULTS: ClassVar[Mapping[str, Any]] = {"name": "quality", "keep_where": "high", "threshold": None}


class ToxicityConfig(ClassifierConfig):
    """A toxicity score in [0, 1] by a classifier of yours; drops nothing by default."""

    STEP = "toxicity"
    DEFAULTS: ClassVar[Mapping[str, Any]] = {"name": "toxicity", "keep_where": "low", "threshold": None}


class SpamConfig(ClassifierConfig):
    """A spam score in [0, 1] by a classifier of yours; drops nothing by default."""

    STEP = "spam"
    DEFAULTS: ClassVar[Mapping[str, Any]] = {"name": "spam", "keep_where": "low", "threshold": None}


# ---- From a recipe's model to a classifier on this disk: fetches files, and describes a bare fastText model.


@dataclass(frozen=True)
class Resolved:
    """A classifier whose files are on this disk: one model file for each head. `files`: the sha256 of each file, by name."""

    classifier: ClassifierDescription
    folder: Path
    files: dict[str, str]


def column_name(text: str) -> str:
    """Returns a label, or a file's name, as part of a column's name."""
    name = re.sub(r"\W+", "_", text.removeprefix("__label__")).strip("_")
    return name if name[:1].isalpha() else f"model_{name}".rstrip("_")


def score_column(name: str, label: str) -> str:
    """Returns the column of a label's score: the classifier's name where the label has the same name, else `NAME_LABEL`."""
    label = column_name(label)
    return name if label == name else f"{name}_{label}"


def describe(options: ClassifierConfig) -> ClassifierDescription:
    """Returns what is known of a model before it is fetched or trained: the description in a classifier's folder (from a URL, this alone is
    fetched), what the specification of a built-in one says, or what the recipe says of a bare model. Heads of the last two have no sha256
    yet. Raises InputError."""
    if options.model is None:
        spec = read_spec([options.STEP])
        heads = tuple(ClassifierHead(label=label, file=f"{label}.ftz") for label in spec.labels)
        return ClassifierDescription(name=spec.name, form=spec.form, window=options.window or spec.window, ranks=spec.ranks, heads=heads)
    if options.is_file:
        return _described_by(options, options.model)
    remote = is_remote(options.model)
    return _of_folder(fetch(f"{options.model.rstrip('/')}/{FILE}", options.sha256).parent if remote else options.model, options)


def _of_folder(folder: str | Path, options: ClassifierConfig) -> ClassifierDescription:
    found = read_classifier(folder)
    return found.model_copy(update={"window": options.window or found.window})


def _described_by(options: ClassifierConfig, model: str) -> ClassifierDescription:
    """Returns the description of a bare model."""
    path = Path(urlsplit(model).path)
    name = options.name or column_name(path.stem)
    asked: Mapping[str, str | None] = options.positive if isinstance(options.positive, dict) else {name: options.positive}
    if options.values:
        asked = {label: label for label in options.values}
    own = PRESETS[options.preset]["options"].get("threshold", 0.5) if options.preset else 0.5
    heads = [{"label": column_name(label), "file": path.name, "positive": meant, "threshold": own} for label, meant in asked.items()]
    card = {"model": model} | ({"preset": options.preset, "conventions": PRESETS[options.preset]["source"]} if options.preset else {})
    given = {"name": name, "form": options.form or "plain", "window": options.window, "heads": heads, "card": card}
    return ClassifierDescription.model_validate(given)


def resolve(options: ClassifierConfig, on_message: Callable[[str], None] = lambda _: None) -> Resolved:
    """Fetches all files of the classifier that are not on this disk, and trains a built-in one at its first use. `on_message` receives a
    sentence if that takes long. Raises InputError in one sentence."""
    if options.model is None:
        folder = builtin(options.STEP, on_message)
        return _checked(folder, _of_folder(folder, options))
    classifier = describe(options)
    if options.is_file:
        path = fetch(options.model, options.sha256) if is_remote(options.model) else Path(options.model)
        check_sha256(path, found := sha256_of(path), options.sha256)
        heads = tuple(head.model_copy(update={"file": path.name, "sha256": found}) for head in classifier.heads)
        return Resolved(
            classifier.model_copy(update={"heads": heads, "card": classifier.card | {"sha256": found}}), path.parent, {path.name: found}
        )
    if is_remote(options.model):
        return _checked(_fetched_heads(options.model, classifier), classifier)
    folder = Path(options.model)
    check_sha256(folder / FILE, sha256_of(folder / FILE), options.sha256)
    return _checked(folder, classifier)


def _checked(folder: Path, classifier: ClassifierDescription) -> Resolved:
    """Raises InputError if a file of the heads is another one than the description means."""
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


# ---- A built-in classifier is trained at first use from registry packages, and kept in the user's cache.

FOLDER = "classifiers"  # folder in the user's cache


def builtin(name: str, on_message: Callable[[str], None] = lambda _: None) -> Path:
    """Returns the folder of a built-in classifier (card.py); trains it where it is missing or damaged, a minute on two cores.

    The folder's name has a digest of the specification and the code, so another version of these has another folder. Several processes may
    call it at once: one trains, the others wait. Raises InputError in one sentence.
    """
    if name not in BUILTIN:
        raise InputError(f"{name}: {NO_MODEL.get(name, f'no such folder or built-in classifier{instead_of(name, BUILTIN)}')}.")
    require(name, *CLASSIFIERS)
    spec = read_spec([name])
    folder = cache_folder() / FOLDER / f"{name}-{builtin_key(spec)}"

    def train() -> None:
        from corpusmill.filters.classifier.train import train_classifier

        on_message(f"{name}: trains the built-in classifier from registry packages, once.")
        shutil.rmtree(folder, ignore_errors=True)
        train_classifier(spec, folder, on_message)

    return made(folder / FILE, folder, train).parent


def builtin_key(spec: TrainingSpec) -> str:
    """Returns 16 hex digits that depend on the specification and on the code that trains."""
    return digest([spec.model_dump(mode="json"), code_key("corpusmill.filters.classifier.train")])[:16]
