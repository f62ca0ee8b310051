"""How well a tokenizer fits the sample it was trained on."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from corpusmill.pipeline.special_tokens import SPECIAL_TOKENS
from corpusmill.tokenize.encode import Encoder


class _Tally:
    def __init__(self) -> None:
        self.utf8_bytes = self.tokens = self.words = self.split_words = 0

    def add(self, utf8_bytes: int, tokens: int, count: int) -> None:
        self.utf8_bytes += utf8_bytes * count
        self.tokens += tokens * count
        self.words += count
        self.split_words += count if tokens > 1 else 0

    def values(self) -> dict[str, Any]:
        return {
            "utf8_bytes": self.utf8_bytes,
            "tokens": self.tokens,
            "bytes_per_token": round(self.utf8_bytes / self.tokens, 4) if self.tokens else None,
            "words": self.words,
            "words_split": round(self.split_words / self.words, 4) if self.words else None,
        }


def judge(encoder: Encoder, counts: pa.Table) -> dict[str, Any]:
    """Bytes per token and the share of words cut into several tokens, in all and by language; tokens never used.

    `counts` (schema words.COUNTS) holds each word once a language, so each is encoded once and weighs as often as it occurs.
    """
    total, by_language = _Tally(), dict[str, _Tally]()
    uses = np.zeros(encoder.vocabulary_size, np.int64)
    for language, word, count in rows(counts):
        ids = encoder.encode_word(word)
        np.add.at(uses, ids, count)
        for tally in (total, by_language.setdefault(language, _Tally())) if language else (total,):
            tally.add(len(word.encode()), len(ids), count)
    return {
        "vocabulary_size": encoder.vocabulary_size,
        **total.values(),
        "unused_tokens": int((uses[len(SPECIAL_TOKENS) :] == 0).sum()),
        "languages": {name: by_language[name].values() for name in sorted(by_language)},
    }


def rows(counts: pa.Table) -> Iterable[tuple[str | None, str, int]]:
    """The rows of a table of counts, without making all of them Python objects at once."""
    for batch in counts.to_batches(max_chunksize=65_536):
        yield from zip(*(column.to_pylist() for column in batch.columns))
