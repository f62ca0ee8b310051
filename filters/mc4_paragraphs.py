"""mC4's paragraphs (Xue et al. 2021, arXiv 2010.11934; datatrove's C4ParagraphFilter): a page needs some long lines.

Lines are those of `text.split("\\n")`, and their length is in characters with all their spaces.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from corpusmill.filters.rules import Rule
from corpusmill.filters.step import Batch, Measured, Step
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.text.buffers import text_buffers

MC4 = (Rule("too_few_paragraphs", "mc4_paragraphs", "<", 3),)


class Mc4ParagraphsConfig(Config):
    """mC4: pages with at least three lines of at least 200 characters."""

    preset: Literal["mc4"] = Field("mc4", description="Whose rules decide.")
    min_paragraph_length: int = Field(200, ge=1, description="A line of at least so many characters is a paragraph.")


class Mc4Paragraphs(Step):
    Config = Mc4ParagraphsConfig
    PRESETS = {"mc4": MC4}
    config: Mc4ParagraphsConfig

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {"mc4_paragraphs": pa.int64()}

    @property
    def meanings(self) -> Mapping[str, str]:
        return {"mc4_paragraphs": f"{{count}} lines of at least {self.config.min_paragraph_length} characters"}

    def measure(self, batch: Batch) -> Measured:
        from corpusmill.filters.mc4_paragraphs_kernel import count_long_lines

        data, offsets = text_buffers(batch.text)
        paragraphs = np.zeros(len(batch), np.int64)
        count_long_lines(data, offsets, self.config.min_paragraph_length, paragraphs)
        return Measured({"mc4_paragraphs": paragraphs})
