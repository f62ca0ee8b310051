"""Token shards: a folder of flat arrays of token ids, in which every token has an address.

```
tokens-00000.bin             little-endian uint16 (vocabularies below 65,536) or uint32, one document after the other,
                             each followed by END_OF_TEXT
tokens-00000.index.parquet   one row a document, in the order of the tokens: see INDEX
tokens-00000.pack-2048.arrow where asked for, which pieces of its documents share a row of 2048 places: see packplan.py
shards.json                  dtype, vocabulary, the tokenizer's sha256, END_OF_TEXT's id, totals, and size and sha256 of each file
```

END_OF_TEXT is the token that ends documents: `<|endoftext|>`, or another one where the tokenizer is from elsewhere.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import cache
from operator import itemgetter
from types import NoneType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.mapping import map_file
from corpusmill.pipeline.shards import Content
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.store.ask import StoreError

SHARDS_FILE = "shards.json"
SPLITS = ("train", "validation")
Described = TypeVar("Described")
DTYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}

#: One row a document. `first` counts within the shard; `tokens` includes the END_OF_TEXT after the document, so the rows
#: cover the shard without gaps. `source`, `offset`, `length` lead to the record of the crawl, `data_file` (relative to the
#: run, see `Shard.run`) and `data_row` to the text that was encoded. A document that a split by place cuts has a row in both splits:
#: `text_begin` is the byte of its text at which the row's begins, and `utf8_bytes` counts from there. A mixture repeats documents: `copy`
#: counts from 0. Documents that dedup knows as copies of each other and that stay all the same have one `cluster_id`; it is null for
#: all others. `language` is the documents' column of that name, null where they have none.
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
    """The smallest of the two types that holds every id below `vocabulary_size`; 65,535 stays free in uint16."""
    return DTYPES["uint16"] if vocabulary_size < 1 << 16 else DTYPES["uint32"]


@dataclass(frozen=True)
class ShardPlan:
    """A shard packed into `rows` rows of `length` places: the plan's name relative to the folder, its bytes and sha256 (hex)."""

    length: int
    file: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Shard:
    """One `.bin` file with its index and plans: names relative to the folder, sizes in tokens, sha256 (hex) of both.

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
    plans: tuple[ShardPlan, ...] = ()

    def plan(self, length: int) -> ShardPlan | None:
        """The plan for rows of `length` places, where it has one."""
        return next((plan for plan in self.plans if plan.length == length), None)


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

    @property
    def homes(self) -> list[str]:
        """The other runs in which documents of a set lie."""
        return list(dict.fromkeys(shard.run for shard in self.shards if shard.run is not None))

    def packing(self) -> list[dict[str, Any]]:
        """For each length for which every shard has a plan: rows, places that stay empty, and their share."""
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
        """Raises InputError where there is no such file, or where it is not what this module writes."""
        path = storage.path(SHARDS_FILE)
        if not storage.exists(SHARDS_FILE):
            raise InputError(f"{path}: no such file, so {storage.root} holds no token shards.")
        try:
            raw = json.loads(storage.read_bytes(SHARDS_FILE))
            totals = {name: raw.pop(name) for name in ("tokens", "documents", "utf8_bytes")}
            raw.pop("packing")  # for those who read the file: it follows from the plans
            found = cls(**{**raw, "shards": tuple(map(_shard, raw["shards"]))})
            if [type(getattr(found, name)) for name in _HEADER] != list(_HEADER.values()):
                raise ValueError("a value is of another kind")
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


#: The types of the set's own values, and those that a shard's and a plan's may have, in the order of their fields.
_HEADER = {"dtype": str, "vocabulary_size": int, "tokenizer_sha256": str, "split": str, "end_of_text_id": int}
_SHARD: set[tuple[type, ...]] = {
    (*(str, str, int, int, int, str, str), run, origin, tuple) for run in (str, NoneType) for origin in (str, NoneType)
}
_PLAN: set[tuple[type, ...]] = {(int, str, int, int, str)}


def _shard(raw: dict[str, Any]) -> Shard:
    raw["plans"] = tuple([_described(ShardPlan, _PLAN, plan) for plan in raw["plans"]])
    return _described(Shard, _SHARD, raw)


@cache
def _values(kind: type) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    """Gives the values of a kind's fields, in their order."""
    return itemgetter(*[field.name for field in fields(kind)])


def _described(kind: type[Described], types: set[tuple[type, ...]], raw: dict[str, Any]) -> Described:
    """`kind(**raw)` in a fifth of the time, which counts where a set has thousands of shards; no field may have its default."""
    values = _values(kind)(raw)  # type: ignore[arg-type]
    if len(raw) != len(values):
        raise KeyError(f"not the fields of a {kind.__name__}")
    if tuple(map(type, values)) not in types or "/" in raw["file"] or "/" in raw.get("index", ""):
        raise ValueError(f"a value of a {kind.__name__} is of another kind, or leads out of the folder")
    found = object.__new__(kind)
    found.__dict__.update(raw)
    return found


def shard_names(number: int) -> tuple[str, str]:
    """The names of a shard's tokens and of its index."""
    return f"tokens-{number:05d}.bin", f"tokens-{number:05d}.index.parquet"


def shard_contents(number: int, tokens: npt.NDArray[Any], index: pa.Table) -> dict[str, Content]:
    """What to publish for one shard. `tokens` has the set's dtype; `index` is in the schema INDEX, in the tokens' order."""
    file, index_file = shard_names(number)
    return {file: np.ascontiguousarray(tokens).view(np.uint8).data, index_file: index}


def map_tokens(storage: Storage, relative: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """A file of tokens as a read-only array: a memory map where it is local, else its content."""
    if storage.remote:
        with storage.open_read(relative) as file:  # by ranges: a shard is large
            return np.frombuffer(file.read(), dtype)
    return map_file(storage.path(relative), dtype)


def file_sha256(storage: Storage, relative: str) -> str:
    """sha256 (hex) of a file, read in pieces. Raises InputError where it can't be read."""
    sha = hashlib.sha256()
    try:
        with storage.open_read(relative) as file:
            while chunk := file.read(1 << 22):
                sha.update(chunk)
    except StoreError:
        raise
    except OSError as error:
        raise InputError(f"{storage.path(relative)}: can't be read ({error.strerror or error}).") from error
    return sha.hexdigest()


def split_folders(root: Storage) -> dict[str, str]:
    """The folders of token shards by split, relative to the root: `tokens/train` in a run, `train` in a set."""
    for parent in ("tokens/", ""):
        found = {split: f"{parent}{split}" for split in SPLITS if root.exists(f"{parent}{split}/{SHARDS_FILE}")}
        if found:
            return found
    return {}
