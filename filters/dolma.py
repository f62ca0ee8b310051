"""Gopher's heuristics as the Dolma toolkit's taggers `gopher_v1` and `gopher_v2` measure them (dolma/taggers/gopher.py).

Where Dolma and others differ: the median word length; words of `str.split`; required words count with repetition, as they
are written; symbols are words that hold "#" or "…"; bullets are * and - at the very start of a line; of repeated lines all
copies count, empty ones among them (`gopher_v1`); characters of repeated n-grams count in every n-gram that they lie in, and
are compared with those of all n-grams counted the same way.
"""

from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from corpusmill.filters.meanings import n_grams, words_of
from corpusmill.filters.rules import Rule
from corpusmill.filters.step import Batch, Measured, Step
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.text.buffers import text_buffers
from corpusmill.pipeline.text.utf8 import character_classes

REQUIRED_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
#: Kind of a character beside those of `pipeline.text.utf8`.
SYMBOL = 128

NAMES = (
    "words", "median_word_length", "symbol_word_ratio", "alpha_word_ratio", "required_words",
    "bullet_lines", "ellipsis_lines", "duplicate_lines", "duplicate_line_characters",
    *(f"top_{n}" for n in (2, 3, 4)),
    *(f"duplicated_{n}" for n in range(5, 11)),
)  # fmt: skip

#: The limits of Dolma's own statistics over Common Crawl (`gopher_rules`).
RULES = (
    Rule("dolma_short_doc", "dolma_words", "<", 50),
    Rule("dolma_long_doc", "dolma_words", ">", 100_000),
    Rule("dolma_short_words", "dolma_median_word_length", "<", 3),
    Rule("dolma_long_words", "dolma_median_word_length", ">", 10),
    Rule("dolma_too_many_symbols", "dolma_symbol_word_ratio", ">", 0.1),
    Rule("dolma_too_few_alpha_words", "dolma_alpha_word_ratio", "<", 0.8),
    Rule("dolma_too_few_required_words", "dolma_required_words", "<", 2),
    Rule("dolma_too_many_bullets", "dolma_bullet_line_ratio", ">", 0.9),
    Rule("dolma_too_many_ellipses", "dolma_ellipsis_line_ratio", ">", 0.3),
    Rule("dolma_dup_line_frac", "dolma_dup_line_frac", ">", 0.3),
    Rule("dolma_dup_line_char_frac", "dolma_dup_line_char_frac", ">", 0.3),
    *(Rule(f"dolma_top_{n}_gram", f"dolma_top_{n}_gram_char_frac", ">", limit) for n, limit in ((2, 0.2), (3, 0.18), (4, 0.16))),
    *(Rule(f"dolma_dup_{n}_gram", f"dolma_dup_{n}_gram_char_frac", ">", round(0.2 - n / 100, 2)) for n in range(5, 11)),
)


class DolmaConfig(Config):
    """Dolma's Gopher heuristics: words, symbols, bullets, repeated lines and n-grams."""

    preset: Literal["dolma"] = Field("dolma", description="Whose rules decide.")
    tagger: Literal["gopher_v1", "gopher_v2"] = Field("gopher_v1", description="`gopher_v2` leaves empty lines out.")


@cache
def _tables() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint64]]:
    from corpusmill.pipeline.text.hashing import word_set

    kinds = character_classes().copy()
    for symbol in "#…":
        kinds[ord(symbol)] |= SYMBOL
    return kinds, word_set(REQUIRED_WORDS)


class Dolma(Step):
    Config = DolmaConfig
    PRESETS = {"dolma": RULES}
    MEANINGS = {
        "dolma_words": "{count} words",
        "dolma_median_word_length": "words of {number} characters (median)",
        "dolma_symbol_word_ratio": "{share} as many words with # or … as words",
        "dolma_alpha_word_ratio": "{share} of the words have a letter",
        "dolma_required_words": f"{{count}} English stop words ({words_of(REQUIRED_WORDS)})",
        "dolma_bullet_line_ratio": "{share} of the lines begin with a bullet (* or -)",
        "dolma_ellipsis_line_ratio": "{share} of the lines end with an ellipsis (...)",
        "dolma_dup_line_frac": "{share} of the lines occur more than once",
        "dolma_dup_line_char_frac": "{share} of the characters are in lines that occur more than once",
        **n_grams("dolma_top_{}_gram_char_frac", "dolma_dup_{}_gram_char_frac"),
    }

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {
            "dolma_words": pa.int64(),
            "dolma_median_word_length": pa.float64(),  # characters; 0 where there are no words
            "dolma_symbol_word_ratio": pa.float64(),  # 0 where there are no words, as the next one
            "dolma_alpha_word_ratio": pa.float64(),
            "dolma_required_words": pa.int64(),
            "dolma_bullet_line_ratio": pa.float64(),
            "dolma_ellipsis_line_ratio": pa.float64(),
            "dolma_dup_line_frac": pa.float64(),
            "dolma_dup_line_char_frac": pa.float64(),  # over the characters of words: can be above 1
            **{f"dolma_top_{n}_gram_char_frac": pa.float64() for n in (2, 3, 4)},  # NaN for fewer than n words
            **{f"dolma_dup_{n}_gram_char_frac": pa.float64() for n in range(5, 11)},
        }

    def measure(self, batch: Batch) -> Measured:
        from corpusmill.filters.dolma_kernel import measure_texts

        data, offsets = text_buffers(batch.text)
        values = np.full((len(batch), len(NAMES)), np.nan)
        measure_texts(data, offsets, *_tables(), self.config.tagger == "gopher_v2", values)
        found = dict(zip(self.columns, values.T, strict=True))
        return Measured(found | {name: found[name].astype(np.int64) for name in ("dolma_words", "dolma_required_words")})
