"""The step `transformer`: scores documents by a sequence classifier of the package transformers, on a GPU if there is one."""

import contextlib
import fnmatch
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, ValidationInfo, model_validator

from corpusmill.filters.rules import Rule, plain
from corpusmill.filters.step import DocumentBatch, Step, StepOutput
from corpusmill.pipeline.config import Config, parse_json
from corpusmill.pipeline.errors import ConfigError, CorpusmillError, InputError
from corpusmill.pipeline.extras import require

# ---- Where a model of transformers lies: in the user's folder, or on Hugging Face's hub, fetched into the hub's own cache.
#
# Only weights in safetensors are used, and no code of the model is run: a model may come from a stranger.

CONFIG = "config.json"
WEIGHTS = "*.safetensors"
#: The files that change a score: weights, configuration, and all files of a tokenizer.
DECIDING = (
    CONFIG, WEIGHTS, "*.safetensors.index.json",
    "tokenizer*", "vocab*", "merges.txt", "*.model", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
NEITHER = "there is no such folder, and it is no name of a model on Hugging Face's hub"
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
COMMIT = re.compile(r"[0-9a-f]{40}")


def model_folder(model: str, revision: str | None = None) -> Path:
    """Returns the local folder of a model: `model` if it is a folder, else its folder in the hub's cache, fetched if necessary.

    A `revision` (branch, tag or commit; None: main) that is in the cache is used as it is, so a branch stays as it was when it was fetched.
    Raises ConfigError, or InputError where a library is missing, in one sentence.
    """
    require("the step transformer", "transformers", "torch")
    folder = Path(model)
    if folder.is_dir():
        _check(folder, model)
        return folder
    if folder.is_absolute() or not HUB_NAME.fullmatch(model):
        raise ConfigError(f"{model}: {NEITHER}.")
    folder = _hub_folder(model, revision)
    _check(folder, f"{model}, as far as Hugging Face's hub or the cache of it give it here")
    return folder


def _hub_folder(model: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        with contextlib.suppress(LocalEntryNotFoundError):
            cached = Path(snapshot_download(model, revision=revision, local_files_only=True))
            if _names(cached, CONFIG) and _names(cached, WEIGHTS):
                return cached
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(DECIDING)))
    except Exception as error:
        offline = isinstance(error, LocalEntryNotFoundError)
        line = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(" .:")  # the hub's errors are paragraphs with links
        reason = "it is not in the cache, and the hub can't be reached or HF_HUB_OFFLINE is set" if offline else line
        raise ConfigError(f"{model}: there is no such folder, and it can't be had from Hugging Face's hub ({reason}).") from error


def _names(folder: Path, *patterns: str) -> list[str]:
    names = (path.name for path in folder.iterdir() if path.is_file())
    return sorted(name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))


def _check(folder: Path, model: str) -> None:
    if not _names(folder, CONFIG):
        raise ConfigError(f"{model}: not a transformers model (it has no {CONFIG}).")
    if not _names(folder, WEIGHTS):
        raise ConfigError(f"{model}: has no weights in safetensors, and pickled ones are not read (convert them with save_pretrained).")


def deciding_files(folder: Path) -> list[str]:
    """Returns the paths of all files in a model's folder that change a score."""
    return [str(folder / name) for name in _names(folder, *DECIDING)]


def read_description(folder: Path) -> dict[str, Any]:
    """Reads the model's `config.json`. Raises ConfigError in one sentence."""
    path = folder / CONFIG
    try:
        description = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a model's configuration ({error}).") from error
    if not isinstance(description, dict) or "model_type" not in description:
        raise ConfigError(f"{path}: not a model's configuration (it names no model_type).")
    return description


def read_labels(description: dict[str, Any]) -> tuple[str, ...]:
    """Returns a model's labels in the order of its outputs, as transformers reads them from a configuration (by default two)."""
    named = description.get("id2label")
    if isinstance(named, dict) and named:
        return tuple(str(name) for _, name in sorted(named.items(), key=lambda item: int(item[0])))
    return tuple(f"LABEL_{number}" for number in range(int(description.get("num_labels") or 2)))


# ---- The options. Labels, kind of output and commit are read from the model and filled in

NAME = "transformer"


class TransformerConfig(Config):
    """Options of the step that scores texts with a sequence classifier of transformers, such as FineWeb-Edu's."""

    model: str = Field(description="A model's folder (relative to the recipe), or its name on Hugging Face's hub.")
    revision: str | None = Field(None, description="Branch, tag or commit on the hub; the commit is what the run records.")
    name: str = Field(NAME, pattern=r"^[A-Za-z]\w*$", description="What its columns and rules are called.")
    label: str | None = Field(None, description="The one label whose score is wanted, as column NAME; by default NAME_LABEL for each.")
    output: Literal["auto", "regression", "softmax", "sigmoid"] = Field(
        "auto",
        description="What a score is: the model's number as it is, or its probability among all labels or for each label by itself. "
        "`auto`: as the model's problem_type says, else `regression` for one label, `softmax` for several.",
    )
    highest: int | None = Field(
        5, ge=1, description="Regression with one label: NAME_int is the score as a whole number from 0 to this; null: no such column."
    )
    threshold: float | dict[str, float] | None = Field(
        None,
        description="A document fails where `score comparison threshold`; with several columns a threshold for each label that decides.",
    )
    comparison: Literal["<", "<=", ">", ">="] = Field("<", description="`<` keeps high scores, `>` low ones.")
    max_length: int | None = Field(
        None, ge=1, description="Tokens of a text that count, special ones included; by default as many as tokenizer and model take."
    )
    window: int | None = Field(None, ge=1, description="Tokens of a window, special ones included; the whole text counts.")
    overlap: int = Field(0, ge=0, description="Tokens that a window has in common with the one before.")
    windows: Literal["max", "mean"] = Field("max", description="A text's score: the greatest of its windows, or their mean by tokens.")
    head_characters: int | None = Field(None, ge=1, description="The number of characters at the start of a text that are tokenised.")
    batch_tokens: int | None = Field(
        None, ge=1, description="Tokens of a batch, padding included; by default 16,384 on a GPU, and on a CPU each text by itself."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="`auto`: float32 on a CPU, bfloat16 on a GPU.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto`: a GPU where there is one.")
    gpus: float = Field(1, gt=0, le=1, description="The share of a GPU for each worker; with 0.5, two workers share one.")
    labels: tuple[str, ...] = Field((), description="The model's labels in order; filled in from its configuration.")

    @model_validator(mode="before")
    @classmethod
    def _ask_model(cls, given: Any, info: ValidationInfo) -> Any:
        """Fills in the model's labels, kind of output and commit.

        If `labels` are given, the model is not read, so a recipe can be read without it.
        """
        if not isinstance(given, Mapping) or not isinstance(given.get("model"), str) or given.get("labels"):
            return given
        given = dict(given)
        local = Path((info.context or {}).get("folder", ".")) / given["model"]
        if local.is_dir():
            given["model"] = str(local.resolve())
        try:
            folder = model_folder(given["model"], given.get("revision"))
            description = read_description(folder)
        except InputError as error:
            raise ValueError(str(error).removesuffix(".")) from error
        if not local.is_dir() and COMMIT.fullmatch(folder.name):
            given["revision"] = folder.name
        given["labels"] = read_labels(description)
        if given.get("output", "auto") == "auto":
            given["output"] = _kind_of_output(description, len(given["labels"]))
        return given

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.label is not None and self.label not in self.labels:
            raise ValueError(f"label: the model has none that is called {self.label!r} (it has {', '.join(self.labels)})")
        if self.output == "softmax" and len(self.labels) == 1:
            raise ValueError("output: with one label, softmax gives 1 for every text (take regression or sigmoid)")
        columns = list(self.score_columns)
        if self.label is None and len(columns) < len(self.labels):
            raise ValueError("two of the model's labels would give one column, so name one `label`")
        if isinstance(self.threshold, Mapping):
            unknown = [label for label in self.threshold if label not in self.score_columns.values()]
            if unknown:
                raise ValueError(f"threshold: no score of a label {unknown[0]!r} (there are {', '.join(self.score_columns.values())})")
        elif self.threshold is not None and len(columns) > 1:
            raise ValueError("threshold: with several labels it has to name those that decide, as `threshold: {LABEL: 0.5}`")
        if not all(math.isfinite(threshold) for threshold in self.thresholds.values()):
            raise ValueError("threshold: expected a number")
        if self.window is not None and self.max_length is not None:
            raise ValueError("window: the whole text counts, so max_length can't be given too")
        if self.overlap and (self.window is None or self.overlap >= self.window):
            raise ValueError("overlap: has to be smaller than `window`")
        return self

    @property
    def score_columns(self) -> dict[str, str]:
        """The label of each score column, by the column's name."""
        if self.label is not None:
            return {self.name: self.label}
        if len(self.labels) == 1:
            return {self.name: self.labels[0]}
        return {f"{self.name}_{_plain(label)}": label for label in self.labels}

    @property
    def thresholds(self) -> dict[str, float]:
        """The threshold of each column with a rule, by the column's name."""
        if self.threshold is None:
            return {}
        if isinstance(self.threshold, Mapping):
            return {column: self.threshold[label] for column, label in self.score_columns.items() if label in self.threshold}
        return dict.fromkeys(self.score_columns, self.threshold)

    @property
    def whole_column(self) -> str | None:
        """The name of the column of whole numbers; None if there is none."""
        return f"{self.name}_int" if self.output == "regression" and len(self.labels) == 1 and self.highest is not None else None


def _plain(label: str) -> str:
    return re.sub(r"\W+", "_", label).strip("_")


def _kind_of_output(description: Mapping[str, Any], labels: int) -> str:
    """Returns the kind of output as transformers decides it.

    A model with one label and no problem_type is a regression, as transformers trains it.
    """
    kinds = {"regression": "regression", "single_label_classification": "softmax", "multi_label_classification": "sigmoid"}
    kind = kinds.get(str(description.get("problem_type")))
    if kind == "softmax" and labels == 1:
        kind = "sigmoid"
    return kind or ("regression" if labels == 1 else "softmax")


# ---- The step

#: Decimals of a score. A float32 has seven digits, and the last differs between processors.
DECIMALS = 6


class Transformer(Step):
    """The step `transformer`. The kept documents get all its columns.

    NAME (one label) or NAME_LABEL for each label: float64 with six decimals, NaN for a text without tokens. NAME_int: the score as a whole
    number, as FineWeb-Edu's `int_score`.
    """

    Config = TransformerConfig
    config: TransformerConfig

    def __init__(self, config: TransformerConfig):
        super().__init__(config)
        self.label = "" if config.name == NAME else config.name
        self.document_columns = tuple(self.columns)

    @property
    def columns(self) -> dict[str, pa.DataType]:
        columns = dict.fromkeys(self.config.score_columns, pa.float64())
        return {**columns, self.config.whole_column: pa.int64()} if self.config.whole_column else columns

    @property
    def rules(self) -> tuple[Rule, ...]:
        return tuple(Rule(column, column, self.config.comparison, threshold) for column, threshold in self.config.thresholds.items())

    @property
    def meanings(self) -> Mapping[str, str]:
        model = plain(self.config.model)
        return {column: f"a score of {{number}} by the model {model} ({plain(column)})" for column in self.columns}

    def bad_from(self) -> dict[str, float]:
        return self.config.thresholds if self.config.comparison in (">", ">=") else {}

    @property
    def gpus(self) -> float:
        return 0.0 if self.config.device == "cpu" else self.config.gpus

    def model_files(self) -> list[str]:
        return deciding_files(model_folder(self.config.model, self.config.revision))

    def setup(self) -> None:
        from corpusmill.filters.transformer_model import load_classifier

        config = self.config
        name = config.model
        self.classifier = load_classifier(model_folder(config.model, config.revision), name, config.device, config.dtype)
        if self.classifier.labels != config.labels:
            raise ConfigError(f"{name}: has the labels {', '.join(self.classifier.labels)}, not {', '.join(config.labels)} as before.")
        tokenizer = self.classifier.tokenizer
        self.longest = self.classifier.longest(config.window or config.max_length)
        self.special = tokenizer.num_special_tokens_to_add()
        if self.longest - config.overlap <= self.special:
            raise ConfigError(f"{name}: inputs of {self.longest} tokens have no room for text ({self.special} are special).")
        if config.window is not None and not tokenizer.is_fast:
            raise ConfigError(f"{name}: its tokenizer can't cut texts into windows (it is none of the package tokenizers).")
        self.batch_tokens = self.classifier.batch_tokens(config.batch_tokens)

    def measure(self, batch: DocumentBatch) -> StepOutput:
        scores = self.scores(batch)
        columns: dict[str, Any] = {
            column: np.round(scores[:, self.config.labels.index(label)], DECIMALS) for column, label in self.config.score_columns.items()
        }
        if self.config.whole_column and self.config.highest is not None:
            whole = np.rint(np.clip(scores[:, 0], 0, self.config.highest))
            columns[self.config.whole_column] = pa.array(np.nan_to_num(whole).astype(np.int64), mask=np.isnan(whole))
        return StepOutput(columns)

    def scores(self, batch: DocumentBatch) -> npt.NDArray[np.float64]:
        """(texts, labels): the scores; NaN for a text without tokens."""
        from corpusmill.filters.transformer_model import encode

        config = self.config
        sequences = encode(
            self.classifier.tokenizer, batch.text, self.longest, config.window is not None, config.overlap, config.head_characters
        )
        found = outputs(self.classifier.logits(sequences, self.longest, self.batch_tokens), config.output)
        broken = np.flatnonzero(~np.isfinite(found).all(axis=1))
        if broken.size:
            raise CorpusmillError(f"{config.model}: gives scores that are no numbers{_which(batch, int(sequences.document[broken[0]]))}.")
        scores = np.full((len(batch), found.shape[1]), np.nan)
        if len(found):
            starts = np.flatnonzero(np.r_[True, np.diff(sequences.document) > 0])
            scores[sequences.document[starts]] = self._joined(found, starts, np.maximum(sequences.tokens - self.special, 1))
        return scores

    def _joined(
        self, found: npt.NDArray[np.float64], starts: npt.NDArray[np.int64], weights: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """Returns the scores of texts from the scores of their windows. `starts`: each text's first window."""
        if self.config.windows == "max":
            return np.asarray(np.maximum.reduceat(found, starts), np.float64)
        sums = np.add.reduceat(found * weights[:, None], starts)
        return np.asarray(sums / np.add.reduceat(weights, starts)[:, None], np.float64)


def outputs(logits: npt.NDArray[np.float32], kind: str) -> npt.NDArray[np.float64]:
    """Returns scores from logits, both (sequences, labels): the numbers themselves (`regression`), or probabilities."""
    values = logits.astype(np.float64)
    if kind == "regression":
        return values
    with np.errstate(over="ignore"):
        if kind == "sigmoid":
            return np.asarray(1 / (1 + np.exp(-values)), np.float64)
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)


def _which(batch: DocumentBatch, place: int) -> str:
    return f" for the document {batch.documents['id'][place].as_py()}" if "id" in batch.documents.column_names else ""
