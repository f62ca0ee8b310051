"""Token shards: a folder of flat arrays of token ids, in which every token has an address. The format, and its reader.

```
tokens-00000.bin             little-endian uint16 (vocabularies below 65,536) or uint32, one document after the other,
                             each followed by END_OF_TEXT
tokens-00000.index.parquet   one row a document, in the order of the tokens: see INDEX
tokens-00000.pack-2048.arrow a packing plan, if the recipe asks for one (`packing.py`): which pieces of the documents share a training
                             row of 2048 places. One row a piece, sorted by training row and place in the shard; an uncompressed
                             Arrow file of one batch, to be read through a memory map. Every token of the shard is in exactly one
                             piece, so it is a target exactly once
shards.json                  dtype, vocabulary, the tokenizer's sha256, END_OF_TEXT's id, totals, and size and sha256 of each file
```

END_OF_TEXT is the token that ends documents: `<|endoftext|>`, or another token where the run did not train the tokenizer.
"""

import json
import os
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import TypeAdapter
from pydantic_core import from_json, to_json

from corpusmill.pipeline.cache import ShardCache
from corpusmill.pipeline.config import reason_of
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.shards import Content, read_table
from corpusmill.pipeline.storage import Storage, open_regular

SHARDS_FILE = "shards.json"
SPLITS = ("train", "validation")
DTYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}

#: One row a document. `first` is the document's first token, counted within the shard. `tokens` includes the END_OF_TEXT after the
#: document, so the rows cover the shard without gaps. `source`, `offset` and `length` address the record in the crawl; `data_file`
#: (relative to the run, see `TokenShard.run`) and `data_row` address the text that was encoded. A split by place may cut a document;
#: then it has a row in both splits, `text_begin` is the byte of its text at which the row begins, and `utf8_bytes` counts from there.
#: A mixture repeats documents: `copy` counts the repetitions from 0. Copies of each other that dedup found and kept share a
#: `cluster_id`; it is null for all other documents. `language` is the documents' column of that name, null if they have none.
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
        pa.field("text_begin", pa.int64(), nullable=False),
        pa.field("copy", pa.int32(), nullable=False),
        pa.field("cluster_id", pa.string()),
        pa.field("language", pa.string()),
    ]
)


def token_dtype(vocabulary_size: int) -> np.dtype[Any]:
    """Returns the smaller of the two types that holds every id below `vocabulary_size`. In uint16 the id 65,535 is never used."""
    return DTYPES["uint16"] if vocabulary_size < 1 << 16 else DTYPES["uint32"]


@dataclass(frozen=True)
class PackingFile:
    """The plan that packs a shard into `rows` rows of `length` places: its file name in the folder, its bytes and sha256 (hex)."""

    length: int
    file: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class TokenShard:
    """One `.bin` file with its index and plans: file names in the folder, counts, and the sha256 (hex) of both files.

    `run` is the run that `data_file` is relative to, and `origin` the sha256 of the `shards.json` from which the shard was appended.
    Both are null if the folder lies in the run that made it.
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
    plans: tuple[PackingFile, ...] = ()

    def plan(self, length: int) -> PackingFile | None:
        """Returns the plan for rows of `length` places; None if the shard has none."""
        return next((plan for plan in self.plans if plan.length == length), None)


@dataclass(frozen=True)
class ShardSet:
    """The content of `shards.json`."""

    dtype: str
    vocabulary_size: int
    tokenizer_sha256: str
    split: str
    shards: tuple[TokenShard, ...]
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

    @property
    def homes(self) -> list[str]:
        """The other runs that hold documents of this set."""
        return list(dict.fromkeys(shard.run for shard in self.shards if shard.run is not None))

    def packing(self) -> list[dict[str, Any]]:
        """Returns, for each length for which every shard has a plan, the rows, the places that stay empty, and their share."""
        found = []
        for length in sorted({plan.length for shard in self.shards for plan in shard.plans}):
            plans = [shard.plan(length) for shard in self.shards]
            if all(plans):
                rows = sum(plan.rows for plan in plans if plan)
                padding = rows * length - self.tokens
                found.append({"length": length, "rows": rows, "padding": padding, "waste": padding / max(rows * length, 1)})
        return found

    def to_json(self) -> bytes:
        totals = {"tokens": self.tokens, "documents": self.documents, "utf8_bytes": self.utf8_bytes, "packing": self.packing()}
        return (json.dumps({**asdict(self), **totals}, indent=1) + "\n").encode()

    @classmethod
    def read(cls, storage: Storage) -> "ShardSet":
        """Reads and checks `shards.json`. Raises InputError if it is missing, or is not as this module writes it."""
        path = storage.path(SHARDS_FILE)
        if not storage.exists(SHARDS_FILE):
            raise InputError(f"{path}: no such file, so {storage.root} holds no token shards.")
        try:
            raw = from_json(storage.read_bytes(SHARDS_FILE))
            totals = {name: raw.pop(name) for name in ("tokens", "documents", "utf8_bytes")}
            raw.pop("packing")  # it follows from the plans, and is in the file for human readers
            if unknown := raw.keys() - {field.name for field in fields(cls)}:
                raise ValueError(f"unknown key {min(unknown)}")
            found = TypeAdapter(cls).validate_json(to_json(raw), strict=True)
            files = [file for shard in found.shards for file in (shard.file, shard.index, *(plan.file for plan in shard.plans))]
            if outside := [file for file in files if "/" in file]:
                raise ValueError(f"{outside[0]!r} leads out of the folder")
            mismatch = [name for name, value in totals.items() if getattr(found, name) != value]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: not a description of token shards ({reason_of(error)}).") from error
        if mismatch:
            raise InputError(f"{path}: the total of {mismatch[0]} is not the sum over its shards.")
        if not 0 <= found.end_of_text_id < found.vocabulary_size:
            raise InputError(f"{path}: end_of_text_id {found.end_of_text_id} is no token of a vocabulary of {found.vocabulary_size}.")
        if found.dtype not in DTYPES or DTYPES[found.dtype] != token_dtype(found.vocabulary_size):
            raise InputError(f"{path}: tokens of type {found.dtype} do not fit a vocabulary of {found.vocabulary_size}.")
        return found


def split_folders(root: Storage) -> dict[str, str]:
    """Returns the folders of token shards by split, relative to the root: `tokens/train` in a run, `train` in a set."""
    for parent in ("tokens/", ""):
        found = {split: f"{parent}{split}" for split in SPLITS if root.exists(f"{parent}{split}/{SHARDS_FILE}")}
        if found:
            return found
    return {}


def shard_names(number: int) -> tuple[str, str]:
    """Returns the names of a shard's token file and of its index."""
    return f"tokens-{number:05d}.bin", f"tokens-{number:05d}.index.parquet"


def shard_contents(number: int, tokens: npt.NDArray[Any], index: pa.Table) -> dict[str, Content]:
    """Returns the files to publish for one shard. `tokens` has the set's dtype; `index` has the schema INDEX, in the tokens' order."""
    file, index_file = shard_names(number)
    return {file: np.ascontiguousarray(tokens).view(np.uint8).data, index_file: index}


def map_tokens(storage: Storage, relative: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Returns a file of tokens as a read-only array: a local file is memory-mapped, a remote one is read as a whole."""
    if storage.remote:
        with storage.open_read(relative) as file:  # this reads by ranges: a shard is large
            return np.frombuffer(file.read(), dtype)
    return map_file(storage.path(relative), dtype)


def map_file(path: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Maps a local file into memory and returns it as a read-only array, `[bytes // itemsize]`. Raises OSError if it can't be mapped.

    No descriptor stays open, so any number of shards can stay mapped. Where the file is truncated while it is mapped, reading the
    missing part ends the process by SIGBUS, as with any memory map.
    """
    with open_regular(path) as file:
        if not os.fstat(file.fileno()).st_size:
            return np.zeros(0, dtype)
    with pa.memory_map(path) as file:
        content = file.read_buffer()
    return np.frombuffer(content, dtype, content.size // dtype.itemsize)


def address_of(array: npt.NDArray[Any]) -> int:
    """Returns the memory address of an array's first item; 0 for an empty array."""
    return int(array.__array_interface__["data"][0]) if array.size else 0


#: The columns of a packing plan. `row` counts from 0 without gaps; `first` is the piece's first token in the shard, and `tokens` the
#: number of its tokens, each of which is a target.
PLAN = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("first", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
    ]
)
Integers = npt.NDArray[np.int64]


def plan_name(shard_file: str, length: int) -> str:
    """Returns the name of a shard's plan for rows of `length` places."""
    return f"{shard_file.removesuffix('.bin')}.pack-{length}.arrow"


def plan_bytes(table: pa.Table) -> bytes:
    """Returns a plan as the bytes of an Arrow file."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, PLAN) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=max(1, table.num_rows))
    return bytes(sink.getvalue())


class PackingPlan:
    """The content of a plan file: the int64 arrays `row`, `first` and `tokens`, each `[pieces]`.

    Raises FileNotFoundError if the file is missing, and InputError if it is not a plan that covers `shard_tokens` tokens once, in
    `rows` rows of at most `length` places.
    """

    def __init__(self, path: str, shard_tokens: int, length: int, rows: int):
        try:
            mapped = map_file(path, np.dtype(np.uint8))
            file = pa.ipc.open_file(pa.py_buffer(mapped))
            batch = file.get_batch(0) if file.num_record_batches == 1 else file.read_all()
            batch.validate()  # Arrow trusts the sizes that a file states
        except FileNotFoundError:
            raise  # another process may have removed the copy from the cache
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{path}: not a readable packing plan ({error}).") from error
        if not batch.schema.equals(PLAN):
            raise InputError(f"{path}: not a packing plan (its columns are {', '.join(batch.schema.names)}).")
        self.row, self.first, self.tokens = (_column(batch, name) for name in PLAN.names)
        if not _covers(self.row, self.first, self.tokens, shard_tokens, length, rows):
            raise InputError(f"{path}: this packing plan does not cover the {shard_tokens} tokens of its shard in {rows} rows of {length}.")

    def pieces_of(self, row: int) -> list[tuple[int, int]]:
        """Returns (first token in the shard, tokens) of each piece of a row."""
        begin, end = np.searchsorted(self.row, [row, row + 1])
        return list(zip(self.first[begin:end].tolist(), self.tokens[begin:end].tolist()))


def _column(batch: pa.RecordBatch | pa.Table, name: str) -> Integers:
    values: npt.NDArray[Any] = batch[name].to_numpy() if batch.num_rows else np.zeros(0, np.int64)
    return np.ascontiguousarray(values, np.int64)


def _covers(row: Integers, first: Integers, tokens: Integers, shard_tokens: int, length: int, rows: int) -> bool:
    """Whether every token of the shard is in one piece, and every row has pieces of `length` tokens together at most."""
    if not len(row):
        return shard_tokens == rows == 0
    order = first.argsort(kind="stable")
    starts, sizes = first[order], tokens[order]
    wanted = sizes.cumsum()  # where each piece ends, if they follow one another without gaps
    steps = row[1:] - row[:-1]
    return bool(
        row[0] == 0 and row[-1] == rows - 1 and (not len(steps) or (steps.min() >= 0 and steps.max() <= 1))
        and sizes.min() > 0 and wanted[-1] == shard_tokens and (starts == wanted - sizes).all()
        and np.bincount(row, tokens).max() <= length
    )  # fmt: skip


FETCHES = 8  # files of a remote set that are copied in parallel
Opened = TypeVar("Opened")


@dataclass(frozen=True)
class TokenAddress:
    """The origin of a token: its document, that document's record in the crawl, row of the data, and place in the shard."""

    shard: int
    id: str
    url: str | None
    source: str | None
    offset: int | None
    length: int | None
    data_file: str
    data_row: int
    text_begin: int  # UTF-8 bytes of the text before these tokens: above 0 where a split by place cut the document
    first: int  # the document's first token, counted within the shard
    tokens: int
    utf8_bytes: int
    copy: int
    cluster_id: str | None
    language: str | None


class TokenShards:
    """A folder of token shards, read through memory maps. A position counts tokens over all shards.

    Shards are mapped when they are needed; those of a remote store are first copied to `cache` (by default the user's).
    Raises InputError if the folder holds no token shards, if a shard is missing or has another size than in `shards.json`, if
    no `tokenizer_sha256` is the one of the shards, and if documents end with another token than `end_of_text_id` (if these are given).
    """

    def __init__(
        self,
        folder: str | Path,
        tokenizer_sha256: str | Collection[str] | None = None,
        end_of_text_id: int | None = None,
        cache: ShardCache | None = None,
    ):
        self.storage = Storage(str(folder))
        self._cache = (cache or ShardCache()) if self.storage.remote else None
        self.description = ShardSet.read(self.storage)
        self.dtype = DTYPES[self.description.dtype]
        expected = [tokenizer_sha256] if isinstance(tokenizer_sha256, str) else sorted(tokenizer_sha256 or ())
        if expected and self.description.tokenizer_sha256 not in expected:
            raise InputError(
                f"{self.storage.path(SHARDS_FILE)}: these tokens were made by another tokenizer "
                f"(sha256 {self.description.tokenizer_sha256[:12]}, expected {' or '.join(sha256[:12] for sha256 in expected)})."
            )
        if end_of_text_id is not None and self.description.end_of_text_id != end_of_text_id:
            raise InputError(
                f"{self.storage.path(SHARDS_FILE)}: documents end with token {self.description.end_of_text_id} here, and with "
                f"{end_of_text_id} in the tokenizers that this project trains: a model can't be trained on these shards."
            )
        self._check_sizes()
        counts = [shard.tokens for shard in self.description.shards]
        #: int64 `[shards + 1]`: the position at which each shard begins, and the total.
        self.starts: npt.NDArray[np.int64] = np.concatenate(([0], np.cumsum(counts, dtype=np.int64))).astype(np.int64)
        self._start_list: list[int] = self.starts.tolist()
        #: uint64 `[shards]`: the memory address of each shard's tokens; 0 for a shard that is empty or not mapped yet.
        self.addresses: npt.NDArray[np.uint64] = np.zeros(len(counts), np.uint64)
        self._tokens: dict[int, npt.NDArray[Any]] = {}
        self._indexes: dict[int, pa.Table] = {}
        self._plans: dict[tuple[int, int], PackingPlan] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the memory maps: the process that gets the pickle maps the shards itself."""
        return {**self.__dict__, "addresses": np.zeros_like(self.addresses), "_tokens": {}, "_indexes": {}, "_plans": {}}

    def __len__(self) -> int:
        return self._start_list[-1]

    @property
    def total(self) -> int:
        """Tokens in all shards."""
        return len(self)

    @property
    def shards(self) -> tuple[TokenShard, ...]:
        return self.description.shards

    @property
    def end_of_text_id(self) -> int:
        return self.description.end_of_text_id

    def _check_sizes(self) -> None:
        sizes = self.storage.listing()
        for shard in self.shards:
            size = sizes.get(shard.file, -1)
            if size != shard.tokens * self.dtype.itemsize:
                raise self._wrong_size(shard, size)

    def _wrong_size(self, shard: TokenShard, size: int) -> InputError:
        if size < 0:
            return InputError(f"{self.storage.path(shard.file)}: this token shard is missing.")
        what = "cut short" if size < shard.tokens * self.dtype.itemsize else "too long"
        wanted = shard.tokens * self.dtype.itemsize
        return InputError(f"{self.storage.path(shard.file)}: this token shard is {what} ({size} bytes, and {SHARDS_FILE} says {wanted}).")

    def _shard(self, number: int) -> TokenShard:
        if not 0 <= number < len(self.shards):
            raise InputError(f"{self.storage.root}: there is no shard {number}; it has {len(self.shards)}, counted from 0.")
        return self.shards[number]

    def tokens(self, number: int) -> npt.NDArray[Any]:
        """Returns all tokens of one shard, read-only."""
        if number not in self._tokens:
            shard, width = self._shard(number), self.dtype.itemsize
            tokens = self._open(shard.file, shard.tokens * width, shard.sha256, lambda path: map_file(path, self.dtype))
            if len(tokens) != shard.tokens:
                raise self._wrong_size(shard, len(tokens) * width)
            tokens = self._tokens.setdefault(number, tokens)  # keeps the map of the first thread: its address may be in use
            self.addresses[number] = address_of(tokens)
        return self._tokens[number]

    def map(self, numbers: Iterable[int]) -> None:
        """Maps these shards, which fills in their `addresses`. Remote shards are fetched in parallel."""
        if self.storage.remote:
            with ThreadPoolExecutor(FETCHES) as pool:
                deque(pool.map(self.tokens, numbers), 0)
        else:
            deque(map(self.tokens, numbers), 0)

    def packed_rows(self, number: int, length: int) -> int:
        """Returns the number of rows of `length` places into which a shard is packed. Raises InputError if it has no such plan."""
        return self._plan(number, length).rows

    def plan(self, number: int, length: int) -> PackingPlan:
        """Returns the plan that packs a shard into rows of `length` places. Raises InputError if it has no such plan."""
        if (number, length) not in self._plans:
            shard, found = self._shard(number), self._plan(number, length)
            plan = self._open(found.file, found.bytes, found.sha256, lambda path: PackingPlan(path, shard.tokens, length, found.rows))
            self._plans.setdefault((number, length), plan)
        return self._plans[number, length]

    def _plan(self, number: int, length: int) -> PackingFile:
        found = self._shard(number).plan(length)
        if found is None:
            raise InputError(
                f"{self.storage.root}: these tokens are not packed into rows of {length}; "
                f"corpusmill run RUN --from tokens --to tokens --redo --set tokens.pack_lengths=[{length}] does that."
            )
        return found

    def _open(self, file: str, size: int, sha256: str, opener: Callable[[str], Opened]) -> Opened:
        """Calls `opener` with the path of a file of the set (where the set is remote, of its copy), and returns the result."""
        if self._cache is not None:
            return self._cache.use(self.storage, file, size, sha256, opener)
        try:
            return opener(self.storage.path(file))
        except OSError as error:
            raise InputError(f"{self.storage.path(file)}: can't be read ({error.strerror or error}).") from error

    def index(self, number: int) -> pa.Table:
        """Returns the documents of one shard (schema INDEX). Raises InputError if the index does not cover the shard."""
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

    def release(self, number: int) -> None:
        """Drops a shard's map and index, for callers that go through all shards one by one. No loader may be reading them."""
        self.addresses[number] = 0
        self._tokens.pop(number, None)
        self._indexes.pop(number, None)

    def shard_of(self, position: int) -> tuple[int, int]:
        """Returns the shard of a position and the token's number in that shard."""
        if not 0 <= position < self.total:
            raise InputError(f"{self.storage.root}: there is no token {position}; it has {self.total}, counted from 0.")
        number = bisect_right(self._start_list, position) - 1
        return number, position - self._start_list[number]

    def window(self, start: int, length: int) -> npt.NDArray[Any]:
        """Returns `length` tokens from position `start` on, across shard borders. A read-only view where one shard has them all."""
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

    def locate(self, shard: int, token: int) -> TokenAddress:
        """Returns the document to which a token of a shard belongs. The END_OF_TEXT after a document belongs to it."""
        known = self._shard(shard)
        if not 0 <= token < known.tokens:
            raise InputError(f"{self.storage.path(known.file)}: there is no token {token}; it has {known.tokens}, counted from 0.")
        row = int(np.searchsorted(self.index(shard)["first"].to_numpy(), token, "right")) - 1
        return self._address(shard, row)

    def documents_of(self, start: int, length: int) -> list[TokenAddress]:
        """Returns the documents that have tokens in `window(start, length)`, in the order of their tokens."""
        found: list[TokenAddress] = []
        stop = min(start + length, self.total)
        while start < stop:
            number, begin = self.shard_of(start)
            firsts = self.index(number)["first"].to_numpy()
            end = min(stop - self._start_list[number], self.shards[number].tokens)
            rows = range(int(np.searchsorted(firsts, begin, "right")) - 1, int(np.searchsorted(firsts, end, "left")))
            found += [self._address(number, row) for row in rows]
            start = self._start_list[number + 1]
        return found

    def _address(self, shard: int, row: int) -> TokenAddress:
        return TokenAddress(shard=shard, **self.index(shard).slice(row, 1).to_pylist()[0])

    @cached_property
    def utf8_bytes(self) -> int:
        """UTF-8 bytes of all documents, the divisor of bits per byte."""
        return self.description.utf8_bytes

    def verify(self) -> None:
        """Reads every shard. Raises InputError if a shard, its index or a plan does not match `shards.json`."""
        for number, shard in enumerate(self.shards):
            for what, file, wanted in (
                ("token shard", shard.file, shard.sha256),
                ("index", shard.index, shard.index_sha256),
                *(("packing plan", plan.file, plan.sha256) for plan in shard.plans),
            ):
                if self.storage.sha256(file) != wanted:
                    raise InputError(f"{self.storage.path(file)}: this {what} is not the one that was written (its sha256 differs).")
            self.index(number)
            for plan in shard.plans:
                self.plan(number, plan.length)
