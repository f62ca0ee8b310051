"""The options of the step `transformer`. What only the model knows (labels, kind of output, commit) is read from it and filled in."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from corpusmill.filters.transformer.model_folder import COMMIT, model_folder, read_description, read_labels
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import ConfigError

NAME = "transformer"


class TransformerConfig(Config):
    """Scores of a transformers sequence classifier, such as FineWeb-Edu's (extra `transformers`)."""

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
    window: int | None = Field(None, ge=1, description="All of a text counts, in windows of so many tokens, special ones included.")
    overlap: int = Field(0, ge=0, description="Tokens that a window has in common with the one before.")
    windows: Literal["max", "mean"] = Field("max", description="A text's score: the greatest of its windows, or their mean by tokens.")
    head_characters: int | None = Field(None, ge=1, description="Only so many characters of a text are tokenised.")
    batch_tokens: int | None = Field(
        None, ge=1, description="Tokens of a batch, padding included; by default 16,384 on a GPU, and on a CPU each text by itself."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="`auto`: float32 on a CPU, bfloat16 on a GPU.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto`: a GPU where there is one.")
    gpus: float = Field(1, gt=0, le=1, description="What a worker takes of a GPU: with 0.5, two share one.")
    labels: tuple[str, ...] = Field((), description="The model's labels in order; filled in from its configuration.")

    @model_validator(mode="before")
    @classmethod
    def _ask_model(cls, given: Any, info: ValidationInfo) -> Any:
        """Fills in what the model says. Where that has been done (`labels`), the model is not looked at, so a recipe stays readable."""
        if not isinstance(given, Mapping) or not isinstance(given.get("model"), str) or given.get("labels"):
            return given
        given = dict(given)
        beside = Path((info.context or {}).get("folder", ".")) / given["model"]
        if beside.is_dir():
            given["model"] = str(beside.resolve())
        try:
            folder = model_folder(given["model"], given.get("revision"))
            description = read_description(folder)
        except ConfigError as error:
            raise ValueError(str(error).removesuffix(".")) from error
        if not beside.is_dir() and COMMIT.fullmatch(folder.name):
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
            raise ValueError("window: all of a text counts, so max_length has no place")
        if self.overlap and (self.window is None or self.overlap >= self.window):
            raise ValueError("overlap: has to be smaller than `window`")
        return self

    @property
    def score_columns(self) -> dict[str, str]:
        """The label of each column of scores, by the column's name."""
        if self.label is not None:
            return {self.name: self.label}
        if len(self.labels) == 1:
            return {self.name: self.labels[0]}
        return {f"{self.name}_{_plain(label)}": label for label in self.labels}

    @property
    def thresholds(self) -> dict[str, float]:
        """The threshold of each column that decides, by the column's name."""
        if self.threshold is None:
            return {}
        if isinstance(self.threshold, Mapping):
            return {column: self.threshold[label] for column, label in self.score_columns.items() if label in self.threshold}
        return dict.fromkeys(self.score_columns, self.threshold)

    @property
    def whole_column(self) -> str | None:
        """The column of whole numbers, where there is one."""
        return f"{self.name}_int" if self.output == "regression" and len(self.labels) == 1 and self.highest is not None else None


def _plain(label: str) -> str:
    return re.sub(r"\W+", "_", label).strip("_")


def _kind_of_output(description: Mapping[str, Any], labels: int) -> str:
    """As transformers decides it; a model with one label that says nothing is a regression, as transformers trains it."""
    kinds = {"regression": "regression", "single_label_classification": "softmax", "multi_label_classification": "sigmoid"}
    said = kinds.get(str(description.get("problem_type")))
    if said == "softmax" and labels == 1:
        said = "sigmoid"
    return said or ("regression" if labels == 1 else "softmax")
