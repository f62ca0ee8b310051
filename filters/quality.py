"""A first quality score: a logistic model on the values that the heuristics measure anyway.

The coefficients lie in `quality_model.json`, fitted by `benchmarks/fit_quality.py` to human labels of mostly English
pages; the file says on how many and how well they fit in cross-validation.
"""

import json
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from corpusmill.filters.gopher_quality import STOP_WORDS
from corpusmill.filters.rules import Rule
from corpusmill.filters.statistics import LINES, NEWLINE_LINES, REPETITION, WORDS, Needs, Statistics
from corpusmill.filters.step import Batch, Measured, Step
from corpusmill.pipeline.config import Config

MODEL = "quality_model.json"
NEEDS = Needs(WORDS | LINES | REPETITION | NEWLINE_LINES, stop_words=STOP_WORDS, short_line_length=30)


def features(found: Statistics) -> dict[str, npt.NDArray[np.float64]]:
    """The model's inputs, one float64 array each. A ratio without a denominator is 0."""
    ratios = {
        "mean_word_length": found.ratio("nonsymbol_characters", "nonsymbol_words"),
        "alpha_word_ratio": found.ratio("alpha_words", "words"),
        "symbol_word_ratio": 1 - found.ratio("nonsymbol_words", "words"),
        "stop_words": found["stop_words"] / len(STOP_WORDS),
        "terminal_line_ratio": found.ratio("terminal_lines", "filled_lines"),
        "short_line_ratio": found.ratio("short_lines", "filled_lines"),
        "bullet_line_ratio": found.ratio("bullet_lines", "lines"),
        "ellipsis_line_ratio": found.ratio("ellipsis_lines", "lines"),
        "repeated_line_characters": found.ratio("repeated_line_run_characters", "characters"),
        "top_2_gram": found.ratio("top_2", "characters"),
        "duplicated_5_gram": found.ratio("duplicated_5", "characters"),
        "log_words": np.log1p(found["words"]),
        "log_words_per_line": np.log1p(found.ratio("words", "filled_lines")),
    }
    return {name: np.nan_to_num(values, nan=0.0) for name, values in ratios.items()}


@cache
def model() -> Any:
    """The fitted model: `intercept`, and for each feature `mean`, `scale` and `coefficient`."""
    return json.loads((resources.files("corpusmill.filters") / MODEL).read_text())


def score(inputs: dict[str, npt.NDArray[np.float64]], fitted: Any) -> npt.NDArray[np.float64]:
    """Scores in [0, 1]. Features are added one after the other, so a score does not depend on the batch."""
    total = np.full(len(next(iter(inputs.values()))), fitted["intercept"], np.float64)
    for name, feature in fitted["features"].items():
        total += (inputs[name] - feature["mean"]) / feature["scale"] * feature["coefficient"]
    return np.asarray(1 / (1 + np.exp(-np.clip(total, -30, 30))), np.float64)


class QualityConfig(Config):
    """A quality score in [0, 1] from the measured heuristics."""

    threshold: float = Field(0.0, ge=0, le=1, description="A document goes on where its score is not below this; 0 keeps all.")


class Quality(Step):
    Config = QualityConfig
    document_columns = ("quality",)

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {"quality": pa.float64()}

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (Rule("quality", "quality", "<", self.config.threshold),)

    @property
    def needs(self) -> Needs:
        return NEEDS

    def measure(self, batch: Batch) -> Measured:
        return Measured({"quality": score(features(batch.statistics(NEEDS)), model())})
