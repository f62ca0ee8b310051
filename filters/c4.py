"""C4's line rules: lines that are not natural sentences are dropped, the rest is the new text.

Every document is measured and rewritten as if no document-level rule existed, so that thresholds can be changed later.
Presets:

* `datatrove-0.10`, also called `c4-datatrove`: datatrove's C4QualityFilter with its defaults (at least 3 words a line, end
  marks . ? ! " ', 5 sentences);
* `fineweb`: the same, and lines need no end mark;
* `c4-paper`: what made C4 (Raffel et al. 2020, JMLR 21/140; `clean_page` of tensorflow_datasets/text/c4_utils.py): at least
  5 words a line, counted after citations are gone, end marks . ? ! ", 3 sentences.

"lorem ipsum" and { speak against a document only on lines that passed the rules before them, in all of these.
Sentences of the lines that stay are counted by spaCy's rule in datatrove's presets, as there. C4 had the punkt model of NLTK;
`c4-paper` counts by end marks (`pipeline.text.sentences`), the one value that is not the original's: on 7,846 real pages
its verdict was punkt's in 99.8 %, the number of sentences in 85 %.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, model_validator

from corpusmill.filters.rules import Rule
from corpusmill.filters.step import Batch, Measured, Step
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.text.buffers import text_array
from corpusmill.pipeline.text.utf8 import character_classes


def _rules(sentences: int) -> tuple[Rule, ...]:
    return (
        Rule("lorem_ipsum", "c4_lorem_ipsum_lines", ">", 0),
        Rule("curly_bracket", "c4_curly_bracket_lines", ">", 0),
        Rule("too_few_sentences", "c4_sentences", "<", sentences),
    )


#: Preset to the options in which it differs from datatrove's defaults.
OPTIONS: dict[str, dict[str, Any]] = {
    "fineweb": {"filter_no_terminal_punct": False},
    "c4-paper": {"min_words_per_line": 5, "end_marks": '.?!"', "words_in_citations": False, "sentence_rule": "marks"},
}


class C4Config(Config):
    """C4: keep lines of natural sentences, and documents that have enough of them."""

    preset: Literal["datatrove-0.10", "c4-datatrove", "fineweb", "c4-paper"] = Field(
        "datatrove-0.10", description="Whose rules decide, and whose options hold where none are given."
    )
    filter_no_terminal_punct: bool = Field(
        True, description="Drop lines that do not end in an end mark, or that end in ... (FineWeb does not)."
    )
    end_marks: str = Field(".?!\"'", pattern=r"^[!-~]+$", description="The characters that end a line well (ASCII).")
    min_words_per_line: int = Field(3, ge=0, description="Drop lines with fewer words than this.")
    words_in_citations: bool = Field(True, description="Count the words of a line before citations are removed, as datatrove does.")
    sentence_rule: Literal["spacy", "marks"] = Field(
        "spacy", description="What counts sentences: spaCy's English rule, or end marks of any language (4 times as fast)."
    )
    max_word_length: int = Field(1000, ge=1, description="Drop lines with a longer word than this.")
    remove_citations: bool = Field(True, description="Remove [1], [edit] and [citation needed].")
    filter_javascript: bool = Field(True, description="Drop lines that mention javascript.")
    filter_policy: bool = Field(True, description="Drop lines about cookies, privacy policy and terms of use.")

    @model_validator(mode="before")
    @classmethod
    def _preset_options(cls, options: Any) -> Any:
        """The options of the preset, where the recipe has no others."""
        if isinstance(options, dict) and isinstance(options.get("preset"), str):
            return OPTIONS.get(options["preset"], {}) | options
        return options


class C4(Step):
    Config = C4Config
    PRESETS = {"datatrove-0.10": _rules(5), "c4-datatrove": _rules(5), "fineweb": _rules(5), "c4-paper": _rules(3)}
    MEANINGS = {
        "c4_lorem_ipsum_lines": '{count} lines with "lorem ipsum", a filler text',
        "c4_curly_bracket_lines": "{count} lines with a curly bracket, as in program code",
        "c4_sentences": "{count} sentences in the lines that are natural text",
    }
    config: C4Config
    rewrites = True

    @property
    def columns(self) -> dict[str, pa.DataType]:
        names = ("lines", "kept_lines", "long_word_lines", "unpunctuated_lines", "short_lines", "javascript_lines", "policy_lines",
                 "lorem_ipsum_lines", "curly_bracket_lines", "sentences")  # fmt: skip
        return {f"c4_{name}": pa.int64() for name in names}

    def measure(self, batch: Batch) -> Measured:
        from corpusmill.filters.c4_kernel import COUNTS, KEPT, line_spans, rewrite_texts, strip_texts

        data, offsets = batch.buffers()
        by_tokens = self.config.sentence_rule == "spacy"
        marks = batch.token_marks() if by_tokens else np.empty(0, np.uint8)
        classes = character_classes()
        end_marks = np.zeros(256, np.bool_)
        end_marks[list(self.config.end_marks.encode())] = True
        new_data, new_marks, new_offsets = np.empty_like(data), np.empty_like(marks), np.empty_like(offsets)
        counts = np.zeros((len(batch), COUNTS), np.int64)
        limits = (self.config.min_words_per_line, self.config.max_word_length)
        rewrite_texts(data, offsets, marks, classes, end_marks, self._flags(), *limits, new_data, new_offsets, new_marks, counts)
        lines = counts[:, KEPT]
        starts, ends = np.empty((2, lines.sum()), np.int64)
        line_spans(new_data, new_offsets, lines, starts, ends)
        sentences = _sentences_by_tokens(new_data, starts, ends, new_marks) if by_tokens else _sentences_by_marks(new_data, starts, ends)
        strip_texts(new_data, new_marks, new_offsets, classes)
        columns = dict(zip(self.columns, [*counts.T, _sums(sentences, lines)]))
        length = new_offsets[-1]
        return Measured(columns, text_array(new_data[:length], new_offsets), new_marks[:length] if by_tokens else None)

    def _flags(self) -> int:
        from corpusmill.filters import c4_kernel as kernel

        flags = (
            (self.config.filter_no_terminal_punct, kernel.PUNCTUATED),
            (self.config.remove_citations, kernel.NO_CITATIONS),
            (self.config.filter_javascript, kernel.NO_JAVASCRIPT),
            (self.config.filter_policy, kernel.NO_POLICY),
            (not self.config.words_in_citations, kernel.WORDS_WITHOUT_CITATIONS),
        )
        return sum(flag for wanted, flag in flags if wanted)


def _sentences_by_tokens(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], marks: npt.NDArray[np.uint8]
) -> npt.NDArray[np.int64]:
    """int64: the sentences of each line by spaCy's rule. Tokens of lines that citations were taken from are marked first."""
    from corpusmill.filters.c4_kernel import CHANGED
    from corpusmill.pipeline.text.spacy_tokens import count_spacy_sentences, mark_again

    filled = np.flatnonzero(starts < ends)
    changed = filled[marks[starts[filled]] == CHANGED]
    marks[starts[changed]] = 0
    mark_again(data, starts[changed], ends[changed], marks)
    return count_spacy_sentences(data, starts, ends, marks)


def _sentences_by_marks(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    from corpusmill.pipeline.text.sentences import count_sentences

    return count_sentences(data, starts, ends)


def _sums(values: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """int64: the sums of neighbours, of which the i-th has `lengths[i]`."""
    before, stops = np.concatenate([[0], np.cumsum(values)]), np.cumsum(lengths)
    sums: npt.NDArray[np.int64] = before[stops] - before[stops - lengths]
    return sums
