"""The language of a document by fastText: label and score of the most likely one, and of others where a recipe asks for them.

Labels and scores are those of datatrove's `LanguageFilter` (newlines become spaces) where all of the text is judged; scores above 1,
which fastText's rounding gives, are 1 here.
"""

from collections.abc import Mapping
from itertools import islice
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from corpusmill.filters.language_codes import LID_176, labels_for, split_script
from corpusmill.filters.models import language_model
from corpusmill.filters.rules import Rule
from corpusmill.filters.step import Batch, Measured, Step
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import ConfigError

#: The label of a text with too few letters to tell (ISO 639-2's code for "undetermined").
UNDETERMINED = "und"
PREFIX = "__label__"
ALL = -1  # fastText's number for all labels


def has_letters(text: str, wanted: int) -> bool:
    """Whether a text has so many letters; looks no further than needed."""
    return sum(1 for _ in islice(filter(str.isalpha, text), wanted)) == wanted


class LanguageConfig(Config):
    """Language identification with lid.176, or another fastText model."""

    keep: tuple[str, ...] = Field((), description="Languages to keep, as ISO 639 codes (en or eng, zh_Hans); none means all of them.")
    match: Literal["top", "any"] = Field(
        "top",
        description="`top`: the most likely language must be one of `keep`; `any`: it is enough that one of them, likely or not, "
        "has a score above the threshold, as in datatrove.",
    )
    threshold: float = Field(0.65, ge=0, le=1, description="A document goes on where the score is above this.")
    characters: int = Field(2000, ge=0, description="Judge by the first so many characters; 0 means all of them.")
    min_letters: int = Field(10, ge=0, description="With fewer letters than this the language is `und` with score 0.")
    top: int = Field(0, ge=0, description="So many of the most likely labels, with scores, go into the report.")
    model: str | None = Field(None, description="Path of a fastText model, such as GlotLID; by default lid.176.ftz from the user's cache.")

    @model_validator(mode="after")
    def _languages_exist(self) -> Self:
        if self.model is None:  # another model's labels are only known when it is loaded
            labels_for(self.keep, LID_176)
        if self.match == "any" and not self.keep:
            raise ValueError("match: any asks for languages in `keep`")
        return self


class Language(Step):
    """Columns of the report: `language` (without script; where `keep` names the label, as `keep` writes it), `language_script`
    (ISO 15924; null where the model's labels have none, as those of lid.176), `language_score`; with `match: any` the
    `language_wanted_score`, which is the best among the languages to keep; with `top` the lists `language_labels` and
    `language_scores`, in falling order, as the model calls them."""

    Config = LanguageConfig

    def __init__(self, config: LanguageConfig):
        super().__init__(config)
        self.document_columns = ("language", "language_score", *(("language_script",) if config.model else ()))

    @property
    def columns(self) -> dict[str, pa.DataType]:
        columns = {"language": pa.string(), "language_score": pa.float64(), "language_script": pa.string()}
        if self.config.match == "any":
            columns["language_wanted_score"] = pa.float64()
        if self.config.top:
            columns |= {"language_labels": pa.list_(pa.string()), "language_scores": pa.list_(pa.float64())}
        return columns

    @property
    def rules(self) -> tuple[Rule, ...]:
        if self.config.match == "any":
            return (Rule("language_score", "language_wanted_score", "<=", self.config.threshold),)
        score = Rule("language_score", "language_score", "<=", self.config.threshold)
        if not self.config.keep:
            return (score,)
        wanted = self.config.keep if self.config.model else labels_for(self.config.keep, LID_176)
        return (Rule("language", "language", "not in", tuple(wanted)), score)

    def model_files(self) -> list[str]:
        return [language_model(self.config.model)]

    def setup(self) -> None:
        from fasttext.FastText import _FastText  # load_model of older distributions prints a warning

        path = language_model(self.config.model)
        try:
            self.model = _FastText(path)
            self.model.predict("")  # of a model of word vectors alone: an error
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"{path}: not a fastText model that tells languages ({error}).") from error
        labels = frozenset(label.removeprefix(PREFIX) for label in self.model.get_labels())
        self._names: Mapping[str, str] = {label: split_script(label)[0] for label in labels}
        try:
            self._wanted = frozenset(labels_for(self.config.keep, labels))
            if self.config.model is not None:  # as the recipe calls them, so that the rule compares what it names
                self._names |= {label: code for code in self.config.keep for label in labels_for([code], labels)}
        except ValueError as error:
            raise ConfigError(f"{path}: {error}.") from error

    def measure(self, batch: Batch) -> Measured:
        text = batch.text if self.config.characters == 0 else pc.utf8_slice_codeunits(batch.text, 0, self.config.characters)
        texts = pc.replace_substring(text, "\n", " ").to_pylist()
        predictions = self.predict(texts, ALL if self.config.match == "any" else max(1, self.config.top))
        columns = _best(predictions, self._names)
        if self.config.match == "any":
            columns["language_wanted_score"] = np.array([self._wanted_score(*prediction) for prediction in predictions], np.float64)
        if self.config.top:
            columns["language_labels"] = [labels[: self.config.top] for labels, _ in predictions]
            columns["language_scores"] = [scores[: self.config.top] for _, scores in predictions]
        return Measured(columns)

    def predict(self, texts: list[str], k: int) -> list[tuple[list[str], list[float]]]:
        """`(labels, scores)` of the k most likely labels of each text, in falling order. Texts must be without newlines.

        Both are empty for a text with too few letters, or without anything that the model knows.
        """
        if not texts:
            return []
        return [
            ([label.removeprefix(PREFIX) for label in labels], np.minimum(scores, 1.0).astype(np.float64).tolist())
            if has_letters(text, self.config.min_letters)
            else ([], [])
            for text, labels, scores in zip(texts, *self.model.predict(texts, k=k))
        ]

    def _wanted_score(self, labels: list[str], scores: list[float]) -> float:
        return next((score for label, score in zip(labels, scores) if label in self._wanted), 0.0)


def _best(predictions: list[tuple[list[str], list[float]]], names: Mapping[str, str]) -> dict[str, Any]:
    """Columns of the most likely label of each text."""
    language: npt.NDArray[np.object_] = np.full(len(predictions), UNDETERMINED, object)
    script = np.full(len(predictions), None, object)
    score = np.zeros(len(predictions), np.float64)
    for place, (labels, scores) in enumerate(predictions):
        if labels:
            language[place], script[place], score[place] = names[labels[0]], split_script(labels[0])[1], scores[0]
    return {"language": language, "language_score": score, "language_script": script}
