"""From text to ids: tiktoken's BPE with the ranks of our `tokenizer.json`, with the same ids as `tokenizers` for every text.

Special tokens are never produced: a text that holds `<|im_start|>` gets the ids of its characters.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.tokenshards import token_dtype
from corpusmill.tokenize.training import ranks_of

#: Longer texts (characters) are encoded in parts: tiktoken's regular expressions overflow their stack on very long white space.
LONGEST_PART = 100_000
#: Between a letter and a space, a text can be cut without changing its pieces: every pattern ends a piece there, and none
#: looks back.
SAFE_CUT = re.compile(r"[A-Za-z](?= )")


def parts_of(text: str, longest: int = LONGEST_PART) -> Iterator[str]:
    """Cuts a text where pieces end anyway, at the first such place after `longest` characters; a part without one is longer."""
    start = 0
    while len(text) - start > longest:
        cut = SAFE_CUT.search(text, start + longest - 1)
        if cut is None:
            break
        yield text[start : cut.end()]
        start = cut.end()
    yield text[start:]


class Encoder:
    """The encoding side of a `tokenizer.json` with byte-level BPE and one splitting pattern."""

    def __init__(self, tokenizer_json: bytes, path: str = "tokenizer.json"):
        from tiktoken import _tiktoken
        from tokenizers import Tokenizer

        try:
            self.tokenizer = Tokenizer.from_buffer(tokenizer_json)
            pattern = _pattern_of(tokenizer_json)
            self.ranks = ranks_of(self.tokenizer)
        except Exception as error:  # tokenizers raises Exception itself
            raise InputError(f"{path}: not a byte-level BPE tokenizer of this project ({error}).") from error
        self.tokenizer.encode_special_tokens = True
        self.sha256 = hashlib.sha256(tokenizer_json).hexdigest()
        self.vocabulary_size: int = self.tokenizer.get_vocab_size()
        self.dtype = token_dtype(self.vocabulary_size)
        self._bpe: Any = _tiktoken.CoreBPE(self.ranks, {}, pattern)

    @classmethod
    def read(cls, storage: Storage, relative: str) -> "Encoder":
        return cls(storage.read_bytes(relative), storage.path(relative))

    def encode(self, text: str) -> list[int]:
        """The ids of a text. Time is about linear in its length, whatever it holds."""
        if len(text) <= LONGEST_PART:
            return self._bpe.encode_ordinary(text)
        ids: list[int] = []
        for part in parts_of(text):
            ids += self._bpe.encode_ordinary(part) if len(part) <= 2 * LONGEST_PART else self._encode_long(part)
        return ids

    def _encode_long(self, text: str) -> list[int]:
        """`tokenizers` itself, three to seven times slower, bears any text."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def encode_word(self, word: str) -> list[int]:
        """The ids of one piece, which is not cut any further."""
        return self._bpe.encode_single_piece(word.encode())

    def encode_column(self, texts: pa.Array | pa.ChunkedArray, end: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """All texts of a column as one array of ids, each followed by `end`, and the number of ids of each (`end` included)."""
        arrays, counts = [], []
        for text in texts.to_pylist():
            ids = self.encode(text)
            ids.append(end)
            arrays.append(np.array(ids, self.dtype))
            counts.append(len(ids))
        return (np.concatenate(arrays) if arrays else np.zeros(0, self.dtype)), np.array(counts, np.int64)


def _pattern_of(tokenizer_json: bytes) -> str:
    steps = json.loads(tokenizer_json)["pre_tokenizer"]["pretokenizers"]
    return str(next(step["pattern"]["Regex"] for step in steps if step["type"] == "Split"))
