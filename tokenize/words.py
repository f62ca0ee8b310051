"""Counting the pieces that text is cut into (its words, in the language of BPE trainers), and adding counts up.

Counts are cut into ranges of words by hash, so that what many tasks counted is added up range by range.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.text.buffers import text_array, text_buffers
from corpusmill.tokenize.patterns import regex_of
from corpusmill.tokenize.piece_rules import piece_classes, rule_of
from corpusmill.tokenize.word_table import COUNT, ENTRIES, FIELDS, LEFT_OUT, SHAPE, count_texts, count_words, gather_letters, ranges_of

COUNTS = pa.schema(
    [
        pa.field("language", pa.string()),  # null where the documents have no such column
        pa.field("word", pa.large_string(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
    ]
)
Column: TypeAlias = pa.ChunkedArray | pa.Array
#: Texts that the regular expressions of `tokenizers` cut at once.
CUT_AT_ONCE = 256


def splitter(pattern: str) -> Any:
    """The `tokenizers` pre-tokenizer that cuts text by a pattern (a known name's, or a regular expression), and does nothing else."""
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Split(Regex(regex_of(pattern)), "isolated")


class WordCounts:
    """How often each word occurs in each language. Words of more than `word_table.LONGEST_WORD` characters are left out, and counted."""

    def __init__(self) -> None:
        self.languages: dict[str | None, int] = {}
        self.arrays = np.zeros(1 << 15, np.uint64), np.empty((1 << 14, FIELDS), np.int64), np.empty(1 << 17, np.uint8)
        self.state = np.zeros(3, np.int64)

    @property
    def left_out(self) -> int:
        """Occurrences of words that were too long."""
        return int(self.state[LEFT_OUT])

    def __len__(self) -> int:
        return int(self.state[ENTRIES])

    def add_texts(self, texts: Column, languages: Column | None, regex: str) -> None:
        """Counts the pieces of each text: in a kernel where there is one that cuts as the expression does, else by `tokenizers`."""
        rule = rule_of(regex)
        if rule is None:
            self._cut_and_add(texts, languages, regex)
            return
        data, offsets = text_buffers(texts)
        groups = self._groups(languages, len(texts))
        self.arrays = count_texts(*self.arrays, self.state, data, offsets, groups, rule.number, rule.digits, piece_classes())

    def add_words(self, words: Column, languages: Column | None, counts: npt.NDArray[np.int64]) -> None:
        """Adds counts of words."""
        data, offsets = text_buffers(words)
        self.arrays = count_words(*self.arrays, self.state, data, offsets, self._groups(languages, len(words)), counts)

    def _cut_and_add(self, texts: Column, languages: Column | None, regex: str) -> None:
        split = splitter(regex).pre_tokenize_str
        for start in range(0, len(texts), CUT_AT_ONCE):
            cut = [[word for word, _ in split(text)] for text in texts.slice(start, CUT_AT_ONCE).to_pylist()]
            words = pa.array([word for words in cut for word in words], pa.large_string())
            repeated = np.repeat(np.arange(start, start + len(cut)), [len(words) for words in cut])
            self.add_words(words, None if languages is None else languages.take(pa.array(repeated)), np.ones(len(words), np.int64))

    def _groups(self, languages: Column | None, rows: int) -> npt.NDArray[np.int32]:
        """The number of each row's language."""
        if languages is None:
            return np.full(rows, self.languages.setdefault(None, len(self.languages)), np.int32)
        array = languages.combine_chunks() if isinstance(languages, pa.ChunkedArray) else languages
        coded = array.dictionary_encode("encode")
        names = coded.dictionary.to_pylist()
        numbers = np.array([self.languages.setdefault(name, len(self.languages)) for name in names], np.int32)
        return numbers[coded.indices.to_numpy(zero_copy_only=False)] if rows else np.zeros(0, np.int32)

    def tables(self, ranges: int = 1) -> list[pa.Table]:
        """The counts (schema COUNTS), a table for each range of words by hash, each in the order in which its words were first seen."""
        _, entries, letters = self.arrays
        entries = entries[: len(self)]
        found = ranges_of(entries, letters, ranges)
        names = pa.array(list(self.languages), pa.string())
        tables = []
        for number in range(ranges):
            order = np.flatnonzero(found == number)
            languages = names.take(pa.array(entries[order, SHAPE] >> 32)) if len(self) else names.slice(0, 0)
            columns = [languages, text_array(*gather_letters(entries, letters, order)), pa.array(entries[order, COUNT])]
            tables.append(pa.table(columns, schema=COUNTS))
        return tables
