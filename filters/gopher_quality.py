"""Gopher's quality heuristics (MassiveText, arXiv 2112.11446, A1.1) as datatrove measures them."""

from typing import Literal

import pyarrow as pa
from pydantic import Field

from corpusmill.filters.rules import Rule, preset_rules
from corpusmill.filters.statistics import LINES, WORDS, Needs
from corpusmill.filters.step import Batch, Measured, Step
from corpusmill.pipeline.config import Config

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")


class GopherQualityConfig(Config):
    """Gopher quality: number and length of words, symbols, bullets, ellipses, alphabetic words, stop words."""

    preset: Literal["datatrove-0.10", "fineweb", "gopher-paper"] = Field("datatrove-0.10", description="Whose rules decide.")
    stop_words: tuple[str, ...] = Field(STOP_WORDS, description="Words of which a text has to have some, as they are written.")


class GopherQuality(Step):
    Config = GopherQualityConfig

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
    def rules(self) -> tuple[Rule, ...]:
        return preset_rules(self.config.preset, "gopher_quality")

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
