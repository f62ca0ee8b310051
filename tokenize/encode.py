"""Encodes text to ids by byte-level BPE (or by characters): the same ids as `tokenizers` for every text, many times faster.

Text never becomes a special token: a text that holds `<|im_start|>` gets the ids of its characters.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_bytes import byte_characters, to_bytes
from corpusmill.pipeline.token_shards import token_dtype
from corpusmill.text.buffers import text_buffers
from corpusmill.tokenize.characters import EACH_CHARACTER, Characters, from_vocabulary
from corpusmill.tokenize.encode_kernel import (
    SPARE,
    Merges,
    WholeTokens,
    encode_pieces,
    encode_texts,
    make_memory,
    make_merges,
    make_whole_tokens,
)
from corpusmill.tokenize.patterns import GPT2_PATTERN, piece_classes, rule_of


class Encoder:
    """Encodes text with a vocabulary. Only one thread at a time may use it, because it caches pieces."""

    def __init__(self, vocabulary: "Vocabulary | Characters", sha256: str = ""):
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
        """Reads a `tokenizer.json`. Raises InputError unless it is byte-level BPE that cuts text by one regular expression, or
        characters."""
        try:
            vocabulary = from_tokenizer_json(tokenizer_json)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            why = error if isinstance(error, ValueError) else f"a field is missing or has a wrong type ({error})"
            raise InputError(f"{path}: this tokenizer can't be used, because {why}.") from error
        return cls(vocabulary, hashlib.sha256(tokenizer_json).hexdigest())

    @classmethod
    def from_ranks(cls, ranks: Mapping[bytes, int], pattern: str, path: str) -> "Encoder":
        """Returns the encoder of a tiktoken file. `ranks`: ids by tokens' bytes; `pattern`: the regular expression that cuts text."""
        try:
            return cls(from_ranks(ranks, pattern))
        except ValueError as error:
            raise InputError(f"{path}: this tokenizer can't be used, because {error}.") from error

    @classmethod
    def read(cls, storage: Storage, relative: str) -> "Encoder":
        return cls.from_json(storage.read_bytes(relative), storage.path(relative))

    @property
    def ranks(self) -> Mapping[bytes, int]:
        """The id of each token's bytes, without special tokens."""
        return self.vocabulary.tokens

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, in time about linear in its length."""
        return self.encode_column(pa.array([text], pa.large_string()))[0].tolist()

    def encode_column(self, texts: pa.Array | pa.ChunkedArray, end: int = -1) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Returns all texts of a column as one array of ids, and the number of ids of each text.

        With `end`, that id follows every text that is not empty, and is counted. Raises ValueError if a text is null, and InputError
        where a vocabulary of characters lacks a character of the text.
        """
        if self._characters:
            return self._characters.encode_column(texts, end, self.dtype)
        if self._rule is None:
            if texts.null_count:
                raise ValueError("a text column must not hold nulls")
            return self._encode_cut(texts, end)
        data, offsets = text_buffers(texts)
        out, counts = self._id_buffer(offsets), np.empty(len(offsets) - 1, np.int64)
        rule, digits = self._rule
        total = encode_texts(rule, digits, piece_classes(), self._tables, self._memory, data, offsets, end, out, counts)
        return out[:total].astype(self.dtype, copy=False), counts

    def encode_pieces(self, pieces: pa.Array | pa.ChunkedArray) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Encodes as `encode_column` does, but takes each string as one piece and does not cut it."""
        if self._characters:
            return self._characters.encode_column(pieces, -1, self.dtype)
        data, offsets = text_buffers(pieces)
        out, counts = self._id_buffer(offsets), np.empty(len(offsets) - 1, np.int64)
        total = encode_pieces(self._tables, self._memory, data, offsets, out, counts)
        return out[:total].astype(self.dtype, copy=False), counts

    def _id_buffer(self, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
        """Returns an array for the ids. It has 32 bits for any vocabulary, as 16-bit kernels take ten seconds to compile; copies cost
        little."""
        return np.empty(int(offsets[-1] - offsets[0]) + len(offsets) + SPARE, np.uint32)

    def _encode_cut(self, texts: pa.Array | pa.ChunkedArray, end: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Does what `encode_column` does, for a pattern that no kernel implements: the library `tokenizers` splits one text at a time."""
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


# ---- vocabularies ----------------------------------------------------------------------------------------


#: The largest number of ids: the table of merges has 20 bits for an id.
MOST_TOKENS = 1 << 20


@dataclass(frozen=True)
class Vocabulary:
    """The parts of a tokenizer that the kernels need: the pattern that cuts text into pieces, and tables that turn pieces into ids."""

    pattern: str
    size: int
    merges: Merges
    whole: WholeTokens
    make_tokens: Callable[[], Mapping[bytes, int]]
    special: Mapping[str, int]

    @cached_property
    def tokens(self) -> Mapping[bytes, int]:
        """Ids by bytes, without special tokens. Made on first use, because encoding does not need them."""
        return self.make_tokens()


def from_tokenizer_json(content: bytes) -> Vocabulary | Characters:
    """Reads a `tokenizer.json`: byte-level BPE, or characters. Raises ValueError, whose message is a phrase, where the kernels can't use
    it."""
    try:
        return _from_tokenizer_json(content)
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise ValueError(f"it is no description of a tokenizer ({type(error).__name__}: {error})") from error


def _from_tokenizer_json(content: bytes) -> Vocabulary | Characters:
    try:
        found = parse_json(content)
    except ValueError as error:
        raise ValueError(f"it is no JSON ({error})") from error
    if not isinstance(found, dict) or not isinstance(found.get("model"), dict):
        raise ValueError("it is no description of a tokenizer")
    model = found["model"]
    _check_model(found, model)
    ids: dict[str, int] = model["vocab"]
    added = {token["content"]: token["id"] for token in found.get("added_tokens", [])}
    merges = model["merges"]
    if not merges and model.get("ignore_merges") and _pattern_of(found.get("pre_tokenizer")) == EACH_CHARACTER:
        return from_vocabulary(ids, added, _size([*ids.values(), *added.values()]))
    if str in set(map(type, merges)):  # older files write a merge as "left right"
        merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    if set(map(len, merges)) - {2}:
        raise ValueError("it has a merge that is not of two tokens")
    lefts, rights = zip(*merges) if merges else ((), ())
    joined = list(map(add, lefts, rights))
    try:
        left_ids, right_ids, merged = (list(map(ids.__getitem__, tokens)) for tokens in (lefts, rights, joined))
        bytes_ = [ids[character] for character in byte_characters()]
    except KeyError as error:
        raise ValueError(f"its vocabulary lacks {error.args[0]!r}, a byte or a part of a merge") from error
    produced = next((token for token in added if len(token) == 1 and token in ids), None) or next(filter(added.__contains__, joined), None)
    if produced is not None:
        raise ValueError(f"text gives its special token {produced!r}")
    strange = set("".join(ids.keys() - added.keys())).difference(byte_characters())
    if strange:
        raise ValueError(f"its vocabulary holds {min(strange)!r}, which stands for no byte")
    size = _size([*ids.values(), *added.values()])

    def tokens() -> Mapping[bytes, int]:
        return {to_bytes(token): number for token, number in ids.items() if token not in added}

    pairs = np.array([left_ids, right_ids, range(len(merges)), merged], np.int64).T
    pattern = _pattern_of(found.get("pre_tokenizer"))
    vocabulary = Vocabulary(pattern, size, _merges(bytes_, pairs), make_whole_tokens({}), tokens, added)
    return _with_whole_tokens(vocabulary) if model.get("ignore_merges") else vocabulary


def from_ranks(ranks: Mapping[bytes, int], pattern: str) -> Vocabulary:
    """Returns tiktoken's vocabulary: two tokens merge wherever their joined bytes are a token, the lowest rank first."""
    lacking = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if lacking:
        raise ValueError(f"its ranks lack the byte {lacking[0]:#04x}")
    pairs = []
    for token, rank in ranks.items():
        for cut in range(1, len(token)):
            left, right = ranks.get(token[:cut]), ranks.get(token[cut:])
            if left is not None and right is not None:
                pairs.append((left, right, rank, rank))
    size = _size(ranks.values())
    bytes_ = [ranks[bytes([byte])] for byte in range(256)]
    merges = _merges(bytes_, np.array(pairs, np.int64).reshape(-1, 4))
    return _with_whole_tokens(Vocabulary(pattern, size, merges, make_whole_tokens({}), lambda: ranks, {}))


def _check_model(found: dict[str, Any], model: dict[str, Any]) -> None:
    if model.get("type", "BPE") != "BPE":
        raise ValueError(f"its model is {model['type']}, not BPE")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(name):
            raise ValueError(f"its model has {name}")
    if found.get("normalizer"):
        raise ValueError(f"it changes the text before it is cut (normalizer {found['normalizer'].get('type')})")
    plain = [token["content"] for token in found.get("added_tokens", []) if not token.get("special")]
    if plain:
        raise ValueError(f"it has {len(plain)} added tokens that are not special, such as {plain[0]!r}")


def _pattern_of(pre_tokenizer: dict[str, Any] | None) -> str:
    """Returns the regular expression that cuts text. Raises ValueError if the tokenizer cuts text in another way."""
    steps = [pre_tokenizer or {}]
    if steps[0].get("type") == "Sequence":
        steps = steps[0]["pretokenizers"]
    *splits, last = steps or [{}]
    if last.get("type") != "ByteLevel":
        raise ValueError("it is not byte-level")
    if last.get("add_prefix_space"):
        raise ValueError("it puts a space before the text")
    if not splits and last.get("use_regex", True):
        return GPT2_PATTERN
    if len(splits) == 1 and not last.get("use_regex", True):
        step = splits[0]
        if step.get("type") == "Split" and step.get("behavior") == "Isolated" and not step.get("invert") and "Regex" in step["pattern"]:
            return str(step["pattern"]["Regex"])
    raise ValueError("it does not cut text by one regular expression")


def _size(ids: Collection[int]) -> int:
    """Returns one more than the largest id. Raises ValueError if ids are not whole numbers from 0 on, or there are too many."""
    if set(map(type, ids)) != {int} or min(ids) < 0:
        raise ValueError("its ids are not whole numbers from 0 on")
    size = max(ids) + 1
    if size > MOST_TOKENS:
        raise ValueError(f"its vocabulary has {size:,} ids, and {MOST_TOKENS:,} are the most that can be encoded")
    return size


def _merges(byte_ids: list[int], pairs: npt.NDArray[np.int64]) -> Merges:
    return make_merges(np.array(byte_ids, np.int64), np.ascontiguousarray(pairs))


def _with_whole_tokens(vocabulary: Vocabulary) -> Vocabulary:
    """Returns the vocabulary with a table of the tokens that merging never reaches."""
    tokens = vocabulary.tokens
    data = np.frombuffer(b"".join(tokens), np.uint8)
    offsets: npt.NDArray[np.int64] = np.cumsum([0, *map(len, tokens)], dtype=np.int64)
    out, counts = np.empty(data.size + SPARE, np.uint32), np.zeros(len(tokens), np.int64)
    encode_pieces((vocabulary.merges, vocabulary.whole), make_memory(), data, offsets, out, counts)
    firsts = np.cumsum(counts) - counts
    single = (counts == 1).tolist()
    found = out[np.minimum(firsts, out.size - 1)].tolist()
    unreached = {token: number for (token, number), one, first in zip(tokens.items(), single, found) if not (one and first == number)}
    return replace(vocabulary, whole=make_whole_tokens(unreached))
