"""Converts tokens to bytes: the byte alphabet of `tokenizer.json` (GPT-2's 256 characters, one a byte), and the bytes of each token.

The bytes of one token need not be whole characters.
"""

import base64
import hashlib
from collections.abc import Mapping
from functools import cache

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage


@cache
def byte_characters() -> list[str]:
    """Returns the character of each byte: itself where it is visible Latin-1, else the next free one from U+0100 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = (byte for byte in range(256) if byte not in visible)
    points = {byte: byte for byte in visible} | {byte: 0x100 + place for place, byte in enumerate(hidden)}
    return [chr(points[byte]) for byte in range(256)]


@cache
def _character_table() -> dict[int, int]:
    """Returns a table for `str.translate` from bytes (as Latin-1 characters) to their characters."""
    return {byte: ord(character) for byte, character in enumerate(byte_characters())}


@cache
def _byte_table() -> dict[str, int]:
    return {character: byte for byte, character in enumerate(byte_characters())}


def to_characters(text: str) -> str:
    """Returns a text in the byte alphabet: one character for each of its UTF-8 bytes."""
    return text.encode().decode("latin-1").translate(_character_table())


def to_bytes(token: str) -> bytes:
    """Returns the bytes of a token that is written in the byte alphabet. Raises KeyError for any other character."""
    table = _byte_table()
    return bytes([table[character] for character in token])


def tiktoken_file(ranks: Mapping[bytes, int]) -> bytes:
    """Returns a file in tiktoken's format: a line for each token, sorted by rank, with its bytes in base64 and its rank."""
    lines = (b"%b %d\n" % (base64.b64encode(token), rank) for token, rank in sorted(ranks.items(), key=lambda item: item[1]))
    return b"".join(lines)


#: The most ids of a vocabulary. A larger id is treated as damage, since lists have an item for each id.
MOST_IDS = 1 << 24


class TokenBytes:
    """The bytes of every token of a `tokenizer.json`. Raises InputError if it is not one of byte-level BPE.

    The bytes of a document's tokens, joined, are those of its text, so the bytes before a token give its place in the text.
    """

    def __init__(self, tokenizer_json: bytes, path: str = "tokenizer.json"):
        try:
            content = parse_json(tokenizer_json)
            vocabulary: dict[str, int] = content["model"]["vocab"]
            #: The text of each special token (which stands for no text of a document), by id.
            self.special: dict[int, str] = {token["id"]: token["content"] for token in content.get("added_tokens", ()) if token["special"]}
            ids = [*vocabulary.values(), *self.special]
            size = max(ids, default=-1) + 1
            if size > MOST_IDS or min(ids, default=0) < 0:
                raise ValueError(f"its ids go from {min(ids):,} to {size - 1:,}")
            #: The bytes by id; empty for special tokens and for unused ids.
            self.bytes_of = [b""] * size
            for token, number in vocabulary.items():
                if number not in self.special:
                    self.bytes_of[number] = to_bytes(token)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: not a byte-level BPE tokenizer ({type(error).__name__}: {error}).") from error
        self.sha256 = hashlib.sha256(tokenizer_json).hexdigest()
        #: int64, by id: the number of bytes.
        self.sizes: npt.NDArray[np.int64] = np.array([len(value) for value in self.bytes_of], np.int64)

    @classmethod
    def read(cls, storage: Storage, relative: str) -> "TokenBytes":
        return cls(storage.read_bytes(relative), storage.path(relative))

    def join(self, ids: npt.NDArray[np.integer]) -> bytes:
        """Returns the joined bytes of tokens. Raises IndexError for an id beyond the vocabulary."""
        return b"".join(map(self.bytes_of.__getitem__, ids.tolist()))

    def text(self, ids: npt.NDArray[np.integer]) -> str:
        """Returns tokens as readable text: special tokens by their names, incomplete characters as U+FFFD, without unknown ids."""
        known = (number for number in ids.tolist() if number < len(self.bytes_of))
        parts = (self.special[number].encode() if number in self.special else self.bytes_of[number] for number in known)
        return b"".join(parts).decode("utf-8", "replace")
