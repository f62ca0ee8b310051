"""Tokens a character under a given tokenizer: text that it was not made for, or that is no text, takes many."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from corpusmill.filters.rules import Rule
from corpusmill.filters.statistics import ratio
from corpusmill.filters.step import Batch, Measured, Step
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import InputError

#: Texts that are encoded at a time: all their tokens are in memory.
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
        return {"tokens": pa.int64(), "token_char_ratio": pa.float64()}  # without special tokens; NaN for an empty text

    @property
    def rules(self) -> tuple[Rule, ...]:
        low, high = self.config.min_ratio, self.config.max_ratio
        rules = [] if low is None else [Rule("too_few_tokens", "token_char_ratio", "<", low)]
        return (*rules, *(() if high is None else (Rule("too_many_tokens", "token_char_ratio", ">", high),)))

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

    def measure(self, batch: Batch) -> Measured:
        tokens = np.zeros(len(batch), np.int64)
        for start in range(0, len(batch), CHUNK):
            texts = batch.text.slice(start, CHUNK).to_pylist()
            encoded = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            tokens[start : start + len(texts)] = [len(encoding) for encoding in encoded]
        return Measured({"tokens": tokens, "token_char_ratio": ratio(tokens, pc.utf8_length(batch.text))})
