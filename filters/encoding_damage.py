# mypy: disallow-untyped-defs=False
"""Traces of wrong encodings and broken extraction: replacement characters, mojibake, control and private-use characters."""

from functools import cache

import numpy as np
import numpy.typing as npt
from pydantic import Field

from corpusmill.filters.rules import Rule, limits
from corpusmill.filters.statistics import ratio
from corpusmill.filters.step import DocumentBatch, Step, StepOutput
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import text_buffers
from corpusmill.text.damage import mojibake_rate
from corpusmill.text.utf8 import decode

#: Kinds of characters: U+FFFD; Unicode's category Cc without its white space (\t \n \v \f \r, NEL); category Co and noncharacters.
REPLACEMENT, CONTROL, PRIVATE = 1, 2, 4
NAMES = ("replacement", "control", "private_use")


class EncodingDamageConfig(Config):
    """Encoding damage: replacement characters, mojibake, control and private-use characters. The limits are our own."""

    max_replacement: float | None = Field(0.01, ge=0, description="Highest share of U+FFFD; null: no rule, as for the others.")
    max_mojibake: float | None = Field(0.01, ge=0, description="Highest share of characters that a wrong encoding made.")
    max_control: float | None = Field(0.01, ge=0, description="Highest share of control characters that are no white space.")
    max_private_use: float | None = Field(0.05, ge=0, description="Highest share of private-use characters (icon fonts) and noncharacters.")


@cache
def _kinds() -> npt.NDArray[np.uint8]:
    kinds = np.zeros(0x110000, np.uint8)
    kinds[0xFFFD] = REPLACEMENT
    kinds[0x00:0x20] = kinds[0x7F:0xA0] = CONTROL
    kinds[[*b"\t\n\v\f\r", 0x85]] = 0
    kinds[0xE000:0xF900] = kinds[0xF0000:] = kinds[0xFDD0:0xFDF0] = PRIVATE
    kinds[0xFFFE::0x10000] = kinds[0xFFFF::0x10000] = PRIVATE
    return kinds


class EncodingDamage(Step):
    Config = EncodingDamageConfig
    MEANINGS = {
        "replacement_char_ratio": "{share} of the characters stand for bytes that could not be read (U+FFFD)",
        "control_char_ratio": "{share} of the characters are control characters",
        "private_use_char_ratio": "{share} of the characters are of private use, as of icon fonts",
        "mojibake_char_ratio": "{share} of the characters were made by a wrong encoding",
    }

    @property
    def rules(self) -> tuple[Rule, ...]:
        kinds = ("replacement", "mojibake", "control", "private_use")
        return limits(*((f"too_much_{kind}", f"{kind}_char_ratio", ">", getattr(self.config, f"max_{kind}")) for kind in kinds))

    def measure(self, batch: DocumentBatch) -> StepOutput:
        data, offsets = text_buffers(batch.text)
        counts = np.zeros((len(batch), len(NAMES) + 1), np.int64)
        count_kinds(data, offsets, _kinds(), counts)
        columns = {f"{name}_char_ratio": ratio(counts[:, place], counts[:, -1]) for place, name in enumerate(NAMES)}
        mojibake = np.where(counts[:, -1] > 0, 0.0, np.nan)
        for place in np.flatnonzero(counts[:, -1] != np.diff(offsets)).tolist():  # other texts are ASCII
            mojibake[place] = mojibake_rate(batch.text[place].as_py())
        return StepOutput(columns | {"mojibake_char_ratio": mojibake})


# ---- The kernel


@kernel
def count_kinds(data, offsets, kinds, out):
    """Fills `out` (int64, texts x 4) with the numbers of a text's replacement, control, private-use and all characters."""
    for text in range(offsets.size - 1):
        replacement, control, private, characters = 0, 0, 0, 0
        at, end = offsets[text], offsets[text + 1]
        while at < end:
            point, width = decode(data, at)
            kind = kinds[point]
            characters += 1
            replacement += kind & REPLACEMENT != 0
            control += kind & CONTROL != 0
            private += kind & PRIVATE != 0
            at += width
        row = out[text]
        row[0], row[1], row[2], row[3] = replacement, control, private, characters
