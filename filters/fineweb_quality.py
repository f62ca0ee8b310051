"""FineWeb's own quality heuristics (arXiv 2406.17557, appendix; the limits are those of its code) as datatrove measures them."""

from collections.abc import Mapping
from typing import Literal

import pyarrow as pa
from pydantic import Field

from corpusmill.filters.rules import Rule
from corpusmill.filters.statistics import NEWLINE_LINES, WORD_COUNT, Needs, ratio
from corpusmill.filters.step import Batch, Measured, Step
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

    preset: Literal["datatrove-0.10", "fineweb"] = Field("fineweb", description="Whose rules decide.")
    short_line_length: int = Field(30, ge=0, description="A line of at most so many characters is short.")


class FinewebQuality(Step):
    Config = FinewebQualityConfig
    PRESETS = {"datatrove-0.10": DATATROVE, "fineweb": DATATROVE}
    MEANINGS = {
        "fineweb_lines": "{count} lines with text",
        "line_punct_ratio": "{share} of the lines end in a mark such as . ! or ?",
        "char_dup_ratio": "{share} of the characters are in copies of an earlier line",
        "list_ratio": "{share} as many line breaks as words, as in a list",
    }

    @property
    def meanings(self) -> Mapping[str, str]:
        return {**self.MEANINGS, "short_line_ratio": f"{{share}} of the lines have at most {self.config.short_line_length} characters"}

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {
            "fineweb_lines": pa.int64(),  # that are not blank
            "line_punct_ratio": pa.float64(),  # of those, ending in a terminal mark; NaN where there are none
            "short_line_ratio": pa.float64(),
            "char_dup_ratio": pa.float64(),  # characters in repeated lines, over all but newlines
            "list_ratio": pa.float64(),  # newlines a word
        }

    @property
    def needs(self) -> Needs:
        return Needs(WORD_COUNT | NEWLINE_LINES, short_line_length=self.config.short_line_length)

    def measure(self, batch: Batch) -> Measured:
        found = batch.statistics(self.needs)
        return Measured(
            {
                "fineweb_lines": found["filled_lines"],
                "line_punct_ratio": found.ratio("terminal_lines", "filled_lines"),
                "short_line_ratio": found.ratio("short_lines", "filled_lines"),
                "char_dup_ratio": ratio(found["repeated_filled_line_characters"], found["characters"] - found["newlines"]),
                "list_ratio": found.ratio("newlines", "words"),
            }
        )
