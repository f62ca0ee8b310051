"""From text to ids: byte-level BPE (or characters) with the same ids as `tokenizers` for every text, many times faster.

Special tokens are never produced: a text that holds `<|im_start|>` gets the ids of its characters.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.text.buffers import text_buffers
from corpusmill.pipeline.token_shards import token_dtype
from corpusmill.tokenize.characters import Characters
from corpusmill.tokenize.encode_kernel import encode_pieces, encode_texts, make_memory
from corpusmill.tokenize.known_pieces import SPARE
from corpusmill.tokenize.piece_rules import piece_classes, rule_of
from corpusmill.tokenize.vocabulary import Vocabulary, from_ranks, from_tokenizer_json


class Encoder:
    """The encoding side of a vocabulary. One thread at a time may use it: it remembers pieces."""

    def __init__(self, vocabulary: Vocabulary | Characters, sha256: str = ""):
        self.vocabulary = vocabulary
        self.sha256 = sha256
        self.vocabulary_size = vocabulary.size
        self.dtype = token_dtype(vocabulary.size)
        self._characters = vocabulary if isinstance(vocabulary, Characters) else None
        if isinstance(vocabulary, Characters):
            return
        self._tables = (vocabulary.merges, vocabulary.whole)
        self._memory = make_memory()
        self._rule = rule_of(vocabulary.pattern)

    @classmethod
    def from_json(cls, tokenizer_json: bytes, path: str = "tokenizer.json") -> "Encoder":
        """Raises InputError where this is no byte-level BPE tokenizer that cuts text by one regular expression."""
        try:
            vocabulary = from_tokenizer_json(tokenizer_json)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            why = error if isinstance(error, ValueError) else f"it lacks something, or has it of another kind ({error})"
            raise InputError(f"{path}: this tokenizer can't be used, because {why}.") from error
        return cls(vocabulary, hashlib.sha256(tokenizer_json).hexdigest())

    @classmethod
    def from_ranks(cls, ranks: Mapping[bytes, int], pattern: str, path: str) -> "Encoder":
        """The encoder of a tiktoken file: the id of each token's bytes, and the regular expression that cuts text."""
        try:
            return cls(from_ranks(ranks, pattern))
        except ValueError as error:
            raise InputError(f"{path}: this tokenizer can't be used, because {error}.") from error

    @classmethod
    def read(cls, storage: Storage, relative: str) -> "Encoder":
        return cls.from_json(storage.read_bytes(relative), storage.path(relative))

    @property
    def ranks(self) -> Mapping[bytes, int]:
        """The id of each token's bytes, special tokens left out."""
        return self.vocabulary.tokens

    def encode(self, text: str) -> list[int]:
        """The ids of a text. Time is about linear in its length, whatever it holds."""
        return self.encode_column(pa.array([text], pa.large_string()))[0].tolist()

    def encode_word(self, word: str) -> list[int]:
        """The ids of one piece, which is not cut any further."""
        return self.encode_pieces(pa.array([word], pa.large_string()))[0].tolist()

    def encode_column(self, texts: pa.Array | pa.ChunkedArray, end: int = -1) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """All texts of a column as one array of ids, and the number of ids of each.

        With `end`, that id follows every text that is not empty, and counts. Raises ValueError where a text is null, and InputError where
        the vocabulary is one of characters, and a text holds another one.
        """
        if self._characters:
            return self._characters.encode_column(texts, end, self.dtype)
        if self._rule is None:
            if texts.null_count:
                raise ValueError("a text column must not hold nulls")
            return self._encode_cut(texts, end)
        data, offsets = text_buffers(texts)
        out, counts = self._room(offsets), np.empty(len(offsets) - 1, np.int64)
        rule, digits = self._rule
        total = encode_texts(rule, digits, piece_classes(), self._tables, self._memory, data, offsets, end, out, counts)
        return out[:total].astype(self.dtype, copy=False), counts

    def encode_pieces(self, pieces: pa.Array | pa.ChunkedArray) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """As `encode_column`, with each string as one piece that is not cut any further."""
        if self._characters:
            return self._characters.encode_column(pieces, -1, self.dtype)
        data, offsets = text_buffers(pieces)
        out, counts = self._room(offsets), np.empty(len(offsets) - 1, np.int64)
        total = encode_pieces(self._tables, self._memory, data, offsets, out, counts)
        return out[:total].astype(self.dtype, copy=False), counts

    def _room(self, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
        """Of 32 bits for any vocabulary: kernels for 16 bits, too, would take some ten seconds to compile, and to copy ids takes none."""
        return np.empty(int(offsets[-1] - offsets[0]) + len(offsets) + SPARE, np.uint32)

    def _encode_cut(self, texts: pa.Array | pa.ChunkedArray, end: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """As `encode_column`, for an expression that the kernels do not know: `tokenizers` cuts, piece by piece in Python."""
        from tokenizers import Regex, pre_tokenizers

        split = pre_tokenizers.Split(Regex(self.vocabulary.pattern), "isolated").pre_tokenize_str
        arrays = [np.zeros(0, self.dtype)]
        counts = np.zeros(len(texts), np.int64)
        for number, text in enumerate(texts.to_pylist()):
            ids, _ = self.encode_pieces(pa.array([piece for piece, _ in split(text)], pa.large_string()))
            after = [end] if end >= 0 and len(ids) else []
            arrays += [ids, np.array(after, self.dtype)]
            counts[number] = len(ids) + len(after)
        return np.concatenate(arrays), counts
