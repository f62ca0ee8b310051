"""What the heuristic families need to know about a text, measured for a batch of texts in one pass of compiled kernels."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.stage import load_object
from corpusmill.pipeline.text.buffers import MARKED, text_buffers
from corpusmill.pipeline.text.utf8 import character_classes

#: Shares the spare bit of the character classes: datatrove's TERMINAL_PUNCTUATION.
TERMINAL = 128

#: Groups of statistics that a family can ask for; what nobody asks for is not measured.
WORD_COUNT, LINES, REPETITION, NEWLINE_LINES = 1, 4, 8, 16
WORDS = 2 | WORD_COUNT  # the number of words comes with all that is known of them

#: One int64 column each, in the order of the kernel's output row.
NAMES = (
    "characters", "newlines",
    "words", "word_characters", "nonsymbol_words", "nonsymbol_characters", "alpha_words", "stop_words", "hashes", "ellipses",
    "lines", "bullet_lines", "ellipsis_lines",
    "paragraphs", "repeated_paragraphs", "repeated_paragraph_characters",
    "line_runs", "repeated_line_runs", "repeated_line_run_characters",
    "top_2", "top_3", "top_4", "duplicated_5", "duplicated_6", "duplicated_7", "duplicated_8", "duplicated_9", "duplicated_10",
    "filled_lines", "terminal_lines", "short_lines", "repeated_filled_line_characters",
)  # fmt: skip


@dataclass(frozen=True)
class Needs:
    """What a step wants measured. None for an option means that any value will do."""

    groups: int = 0
    stop_words: tuple[str, ...] | None = None
    short_line_length: int | None = None

    def covers(self, other: "Needs") -> bool:
        """Whether what was measured for this one serves the other too."""
        return self.groups | other.groups == self.groups and all(
            theirs is None or theirs == mine
            for mine, theirs in ((self.stop_words, other.stop_words), (self.short_line_length, other.short_line_length))
        )

    def joined(self, other: "Needs") -> "Needs":
        """Both in one pass where their options agree, else this one alone."""
        stop_words = other.stop_words if self.stop_words is None else self.stop_words
        short = other.short_line_length if self.short_line_length is None else self.short_line_length
        both = Needs(self.groups | other.groups, stop_words, short)
        return both if both.covers(other) else self


@cache
def datatrove_classes() -> npt.NDArray[np.uint8]:
    """The character classes with datatrove's PUNCTUATION_SET and, as TERMINAL, its TERMINAL_PUNCTUATION."""
    from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION

    table = character_classes(frozenset(PUNCTUATION_SET)).copy()
    for character in TERMINAL_PUNCTUATION:
        table[ord(character)] |= TERMINAL
    return table


@cache
def _tables(word_rule: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint64]]:
    from corpusmill.pipeline.text.words import base_powers, word_rule_classes

    return word_rule_classes(word_rule, datatrove_classes()), base_powers()


@cache
def _stop_word_table(stop_words: tuple[str, ...]) -> npt.NDArray[np.uint64]:
    """An open-addressed table of the words' hashes, so sparse that lookups end at once."""
    from corpusmill.pipeline.text.hashing import insert, table_size
    from corpusmill.pipeline.text.words import hash_word

    table = np.zeros(32 * table_size(len(stop_words)), np.uint64)
    for word in stop_words:
        insert(table, table.size - 1, hash_word(word))
    return table


class Statistics:
    """The statistics of a batch: `statistics["words"]` is an int64 array with one number a text.

    Groups that were not asked for are zero.
    """

    def __init__(self, values: npt.NDArray[np.int64]):
        self.values = values  # (len(NAMES), texts)

    def __getitem__(self, name: str) -> npt.NDArray[np.int64]:
        column: npt.NDArray[np.int64] = self.values[NAMES.index(name)]
        return column

    def ratio(self, above: str, below: str) -> npt.NDArray[np.float64]:
        """float64 quotients of two statistics; NaN (which never decides) where the denominator is 0."""
        return ratio(self[above], self[below])


def ratio(above: Any, below: Any) -> npt.NDArray[np.float64]:
    """`above / below` as Python's `/` gives it, NaN where `below` is 0."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below != 0)


def measure(text: pa.Array | pa.ChunkedArray, word_rule: str, needs: Needs, token_marks: npt.NDArray[np.uint8] | None = None) -> Statistics:
    """Statistics of every text of a column under a word rule: one of `pipeline.text.words`, or `spacy`. Texts must be valid UTF-8.

    `token_marks`: those of `spacy_tokens.mark_tokens` for the bytes from the first text on, where the caller has them.
    """
    from corpusmill.filters.statistics_kernel import measure_texts

    data, offsets = text_buffers(text)
    marks = np.zeros(0, np.uint8)
    if word_rule == "spacy" and needs.groups & (WORD_COUNT | REPETITION):
        data, offsets = data[offsets[0] : offsets[-1]], offsets - offsets[0]
        marks = load_object(MARKED["spacy"])(data, offsets[:-1], offsets[1:]) if token_marks is None else token_marks
    word_classes, powers = _tables("words" if word_rule == "spacy" else word_rule)
    stop_words = _stop_word_table(needs.stop_words or ())
    values = np.zeros((len(offsets) - 1, len(NAMES)), np.int64)
    measure_texts(
        data, offsets, marks, needs.groups, datatrove_classes(), word_classes, powers, stop_words, needs.short_line_length or 0, values
    )
    return Statistics(np.ascontiguousarray(values.T))
