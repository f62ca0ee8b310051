"""What each token of a byte-level tokenizer stands for: bytes, which alone need not be whole characters."""

import hashlib
import json

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.byte_alphabet import to_bytes
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage

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
