"""The bytes of tokens: the 256 characters that stand for bytes in `tokenizer.json`, as GPT-2 chose them, and what each token stands for.

A token's bytes alone need not be whole characters.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage


@cache
def byte_characters() -> list[str]:
    """The character of each byte: itself where it is visible Latin-1, else the next free one from U+0100 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = (byte for byte in range(256) if byte not in visible)
    points = {byte: byte for byte in visible} | {byte: 0x100 + place for place, byte in enumerate(hidden)}
    return [chr(points[byte]) for byte in range(256)]


@cache
def _character_table() -> dict[int, int]:
    """For `str.translate`: from byte (as a Latin-1 character) to its character."""
    return {byte: ord(character) for byte, character in enumerate(byte_characters())}


@cache
def _byte_table() -> dict[str, int]:
    return {character: byte for byte, character in enumerate(byte_characters())}


def to_characters(text: str) -> str:
    """Text in the byte alphabet: one character for each UTF-8 byte."""
    return text.encode().decode("latin-1").translate(_character_table())


def to_bytes(token: str) -> bytes:
    """The bytes of a token in the byte alphabet. Raises KeyError for any other character."""
    table = _byte_table()
    return bytes([table[character] for character in token])


def tiktoken_file(ranks: Mapping[bytes, int]) -> bytes:
    """tiktoken's file format: base64 of the token and its rank, a line each, by rank."""
    lines = (b"%b %d\n" % (base64.b64encode(token), rank) for token, rank in sorted(ranks.items(), key=lambda item: item[1]))
    return b"".join(lines)


#: An id beyond this is damage: a list has a place for each.
MOST_IDS = 1 << 24


class TokenBytes:
    """The bytes of every token of a `tokenizer.json`. Raises InputError where it is not one of byte-level BPE.

    A document's tokens give its text's bytes back one after the other, so the bytes before a token say where in the text it lies.
    """

    def __init__(self, tokenizer_json: bytes, path: str = "tokenizer.json"):
        try:
            content = json.loads(tokenizer_json)
            vocabulary: dict[str, int] = content["model"]["vocab"]
            #: id to text of the tokens that stand for no text of a document.
            self.special: dict[int, str] = {token["id"]: token["content"] for token in content.get("added_tokens", ()) if token["special"]}
            size = max([*vocabulary.values(), *self.special], default=-1) + 1
            if size > MOST_IDS:
                raise ValueError(f"an id is {size - 1:,}")
            #: By id; empty for special tokens and for ids that no token has.
            self.bytes_of = [b""] * size
            for token, number in vocabulary.items():
                if number not in self.special:
                    self.bytes_of[number] = to_bytes(token)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: not a byte-level BPE tokenizer ({type(error).__name__}: {error}).") from error
        self.sha256 = hashlib.sha256(tokenizer_json).hexdigest()
        #: int64 by id: how many bytes.
        self.sizes: npt.NDArray[np.int64] = np.array([len(value) for value in self.bytes_of], np.int64)

    @classmethod
    def read(cls, storage: Storage, relative: str) -> "TokenBytes":
        return cls(storage.read_bytes(relative), storage.path(relative))

    def join(self, ids: npt.NDArray[np.integer]) -> bytes:
        """The bytes of tokens one after the other. Raises IndexError for an id beyond the vocabulary."""
        return b"".join(map(self.bytes_of.__getitem__, ids.tolist()))

    def text(self, ids: npt.NDArray[np.integer]) -> str:
        """For people: special tokens by their names, bytes that are no whole character as U+FFFD, unknown ids left out."""
        known = (number for number in ids.tolist() if number < len(self.bytes_of))
        parts = (self.special[number].encode() if number in self.special else self.bytes_of[number] for number in known)
        return b"".join(parts).decode("utf-8", "replace")
