"""Counting the pieces that text is cut into (its words, in the language of BPE trainers)."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from corpusmill.tokenize.patterns import PATTERNS, PatternName

#: Words longer than this (characters) are no words: they are left out of training, which is quadratic in their length.
LONGEST_WORD = 1024
#: Rows of counts that are worth a pass of summing.
MERGE_ROWS = 1_000_000

COUNTS = pa.schema(
    [
        pa.field("language", pa.string()),  # null where the documents have no such column
        pa.field("word", pa.string(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
    ]
)


def splitter(pattern: PatternName) -> Any:
    """The `tokenizers` pre-tokenizer that cuts text by a pattern, and does nothing else."""
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Split(Regex(PATTERNS[pattern]), "isolated")


class WordCounter:
    """Counts the words of texts by language."""

    def __init__(self, pattern: PatternName):
        self.split = splitter(pattern).pre_tokenize_str
        self.counts: dict[str | None, Counter[str]] = {}
        self.left_out = 0  # occurrences of words longer than LONGEST_WORD

    def add(self, texts: Iterable[str], languages: Iterable[str | None]) -> None:
        for text, language in zip(texts, languages, strict=True):
            words = [word for word, _ in self.split(text)]
            kept = [word for word in words if len(word) <= LONGEST_WORD]
            self.left_out += len(words) - len(kept)
            self.counts.setdefault(language, Counter()).update(kept)

    def table(self) -> pa.Table:
        """All counts (schema COUNTS), sorted by language and word."""
        rows = [
            (language, word, count)
            for language in sorted(self.counts, key=lambda name: (name is not None, name or ""))
            for word, count in sorted(self.counts[language].items())
        ]
        columns = list(zip(*rows)) or [(), (), ()]
        return pa.table([pa.array(column, field.type) for column, field in zip(columns, COUNTS)], schema=COUNTS)


def merge_counts(tables: Iterable[pa.Table]) -> pa.Table:
    """The sum of tables of counts (64-bit), sorted by language and word whatever their order.

    Tables wait until they have as many rows as the sum so far, so that the work is that of a few passes over all rows.
    """
    merged, waiting = COUNTS.empty_table(), []
    for table in tables:
        waiting.append(table)
        if sum(part.num_rows for part in waiting) >= max(merged.num_rows, MERGE_ROWS):
            merged, waiting = _sum([merged, *waiting]), []
    return _sum([merged, *waiting]).sort_by([("language", "ascending"), ("word", "ascending")])


def _sum(tables: list[pa.Table]) -> pa.Table:
    sums = pa.concat_tables(tables).group_by(["language", "word"], use_threads=False).aggregate([("count", "sum")])
    return sums.rename_columns({"count_sum": "count"}).select(COUNTS.names).cast(COUNTS)
