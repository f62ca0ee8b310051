"""RefinedWeb's heuristics as DCLM reproduces them (baselines/mappers/filters/content_filters.py, dclm_baseline_refinedweb.yaml).

Where DCLM and others differ: the number of words is fastText's tokens that begin with a letter or number; length and
letters are those of `str.split`; stop words count with repetition, whatever their case; symbols are summed; lines are
stripped and empty ones left out. Of repeated lines, paragraphs and n-grams all copies count, the first one too. N-grams
are made of `uniseg`'s words without punctuation (`pipeline.text.word_breaks` says what that leaves open) and compared with
the characters of those; each word counts once; the most frequent n-gram counts only where it occurs twice, and of equally
frequent ones the longest does.
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
from corpusmill.pipeline.text.utf8 import CODE_POINTS, SURROGATES, character_classes

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
#: Kinds of characters beside those of `pipeline.text.utf8`: `str.isalnum`.
ALNUM = 128

#: In the order in which DCLM's pipeline has them.
RULES = (
    Rule("dclm_short_doc", "dclm_words", "<", 50),
    Rule("dclm_long_doc", "dclm_words", ">", 100_000),
    Rule("dclm_short_words", "dclm_mean_word_length", "<", 3),
    Rule("dclm_long_words", "dclm_mean_word_length", ">", 10),
    Rule("dclm_too_many_symbols", "dclm_symbol_word_ratio", ">", 0.1),
    Rule("dclm_too_many_bullets", "dclm_bullet_line_ratio", ">", 0.9),
    Rule("dclm_too_many_ellipses", "dclm_ellipsis_line_ratio", ">", 0.3),
    Rule("dclm_too_many_non_alpha_words", "dclm_non_alpha_word_ratio", ">", 0.2),
    Rule("dclm_too_few_stop_words", "dclm_stop_words", "<", 2),
    Rule("dclm_dup_line_frac", "dclm_dup_line_frac", ">", 0.3),
    Rule("dclm_dup_para_frac", "dclm_dup_para_frac", ">", 0.3),
    Rule("dclm_dup_line_char_frac", "dclm_dup_line_char_frac", ">", 0.2),
    Rule("dclm_dup_para_char_frac", "dclm_dup_para_char_frac", ">", 0.2),
    *(Rule(f"dclm_top_{n}_gram", f"dclm_top_{n}_gram_char_frac", ">", limit) for n, limit in ((2, 0.2), (3, 0.18), (4, 0.16))),
    *(Rule(f"dclm_dup_{n}_gram", f"dclm_dup_{n}_gram_char_frac", ">", round(0.2 - n / 100, 2)) for n in range(5, 11)),
)


class DclmConfig(Config):
    """DCLM's RefinedWeb heuristics: words, symbols, bullets, stop words, repeated lines, paragraphs and n-grams."""

    preset: Literal["dclm"] = Field("dclm", description="Whose rules decide.")


@cache
def _kinds() -> npt.NDArray[np.uint8]:
    kinds = character_classes().copy()
    for point in range(CODE_POINTS):
        if point not in SURROGATES and chr(point).isalnum():
            kinds[point] |= ALNUM
    return kinds


class Dclm(Step):
    Config = DclmConfig
    PRESETS = {"dclm": RULES}
    MEANINGS = {
        "dclm_words": "{count} words",
        "dclm_stop_words": f"{{count}} English stop words ({words_of(STOP_WORDS)})",
        "dclm_mean_word_length": "words of {number} characters on average",
        "dclm_symbol_word_ratio": "{share} as many symbols (# and ellipses) as words",
        "dclm_non_alpha_word_ratio": "{share} of the words have no letter",
        "dclm_bullet_line_ratio": "{share} of the lines begin with a bullet",
        "dclm_ellipsis_line_ratio": "{share} of the lines end with an ellipsis (...)",
        "dclm_dup_line_frac": "{share} of the lines are copies of an earlier one",
        "dclm_dup_line_char_frac": "{share} of the characters are in copies of an earlier line",
        "dclm_dup_para_frac": "{share} of the paragraphs are copies of an earlier one",
        "dclm_dup_para_char_frac": "{share} of the characters are in copies of an earlier paragraph",
        **n_grams("dclm_top_{}_gram_char_frac", "dclm_dup_{}_gram_char_frac"),
    }

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {
            "dclm_words": pa.int64(),  # fastText tokens that begin with a letter or number
            "dclm_stop_words": pa.int64(),
            "dclm_mean_word_length": pa.float64(),  # characters; NaN where there are no words
            "dclm_symbol_word_ratio": pa.float64(),
            "dclm_non_alpha_word_ratio": pa.float64(),
            "dclm_bullet_line_ratio": pa.float64(),  # NaN where all is blank, as the next five
            "dclm_ellipsis_line_ratio": pa.float64(),
            "dclm_dup_line_frac": pa.float64(),
            "dclm_dup_line_char_frac": pa.float64(),
            "dclm_dup_para_frac": pa.float64(),
            "dclm_dup_para_char_frac": pa.float64(),
            **{f"dclm_top_{n}_gram_char_frac": pa.float64() for n in (2, 3, 4)},  # NaN where there are no uniseg words
            **{f"dclm_dup_{n}_gram_char_frac": pa.float64() for n in range(5, 11)},
        }

    def measure(self, batch: Batch) -> Measured:
        from corpusmill.filters.dclm_kernel import measure_texts
        from corpusmill.pipeline.text.word_breaks import word_break_table

        data, offsets = text_buffers(batch.text)
        counts = np.zeros((len(batch), 2), np.int64)
        ratios = np.full((len(batch), len(self.columns) - 2), np.nan)
        measure_texts(data, offsets, _kinds(), word_break_table(), counts, ratios)
        return Measured(dict(zip(self.columns, [*counts.T, *ratios.T], strict=True)))
