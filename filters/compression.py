"""How far a text can be compressed: repetition and templates compress well, random characters hardly at all.

Sizes are those of the raw compressed bytes of each text by itself. The formats are fixed but compressors are not: another
version of zstd (or zlib-ng in place of zlib) may find other matches, and the last digits of the ratio differ. LZ4's fast
compressor has no levels and has hardly changed in ten years, at a price: it sees less redundancy. The report's numbers
are the same for the same versions, on every machine.
"""

from collections.abc import Callable
from functools import cache
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from corpusmill.filters.rules import Rule
from corpusmill.filters.step import Batch, Measured, Step
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.text.buffers import text_buffers


class CompressionConfig(Config):
    """Compression: bytes of the compressed text over bytes of the text."""

    codec: Literal["zstd", "zlib", "lz4"] = Field("zstd", description="zstd at level 3, zlib at level 6 (four times slower), or LZ4.")
    min_ratio: float | None = Field(0.1, ge=0, description="A text that compresses to less than this repeats itself; null: no rule.")
    max_ratio: float | None = Field(
        None, ge=0, description="A text that compresses to more than this fails (short ones do); null: no rule."
    )


@cache
def compressor(codec: str) -> Callable[[memoryview], bytes]:
    if codec == "zstd":
        import zstandard

        compress: Callable[[memoryview], bytes] = zstandard.ZstdCompressor(level=3, write_content_size=False).compress
        return compress
    if codec == "zlib":
        import zlib

        return lambda text: zlib.compress(text, 6)
    import lz4.block

    return lambda text: bytes(lz4.block.compress(text, store_size=False))


class Compression(Step):
    Config = CompressionConfig
    MEANINGS = {"compression_ratio": "compressed, the text has {share} of its size (text that repeats itself has little)"}

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {"compression_ratio": pa.float64()}  # NaN for an empty text

    @property
    def rules(self) -> tuple[Rule, ...]:
        low, high = self.config.min_ratio, self.config.max_ratio
        rules = [] if low is None else [Rule("compression_too_small", "compression_ratio", "<", low)]
        return (*rules, *(() if high is None else (Rule("compression_too_large", "compression_ratio", ">", high),)))

    def measure(self, batch: Batch) -> Measured:
        data, offsets = text_buffers(batch.text)
        compress, view = compressor(self.config.codec), memoryview(data)  # type: ignore[arg-type]
        ratios = np.full(len(batch), np.nan)
        for place, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist())):
            if end > start:
                ratios[place] = len(compress(view[start:end])) / (end - start)
        return Measured({"compression_ratio": ratios})
