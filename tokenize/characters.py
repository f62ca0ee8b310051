"""Characters as tokens: a vocabulary in which every character of a corpus is one token.

Its `tokenizer.json` is a byte-level BPE without merges. The expression cuts a text into characters, and `ignore_merges` makes each of them
a token as it is. So `tokenizers`, `transformers` and all readers of byte-level vocabularies here can read it, and it needs no 256 bytes.
All other characters are refused: the file names UNKNOWN as the token for them, and the vocabulary lacks this token.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.token_bytes import to_bytes, to_characters
from corpusmill.text.buffers import text_buffers

#: Cuts a text into single characters (code points).
EACH_CHARACTER = r"[\s\S]"
#: The token that `tokenizers` names in its error about an unknown character.
UNKNOWN = "<|unknown character|>"
CODE_POINTS = 0x110000


@dataclass(frozen=True)
class Characters:
    """A vocabulary of characters. `ids` is int32 of length 0x110000: the id of each code point, -1 where it is no token."""

    ids: npt.NDArray[np.int32]
    size: int
    special: Mapping[str, int]
    pattern: str = EACH_CHARACTER

    @cached_property
    def tokens(self) -> Mapping[bytes, int]:
        """Ids by the UTF-8 bytes of the character, without special tokens."""
        return {chr(point).encode(): int(self.ids[point]) for point in np.flatnonzero(self.ids >= 0).tolist()}

    def encode_column(
        self, texts: pa.Array | pa.ChunkedArray, end: int, dtype: np.dtype[Any]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Returns all texts of a column as one array of ids, and the number of ids of each; `end` (if not -1) follows each that is not
        empty.

        Raises InputError if a text holds a character that is no token.
        """
        data, offsets = text_buffers(texts)
        data = data[offsets[0] : offsets[-1]]
        begins = np.concatenate(([0], np.cumsum((data & 0xC0) != 0x80)))[offsets - offsets[0]]  # counts first bytes of characters
        ids = self.ids[np.frombuffer(data.tobytes().decode().encode("utf-32-le"), "<u4")]
        if len(ids) and int(ids.min()) < 0:
            raise InputError(f"{_shown(_character(data, int(np.argmin(ids))))} is no token of this vocabulary of characters.")
        counts = np.diff(begins)
        ended = (counts > 0) & (end >= 0)
        found = np.full(len(ids) + int(ended.sum()), max(end, 0), dtype)
        before = np.cumsum(ended) - ended  # `end` tokens before each text
        found[np.arange(len(ids)) + np.repeat(before, counts)] = ids
        return found, counts + ended


def from_vocabulary(vocabulary: Mapping[str, int], special: Mapping[str, int], size: int) -> Characters:
    """Reads the `vocab` of a `tokenizer.json` and its added tokens. Raises ValueError if a token is not exactly one character."""
    ids = np.full(CODE_POINTS, -1, np.int32)
    for token, number in vocabulary.items():
        if token in special:
            continue
        try:
            character = to_bytes(token).decode()
        except (KeyError, UnicodeDecodeError):
            character = ""
        if len(character) != 1:
            raise ValueError(f"it cuts text into characters, and its token {token!r} is none")
        if character in special:
            raise ValueError(f"text gives its special token {character!r}")
        ids[ord(character)] = number
    return Characters(ids, size, special)


def make_character_tokenizer(characters: Iterable[str], special_tokens: Sequence[str]) -> Any:
    """Returns the `tokenizers.Tokenizer` with the special tokens as ids 0, 1, ..., then the characters by code point."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    tokens = [*special_tokens, *map(to_characters, sorted(characters))]
    tokenizer = Tokenizer(models.BPE({t: n for n, t in enumerate(tokens)}, [], ignore_merges=True, unk_token=UNKNOWN))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special_tokens])
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(EACH_CHARACTER), "isolated"), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def count_characters(texts: pa.Array | pa.ChunkedArray) -> dict[str, int]:
    """Returns how often each character occurs in a column of texts."""
    data, offsets = text_buffers(texts)
    points = np.frombuffer(data[offsets[0] : offsets[-1]].tobytes().decode().encode("utf-32-le"), "<u4")
    counts = np.bincount(points)
    return {chr(point): int(counts[point]) for point in np.flatnonzero(counts).tolist()}


def _character(data: npt.NDArray[np.uint8], number: int) -> str:
    return data.tobytes().decode()[number]


def _shown(character: str) -> str:
    return f"{character!r} (U+{ord(character):04X})"
