"""The language of a document by fastText: label and score of the most likely one."""

from collections.abc import Mapping
from itertools import islice
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from corpusmill.filters.language_codes import LID_176, labels_for
from corpusmill.filters.models import language_model
from corpusmill.filters.rules import Rule
from corpusmill.filters.step import Batch, Measured, Step
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import ConfigError

#: The label of a text with too few letters to tell (ISO 639-2's code for "undetermined").
UNDETERMINED = "und"


def has_letters(text: str, wanted: int) -> bool:
    """Whether a text has so many letters; looks no further than needed."""
    return sum(1 for _ in islice(filter(str.isalpha, text), wanted)) == wanted


class LanguageConfig(Config):
    """Language identification with lid.176, or another fastText model."""

    keep: tuple[str, ...] = Field((), description="Languages to keep, as ISO 639 codes (en or eng); none means all of them.")
    threshold: float = Field(0.65, ge=0, le=1, description="A document goes on where the score is above this.")
    characters: int = Field(2000, ge=0, description="Judge by the first so many characters; 0 means all of them.")
    min_letters: int = Field(10, ge=0, description="With fewer letters than this the language is `und` with score 0.")
    model: str | None = Field(None, description="Path of a fastText model; by default lid.176.ftz from the user's cache.")

    @model_validator(mode="after")
    def _languages_exist(self) -> Self:
        if self.model is None:  # another model's labels are only known when it is loaded
            labels_for(self.keep, LID_176)
        return self


class Language(Step):
    Config = LanguageConfig
    document_columns = ("language", "language_score")

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {"language": pa.string(), "language_score": pa.float64()}

    @property
    def rules(self) -> tuple[Rule, ...]:
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
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"{path}: not a fastText model ({error}).") from error
        self._names: Mapping[str, str] = {label: label.removeprefix("__label__") for label in self.model.get_labels()}
        if self.config.model is not None:
            self._names = self._kept_names(path)

    def _kept_names(self, path: str) -> dict[str, str]:
        """Labels of another model by the code that the recipe has for them, so that the rule can compare."""
        names = dict(self._names)
        for code in self.config.keep:
            try:
                wanted = labels_for([code], frozenset(self._names.values()))
            except ValueError as error:
                raise ConfigError(f"{path}: {error}.") from error
            names.update({f"__label__{label}": code for label in wanted})
        return names

    def measure(self, batch: Batch) -> Measured:
        text = batch.text if self.config.characters == 0 else pc.utf8_slice_codeunits(batch.text, 0, self.config.characters)
        texts = pc.replace_substring(text, "\n", " ").to_pylist()
        labels, scores = self.predict(texts)
        short = [place for place, text in enumerate(texts) if not has_letters(text, self.config.min_letters)]
        labels[short], scores[short] = UNDETERMINED, 0.0
        return Measured({"language": labels, "language_score": scores})

    def predict(self, texts: list[str]) -> tuple[Any, Any]:
        """`(labels, scores)` of texts without newlines: object and float64 arrays. A text that has no features is undetermined."""
        labels = np.full(len(texts), UNDETERMINED, object)
        scores = np.zeros(len(texts), np.float64)
        if texts:
            for place, (label, score) in enumerate(zip(*self.model.predict(texts, k=1))):
                if len(label):
                    labels[place], scores[place] = self._names[label[0]], min(float(score[0]), 1.0)
        return labels, scores
