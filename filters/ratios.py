"""Ratios of sizes: how far a text can be compressed, and how many tokens it takes.

Repetition and templates compress well, random characters hardly at all. A ratio is computed for each text by itself, from the raw
compressed bytes. The formats are fixed, but another version of a compressor (or zlib-ng in place of zlib) may find other matches and
change the last digits of a ratio. LZ4's fast compressor has hardly changed in ten years, but finds less redundancy. With the same
versions, the values are the same on every machine.
"""

from collections.abc import Callable
from functools import cache
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from corpusmill.filters.rules import Rule, limits
from corpusmill.filters.statistics import ratio
from corpusmill.filters.step import DocumentBatch, Step, StepOutput
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import InputError
from corpusmill.text.buffers import text_buffers


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
    MEANINGS = {"compression_ratio": "compressed, the text has {ratio} of its size (text that repeats itself has little)"}

    @property
    def rules(self) -> tuple[Rule, ...]:
        low, high = self.config.min_ratio, self.config.max_ratio
        return limits(("compression_too_small", "compression_ratio", "<", low), ("compression_too_large", "compression_ratio", ">", high))

    def measure(self, batch: DocumentBatch) -> StepOutput:
        data, offsets = text_buffers(batch.text)
        compress, view = compressor(self.config.codec), memoryview(data)  # type: ignore[arg-type]
        ratios = np.full(len(batch), np.nan)
        for place, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist())):
            if end > start:
                ratios[place] = len(compress(view[start:end])) / (end - start)
        return StepOutput({"compression_ratio": ratios})


# ---- Tokens for each character under a given tokenizer. Noise, and text unlike the tokenizer's training text, takes many tokens.

#: Number of texts that are encoded at a time; all their tokens are in memory.
CHUNK = 256


class TokenRatioConfig(Config):
    """Token ratio: tokens a character under a tokenizer of the Hugging Face kind."""

    tokenizer: str = Field("tokenizer.json", description="Path of the tokenizer's file.")
    min_ratio: float | None = Field(None, ge=0, description="Fewest tokens a character; null: no rule.")
    max_ratio: float | None = Field(None, ge=0, description="Most tokens a character; null: no rule.")


class TokenRatio(Step):
    Config = TokenRatioConfig
    MEANINGS = {"token_char_ratio": "{number} tokens for each character"}

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {"tokens": pa.int64(), "token_char_ratio": pa.float64()}  # special tokens do not count; NaN for an empty text

    @property
    def rules(self) -> tuple[Rule, ...]:
        low, high = self.config.min_ratio, self.config.max_ratio
        return limits(("too_few_tokens", "token_char_ratio", "<", low), ("too_many_tokens", "token_char_ratio", ">", high))

    def model_files(self) -> list[str]:
        return [self.config.tokenizer]

    def setup(self) -> None:
        from tokenizers import Tokenizer

        try:
            self.tokenizer = Tokenizer.from_file(self.config.tokenizer)
        except Exception as error:  # tokenizers raises plain Exception
            raise InputError(f"{self.config.tokenizer}: not a tokenizer.json that can be read ({error}).") from error
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()

    def measure(self, batch: DocumentBatch) -> StepOutput:
        tokens = np.zeros(len(batch), np.int64)
        for start in range(0, len(batch), CHUNK):
            texts = batch.text.slice(start, CHUNK).to_pylist()
            encoded = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            tokens[start : start + len(texts)] = [len(encoding) for encoding in encoded]
        return StepOutput({"tokens": tokens, "token_char_ratio": ratio(tokens, pc.utf8_length(batch.text))})
