"""Gopher's quality heuristics (MassiveText, arXiv 2112.11446, A1.1) as datatrove measures them."""

from collections.abc import Mapping
from typing import Literal

import pyarrow as pa
from pydantic import Field

from corpusmill.filters.meanings import words_of
from corpusmill.filters.rules import Rule
from corpusmill.filters.statistics import LINES, WORDS, Needs
from corpusmill.filters.step import Batch, Measured, Step
from corpusmill.pipeline.config import Config

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")


DATATROVE = (
    Rule("gopher_short_doc", "gopher_words", "<", 50),
    Rule("gopher_long_doc", "gopher_words", ">", 100_000),
    Rule("gopher_below_avg_threshold", "gopher_mean_word_length", "<", 3),
    Rule("gopher_above_avg_threshold", "gopher_mean_word_length", ">", 10),
    Rule("gopher_too_many_hashes", "gopher_hash_ratio", ">", 0.1),
    Rule("gopher_too_many_ellipsis", "gopher_ellipsis_ratio", ">", 0.1),
    Rule("gopher_too_many_bullets", "gopher_bullet_line_ratio", ">", 0.9),
    Rule("gopher_too_many_end_ellipsis", "gopher_ellipsis_line_ratio", ">", 0.3),
    Rule("gopher_below_alpha_threshold", "gopher_alpha_word_ratio", "<", 0.8),
    Rule("gopher_enough_stop_words", "gopher_stop_words", "<", 2),
)

#: The paper counts every word; datatrove leaves words of nothing but punctuation out of number and length.
PAPER = (
    Rule("gopher_short_doc", "gopher_all_words", "<", 50),
    Rule("gopher_long_doc", "gopher_all_words", ">", 100_000),
    Rule("gopher_below_avg_threshold", "gopher_mean_all_word_length", "<", 3),
    Rule("gopher_above_avg_threshold", "gopher_mean_all_word_length", ">", 10),
    *DATATROVE[4:],
)

#: For the word rule `characters`, where a word is mostly one character: limits of our own, no paper's. 50 words of Chinese are about 80
#: characters; lengths of words and English stop words say nothing.
CHARACTERS = (
    Rule("gopher_short_doc", "gopher_words", "<", 80),
    Rule("gopher_long_doc", "gopher_words", ">", 160_000),
    *DATATROVE[4:9],
)


class GopherQualityConfig(Config):
    """Gopher quality: number and length of words, symbols, bullets, ellipses, alphabetic words, stop words."""

    preset: Literal["datatrove-0.10", "fineweb", "gopher-paper", "characters"] = Field("datatrove-0.10", description="Whose rules decide.")
    stop_words: tuple[str, ...] = Field(STOP_WORDS, description="Words of which a text has to have some, as they are written.")


class GopherQuality(Step):
    Config = GopherQualityConfig
    PRESETS = {"datatrove-0.10": DATATROVE, "fineweb": DATATROVE, "gopher-paper": PAPER, "characters": CHARACTERS}
    MEANINGS = {
        "gopher_words": "{count} words",
        "gopher_all_words": "{count} words",
        "gopher_mean_word_length": "words of {number} characters on average",
        "gopher_mean_all_word_length": "words of {number} characters on average",
        "gopher_hash_ratio": "{share} as many # signs as words",
        "gopher_ellipsis_ratio": "{share} as many ellipses (...) as words",
        "gopher_bullet_line_ratio": "{share} of the lines begin with a bullet",
        "gopher_ellipsis_line_ratio": "{share} of the lines end with an ellipsis (...)",
        "gopher_alpha_word_ratio": "{share} of the words have a letter",
    }

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {
            "gopher_words": pa.int64(),  # words with a character that is no punctuation
            "gopher_all_words": pa.int64(),
            "gopher_mean_word_length": pa.float64(),  # characters, over gopher_words; NaN where there are none
            "gopher_mean_all_word_length": pa.float64(),
            "gopher_hash_ratio": pa.float64(),  # "#" a word (all words); NaN where there are none
            "gopher_ellipsis_ratio": pa.float64(),
            "gopher_bullet_line_ratio": pa.float64(),
            "gopher_ellipsis_line_ratio": pa.float64(),
            "gopher_alpha_word_ratio": pa.float64(),
            "gopher_stop_words": pa.int64(),  # different ones
        }

    @property
    def meanings(self) -> Mapping[str, str]:
        of = "Gopher's eight English stop words" if self.config.stop_words == STOP_WORDS else "the stop words"
        return {**self.MEANINGS, "gopher_stop_words": f"{{count}} of {of} ({words_of(self.config.stop_words)})"}

    @property
    def needs(self) -> Needs:
        return Needs(WORDS | LINES, stop_words=self.config.stop_words)

    def measure(self, batch: Batch) -> Measured:
        found = batch.statistics(self.needs)
        return Measured(
            {
                "gopher_words": found["nonsymbol_words"],
                "gopher_all_words": found["words"],
                "gopher_mean_word_length": found.ratio("nonsymbol_characters", "nonsymbol_words"),
                "gopher_mean_all_word_length": found.ratio("word_characters", "words"),
                "gopher_hash_ratio": found.ratio("hashes", "words"),
                "gopher_ellipsis_ratio": found.ratio("ellipses", "words"),
                "gopher_bullet_line_ratio": found.ratio("bullet_lines", "lines"),
                "gopher_ellipsis_line_ratio": found.ratio("ellipsis_lines", "lines"),
                "gopher_alpha_word_ratio": found.ratio("alpha_words", "words"),
                "gopher_stop_words": found["stop_words"],
            }
        )
