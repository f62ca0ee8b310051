"""FineWeb's own quality heuristics (arXiv 2406.17557, appendix), measured as datatrove measures them.

The limits come from FineWeb's code.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from corpusmill.filters.rules import Rule
from corpusmill.filters.statistics import NEWLINE_LINES, WORD_COUNT, Needs
from corpusmill.filters.step import StatisticsStep
from corpusmill.pipeline.config import Config

DATATROVE = (
    Rule("fineweb_empty", "fineweb_lines", "<", 1),
    Rule("line_punct_ratio", "line_punct_ratio", "<", 0.12),
    Rule("short_line_ratio", "short_line_ratio", ">", 0.67),
    Rule("char_dup_ratio", "char_dup_ratio", ">", 0.01),
    Rule("list_ratio", "list_ratio", ">", 0.3),
)


class FinewebQualityConfig(Config):
    """FineWeb quality: lines without a terminal mark, short lines, repeated lines, lists."""

    preset: Literal["datatrove-0.10", "fineweb"] = Field("fineweb", description="The pipeline whose rules decide.")
    short_line_length: int = Field(30, ge=0, description="The most characters of a short line.")


class FinewebQuality(StatisticsStep):
    Config = FinewebQualityConfig
    PRESETS = {"datatrove-0.10": DATATROVE, "fineweb": DATATROVE}
    MEANINGS = {
        "fineweb_lines": "{count} lines with text",
        "line_punct_ratio": "{share} of the lines end in a mark such as . ! or ?",
        "char_dup_ratio": "{share} of the characters are in copies of an earlier line",
        "list_ratio": "{ratio} as many line breaks as words, as in a list",
    }

    STATISTICS = {
        "fineweb_lines": ("filled_lines",),  # lines that are not blank
        "line_punct_ratio": ("terminal_lines", "filled_lines"),
        "short_line_ratio": ("short_lines", "filled_lines"),
        "char_dup_ratio": ("repeated_filled_line_characters", "characters", "newlines"),
        "list_ratio": ("newlines", "words"),
    }

    @property
    def meanings(self) -> Mapping[str, str]:
        return {**self.MEANINGS, "short_line_ratio": f"{{share}} of the lines have at most {self.config.short_line_length} characters"}

    @property
    def needs(self) -> Needs:
        return Needs(WORD_COUNT | NEWLINE_LINES, short_line_length=self.config.short_line_length)
