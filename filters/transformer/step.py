"""The step `transformer`: each document's scores by a sequence classifier of transformers, on a GPU where there is one."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.filters.meanings import plain
from corpusmill.filters.rules import Rule
from corpusmill.filters.step import Batch, Measured, Step
from corpusmill.filters.transformer.config import NAME, TransformerConfig
from corpusmill.filters.transformer.model_folder import deciding_files, model_folder
from corpusmill.pipeline.errors import ConfigError, CorpusmillError

#: A float32 has seven digits; the last differs between processors.
DECIMALS = 6


class Transformer(Step):
    """Columns: NAME (one label) or NAME_LABEL for each, float64 of six decimals, NaN for a text without tokens; NAME_int as
    FineWeb-Edu's `int_score`. All go on with the documents."""

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

    def firing(self) -> dict[str, float]:
        return self.config.thresholds if self.config.comparison in (">", ">=") else {}

    @property
    def gpus(self) -> float:
        return 0.0 if self.config.device == "cpu" else self.config.gpus

    def model_files(self) -> list[str]:
        return deciding_files(model_folder(self.config.model, self.config.revision))

    def setup(self) -> None:
        from corpusmill.filters.transformer.model import load_classifier

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

    def measure(self, batch: Batch) -> Measured:
        scores = self.scores(batch)
        columns: dict[str, Any] = {
            column: np.round(scores[:, self.config.labels.index(label)], DECIMALS) for column, label in self.config.score_columns.items()
        }
        if self.config.whole_column and self.config.highest is not None:
            whole = np.rint(np.clip(scores[:, 0], 0, self.config.highest))
            columns[self.config.whole_column] = pa.array(np.nan_to_num(whole).astype(np.int64), mask=np.isnan(whole))
        return Measured(columns)

    def scores(self, batch: Batch) -> npt.NDArray[np.float64]:
        """(texts, labels); NaN for a text without tokens."""
        from corpusmill.filters.transformer.sequences import encode

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
        """Scores of texts from those of their windows, which begin at `starts`."""
        if self.config.windows == "max":
            return np.asarray(np.maximum.reduceat(found, starts), np.float64)
        sums = np.add.reduceat(found * weights[:, None], starts)
        return np.asarray(sums / np.add.reduceat(weights, starts)[:, None], np.float64)


def outputs(logits: npt.NDArray[np.float32], kind: str) -> npt.NDArray[np.float64]:
    """Scores from what a model gives, both (sequences, labels): the numbers themselves (`regression`), or probabilities."""
    values = logits.astype(np.float64)
    if kind == "regression":
        return values
    with np.errstate(over="ignore"):
        if kind == "sigmoid":
            return np.asarray(1 / (1 + np.exp(-values)), np.float64)
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)


def _which(batch: Batch, place: int) -> str:
    return f" for the document {batch.documents['id'][place].as_py()}" if "id" in batch.documents.column_names else ""
