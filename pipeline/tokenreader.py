"""Reading token shards through memory maps: tokens, windows, and the document that a token belongs to."""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.cache import ShardCache
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.mapping import address_of, map_file
from corpusmill.pipeline.packplan import Plan
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.tokenshards import DTYPES, INDEX, SHARDS_FILE, Shard, ShardPlan, ShardSet, file_sha256

FETCHES = 8  # files of a remote set that are copied at a time
Opened = TypeVar("Opened")


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
    text_begin: int  # UTF-8 bytes of its text before these tokens: above 0 where a split by place cut it
    first: int  # of the document in its shard
    tokens: int
    utf8_bytes: int
    copy: int
    cluster_id: str | None
    language: str | None


class TokenShards:
    """A folder of token shards, read through memory maps; positions run over all shards as one row of tokens.

    Shards are mapped when they are needed; those of a remote store from copies in `cache` (by default the user's: `shardcache.py`).
    Raises InputError where the folder holds no token shards, a shard is missing or of another size than
    `shards.json` says, or (where these are given) they were made by another tokenizer, or end documents with another token.
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
        #: int64, one more than there are shards: the position at which each begins, and the total.
        self.starts: npt.NDArray[np.int64] = np.concatenate(([0], np.cumsum(counts, dtype=np.int64))).astype(np.int64)
        self._start_list: list[int] = self.starts.tolist()
        #: uint64: where the tokens of each shard lie in this process; 0 for those that are not mapped yet, and for empty ones.
        self.addresses: npt.NDArray[np.uint64] = np.zeros(len(counts), np.uint64)
        self._tokens: dict[int, npt.NDArray[Any]] = {}
        self._indexes: dict[int, pa.Table] = {}
        self._plans: dict[tuple[int, int], Plan] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Another process maps the shards for itself."""
        return {**self.__dict__, "addresses": np.zeros_like(self.addresses), "_tokens": {}, "_indexes": {}, "_plans": {}}

    def __len__(self) -> int:
        return self._start_list[-1]

    @property
    def total(self) -> int:
        """Tokens in all shards."""
        return len(self)

    @property
    def shards(self) -> tuple[Shard, ...]:
        return self.description.shards

    def _check_sizes(self) -> None:
        for shard, size in zip(self.shards, self.storage.sizes([shard.file for shard in self.shards]), strict=True):
            if size != shard.tokens * self.dtype.itemsize:
                raise self._wrong_size(shard, size)

    def _wrong_size(self, shard: Shard, size: int) -> InputError:
        if size < 0:
            return InputError(f"{self.storage.path(shard.file)}: this token shard is missing.")
        what = "cut short" if size < shard.tokens * self.dtype.itemsize else "too long"
        wanted = shard.tokens * self.dtype.itemsize
        return InputError(f"{self.storage.path(shard.file)}: this token shard is {what} ({size} bytes, and {SHARDS_FILE} says {wanted}).")

    def _shard(self, number: int) -> Shard:
        if not 0 <= number < len(self.shards):
            raise InputError(f"{self.storage.root}: there is no shard {number}; it has {len(self.shards)}, counted from 0.")
        return self.shards[number]

    def tokens(self, number: int) -> npt.NDArray[Any]:
        """All tokens of one shard, read-only."""
        if number not in self._tokens:
            shard, width = self._shard(number), self.dtype.itemsize
            tokens = self._open(shard.file, shard.tokens * width, shard.sha256, lambda path: map_file(path, self.dtype))
            if len(tokens) != shard.tokens:
                raise self._wrong_size(shard, len(tokens) * width)
            tokens = self._tokens.setdefault(number, tokens)  # of two threads the first counts: an address that was given stays good
            self.addresses[number] = address_of(tokens)
        return self._tokens[number]

    def map(self, numbers: Iterable[int]) -> None:
        """Maps these shards, so that their `addresses` are known; remote ones are fetched side by side."""
        if self.storage.remote:
            with ThreadPoolExecutor(FETCHES) as pool:
                deque(pool.map(self.tokens, numbers), 0)
        else:
            deque(map(self.tokens, numbers), 0)

    def packed_rows(self, number: int, length: int) -> int:
        """Rows of `length` places into which a shard is packed; raises InputError where it has no such plan."""
        return self._plan(number, length).rows

    def plan(self, number: int, length: int) -> Plan:
        """How the documents of a shard are packed into rows of `length`; raises InputError where it has no such plan."""
        if (number, length) not in self._plans:
            shard, found = self._shard(number), self._plan(number, length)
            plan = self._open(found.file, found.bytes, found.sha256, lambda path: Plan(path, shard.tokens, length, found.rows))
            self._plans.setdefault((number, length), plan)
        return self._plans[number, length]

    def _plan(self, number: int, length: int) -> ShardPlan:
        found = self._shard(number).plan(length)
        if found is None:
            raise InputError(
                f"{self.storage.root}: these tokens are not packed into rows of {length}; "
                f"corpusmill tokens RUN --redo --set tokens.pack_lengths=[{length}] does that."
            )
        return found

    def _open(self, file: str, size: int, sha256: str, opener: Callable[[str], Opened]) -> Opened:
        """What `opener` makes of the path of a file of the set, or of its copy where the set is remote."""
        if self._cache is not None:
            return self._cache.use(self.storage, file, size, sha256, opener)
        try:
            return opener(self.storage.path(file))
        except OSError as error:
            raise InputError(f"{self.storage.path(file)}: can't be read ({error.strerror}).") from error

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

    def release(self, number: int) -> None:
        """Lets go of a shard's map and index: whoever walks over all shards needs one at a time. No loader may be reading them."""
        self.addresses[number] = 0
        self._tokens.pop(number, None)
        self._indexes.pop(number, None)

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
        """Reads every shard; raises InputError where its sha256, its index or its plans are not what `shards.json` says."""
        for number, shard in enumerate(self.shards):
            for what, file, wanted in (
                ("token shard", shard.file, shard.sha256),
                ("index", shard.index, shard.index_sha256),
                *(("packing plan", plan.file, plan.sha256) for plan in shard.plans),
            ):
                if file_sha256(self.storage, file) != wanted:
                    raise InputError(f"{self.storage.path(file)}: this {what} is not the one that was written (its sha256 differs).")
            self.index(number)
            for plan in shard.plans:
                self.plan(number, plan.length)
