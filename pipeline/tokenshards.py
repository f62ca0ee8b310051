"""Token shards: a folder of flat arrays of token ids, in which every token has an address.

```
tokens-00000.bin             little-endian uint16 (vocabularies below 65,536) or uint32, one document after the other,
                             each followed by END_OF_TEXT
tokens-00000.index.parquet   one row a document, in the order of the tokens: see INDEX
shards.json                  dtype, vocabulary, the tokenizer's sha256, END_OF_TEXT's id, totals, and size and sha256 of each shard
```

END_OF_TEXT is the token that ends documents: `<|endoftext|>`, or another one where the tokenizer is from elsewhere.
"""

import hashlib
import json
from bisect import bisect_right
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.shards import Content, read_table
from corpusmill.pipeline.storage import Storage

SHARDS_FILE = "shards.json"
DTYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}

#: One row a document. `first` counts within the shard; `tokens` includes the END_OF_TEXT after the document, so the rows
#: cover the shard without gaps. `source`, `offset`, `length` lead to the record of the crawl, `data_file` (relative to the
#: run, see `Shard.run`) and `data_row` to the text that was encoded. A mixture repeats documents: `copy` counts from 0. Documents
#: that dedup knows as copies of each other and that stay all the same have one `cluster_id`; it is null for all others.
INDEX = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("first", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("utf8_bytes", pa.int64(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("source", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("length", pa.int64()),
        pa.field("data_file", pa.string(), nullable=False),
        pa.field("data_row", pa.int64(), nullable=False),
        pa.field("copy", pa.int32(), nullable=False),
        pa.field("cluster_id", pa.string()),
    ]
)


def token_dtype(vocabulary_size: int) -> np.dtype[Any]:
    """The smallest of the two types that holds every id below `vocabulary_size`; 65,535 stays free in uint16."""
    return DTYPES["uint16"] if vocabulary_size < 1 << 16 else DTYPES["uint32"]


@dataclass(frozen=True)
class Shard:
    """One `.bin` file with its index: names relative to the folder, sizes in tokens, sha256 (hex) of both.

    `run` is the run that `data_file` is relative to, and `origin` the sha256 of the `shards.json` that the shard comes from; both are
    null where the set lies in the run that made it.
    """

    file: str
    index: str
    tokens: int
    documents: int  # rows of the index: a document that a mixture repeats counts for each copy
    utf8_bytes: int
    sha256: str
    index_sha256: str
    run: str | None = None
    origin: str | None = None


@dataclass(frozen=True)
class ShardSet:
    """The content of `shards.json`."""

    dtype: str
    vocabulary_size: int
    tokenizer_sha256: str
    split: str
    shards: tuple[Shard, ...]
    end_of_text_id: int

    @property
    def tokens(self) -> int:
        return sum(shard.tokens for shard in self.shards)

    @property
    def documents(self) -> int:
        return sum(shard.documents for shard in self.shards)

    @property
    def utf8_bytes(self) -> int:
        return sum(shard.utf8_bytes for shard in self.shards)

    def to_json(self) -> bytes:
        totals = {"tokens": self.tokens, "documents": self.documents, "utf8_bytes": self.utf8_bytes}
        return (json.dumps({**asdict(self), **totals}, indent=1) + "\n").encode()

    @classmethod
    def read(cls, storage: Storage) -> "ShardSet":
        """Raises InputError where there is no such file, or where it is not what this module writes."""
        path = storage.path(SHARDS_FILE)
        if not storage.exists(SHARDS_FILE):
            raise InputError(f"{path}: no such file, so {storage.root} holds no token shards.")
        try:
            raw = json.loads(storage.read_bytes(SHARDS_FILE))
            totals = {name: raw.pop(name) for name in ("tokens", "documents", "utf8_bytes")}
            found = cls(**{**raw, "shards": tuple(Shard(**shard) for shard in raw["shards"])})
            mismatch = [name for name, value in totals.items() if getattr(found, name) != value]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: not a description of token shards ({type(error).__name__}: {error}).") from error
        if mismatch:
            raise InputError(f"{path}: the total of {mismatch[0]} is not the sum over its shards.")
        if not 0 <= found.end_of_text_id < found.vocabulary_size:
            raise InputError(f"{path}: end_of_text_id {found.end_of_text_id} is no token of a vocabulary of {found.vocabulary_size}.")
        if found.dtype not in DTYPES or DTYPES[found.dtype] != token_dtype(found.vocabulary_size):
            raise InputError(f"{path}: tokens of type {found.dtype} do not fit a vocabulary of {found.vocabulary_size}.")
        return found


def shard_names(number: int) -> tuple[str, str]:
    """The names of a shard's tokens and of its index."""
    return f"tokens-{number:05d}.bin", f"tokens-{number:05d}.index.parquet"


def shard_contents(number: int, tokens: npt.NDArray[Any], index: pa.Table) -> dict[str, Content]:
    """What to publish for one shard. `tokens` has the set's dtype; `index` is in the schema INDEX, in the tokens' order."""
    file, index_file = shard_names(number)
    return {file: np.ascontiguousarray(tokens).view(np.uint8).data, index_file: index}


def map_tokens(storage: Storage, relative: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """A file of tokens as a read-only array: a memory map where it is local and holds anything, else its content."""
    if storage.remote or storage.size(relative) == 0:
        return np.frombuffer(storage.read_bytes(relative), dtype)
    return np.memmap(storage.path(relative), dtype, "r").view(np.ndarray)


@dataclass(frozen=True)
class Address:
    """Where a token comes from: its document, the crawl's record, the row of the data, and its place in the shard."""

    shard: int
    id: str
    url: str | None
    source: str | None
    offset: int | None
    length: int | None
    data_file: str
    data_row: int
    first: int  # of the document in its shard
    tokens: int
    utf8_bytes: int
    copy: int
    cluster_id: str | None


class TokenShards:
    """A folder of token shards, read through memory maps; positions run over all shards as one row of tokens.

    Raises InputError where the folder holds no token shards, a shard is missing or of another size than
    `shards.json` says, or (where these are given) they were made by another tokenizer, or end documents with another token.
    """

    def __init__(self, folder: str | Path, tokenizer_sha256: str | None = None, end_of_text_id: int | None = None):
        self.storage = Storage(str(folder))
        self.description = ShardSet.read(self.storage)
        self.dtype = DTYPES[self.description.dtype]
        if tokenizer_sha256 is not None and self.description.tokenizer_sha256 != tokenizer_sha256:
            raise InputError(
                f"{self.storage.path(SHARDS_FILE)}: these tokens were made by another tokenizer "
                f"(sha256 {self.description.tokenizer_sha256[:12]}, expected {tokenizer_sha256[:12]})."
            )
        if end_of_text_id is not None and self.description.end_of_text_id != end_of_text_id:
            raise InputError(
                f"{self.storage.path(SHARDS_FILE)}: documents end with token {self.description.end_of_text_id} here, and with "
                f"{end_of_text_id} in the tokenizers that this project trains: a model can't be trained on these shards."
            )
        for shard in self.description.shards:
            self._check_size(shard)
        counts = [shard.tokens for shard in self.description.shards]
        #: int64, one more than there are shards: the position at which each begins, and the total.
        self.starts: npt.NDArray[np.int64] = np.concatenate(([0], np.cumsum(counts, dtype=np.int64))).astype(np.int64)
        self._start_list: list[int] = self.starts.tolist()
        self._tokens: dict[int, npt.NDArray[Any]] = {}
        self._indexes: dict[int, pa.Table] = {}

    def __len__(self) -> int:
        return self._start_list[-1]

    @property
    def total(self) -> int:
        """Tokens in all shards."""
        return len(self)

    @property
    def shards(self) -> tuple[Shard, ...]:
        return self.description.shards

    def _check_size(self, shard: Shard) -> None:
        path, size, wanted = self.storage.path(shard.file), self.storage.size(shard.file), shard.tokens * self.dtype.itemsize
        if size < 0:
            raise InputError(f"{path}: this token shard is missing.")
        if size != wanted:
            what = "cut short" if size < wanted else "too long"
            raise InputError(f"{path}: this token shard is {what} ({size} bytes, and {SHARDS_FILE} says {wanted}).")
        if not self.storage.exists(shard.index):
            raise InputError(f"{self.storage.path(shard.index)}: the index of this token shard is missing.")

    def _shard(self, number: int) -> Shard:
        if not 0 <= number < len(self.shards):
            raise InputError(f"{self.storage.root}: there is no shard {number}; it has {len(self.shards)}, counted from 0.")
        return self.shards[number]

    def tokens(self, number: int) -> npt.NDArray[Any]:
        """All tokens of one shard, read-only."""
        if number not in self._tokens:
            self._tokens[number] = map_tokens(self.storage, self._shard(number).file, self.dtype)
        return self._tokens[number]

    def index(self, number: int) -> pa.Table:
        """The documents of one shard (schema INDEX)."""
        if number not in self._indexes:
            shard = self._shard(number)
            table = read_table(self.storage, shard.index)
            path = self.storage.path(shard.index)
            if not table.schema.equals(INDEX):
                raise InputError(f"{path}: not an index of token shards (its columns are {', '.join(table.column_names)}).")
            first, tokens = (table[name].to_numpy() for name in ("first", "tokens"))
            ends = np.concatenate(([0], np.cumsum(tokens)))
            if table.num_rows != shard.documents or not np.array_equal(first, ends[:-1]) or ends[-1] != shard.tokens:
                raise InputError(f"{path}: this index does not cover the {shard.tokens} tokens of {shard.file}.")
            self._indexes[number] = table
        return self._indexes[number]

    def shard_of(self, position: int) -> tuple[int, int]:
        """The shard of a position and the token's number in it."""
        if not 0 <= position < self.total:
            raise InputError(f"{self.storage.root}: there is no token {position}; it has {self.total}, counted from 0.")
        number = bisect_right(self._start_list, position) - 1
        return number, position - self._start_list[number]

    def window(self, start: int, length: int) -> npt.NDArray[Any]:
        """`length` tokens from position `start` on, across shard borders; a read-only view where one shard has them all."""
        if start < 0 or length < 0 or start + length > self.total:
            raise ValueError(f"tokens {start} to {start + length} of {self.total}")
        number = bisect_right(self._start_list, start) - 1
        if number < len(self.shards) and start + length <= self._start_list[number + 1]:
            begin = start - self._start_list[number]
            return self.tokens(number)[begin : begin + length]
        parts = []
        while length:
            begin = start - self._start_list[number]
            part = self.tokens(number)[begin : begin + length]
            parts.append(part)
            start, length, number = start + len(part), length - len(part), number + 1
        return np.concatenate(parts) if parts else np.zeros(0, self.dtype)

    def locate(self, shard: int, token: int) -> Address:
        """The document that a token of a shard belongs to (the END_OF_TEXT after a document is that document's)."""
        known = self._shard(shard)
        if not 0 <= token < known.tokens:
            raise InputError(f"{self.storage.path(known.file)}: there is no token {token}; it has {known.tokens}, counted from 0.")
        row = int(np.searchsorted(self.index(shard)["first"].to_numpy(), token, "right")) - 1
        return self._address(shard, row)

    def documents_of(self, start: int, length: int) -> list[Address]:
        """The documents that `window(start, length)` touches, in the order of their tokens."""
        found: list[Address] = []
        stop = min(start + length, self.total)
        while start < stop:
            number, begin = self.shard_of(start)
            firsts = self.index(number)["first"].to_numpy()
            end = min(stop - self._start_list[number], self.shards[number].tokens)
            rows = range(int(np.searchsorted(firsts, begin, "right")) - 1, int(np.searchsorted(firsts, end, "left")))
            found += [self._address(number, row) for row in rows]
            start = self._start_list[number + 1]
        return found

    def _address(self, shard: int, row: int) -> Address:
        return Address(shard=shard, **self.index(shard).slice(row, 1).to_pylist()[0])

    @cached_property
    def utf8_bytes(self) -> int:
        """UTF-8 bytes of all documents: what bits per byte are divided by."""
        return self.description.utf8_bytes

    def verify(self) -> None:
        """Reads every shard; raises InputError where its sha256 or its index is not what `shards.json` says."""
        for number, shard in enumerate(self.shards):
            for what, file, wanted in (("token shard", shard.file, shard.sha256), ("index", shard.index, shard.index_sha256)):
                if file_sha256(self.storage, file) != wanted:
                    raise InputError(f"{self.storage.path(file)}: this {what} is not the one that was written (its sha256 differs).")
            self.index(number)


def file_sha256(storage: Storage, relative: str) -> str:
    """sha256 (hex) of a file, read in pieces."""
    sha = hashlib.sha256()
    with storage.open_read(relative) as file:
        while chunk := file.read(1 << 22):
            sha.update(chunk)
    return sha.hexdigest()
