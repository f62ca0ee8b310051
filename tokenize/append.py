"""Appends the token shards of a run to a set of token shards: no document comes in twice or lies in both splits.

A set is a folder with `train/` and `validation/` that belongs to no run. A split's files are written first and its `shards.json` last, by
one rename, so a reader always finds a complete set. New shards are packed like the set's shards or, in an empty set, like the run's.
Appending the same shards again changes nothing.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.lease import holding
from corpusmill.pipeline.manifest import MANIFEST, Manifest
from corpusmill.pipeline.names import not_a_run
from corpusmill.pipeline.run import no_tokens
from corpusmill.pipeline.shards import iter_tables, publish, read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import DTYPES, SHARDS_FILE, SPLITS, ShardSet, TokenShard, map_tokens, shard_contents, shard_names
from corpusmill.tokenize.documents import hashes
from corpusmill.tokenize.parts import copy_spans
from corpusmill.tokenize.tokens_stage import write_plans

_FILE = re.compile(r"tokens-(\d+)\.")


@dataclass(frozen=True)
class Appended:
    """The result for a split. `left_out`: documents (rows of the index) that the set has, or whose near copies its other split has."""

    split: str
    shards: int
    documents: int
    tokens: int
    left_out: int
    total: int  # tokens of the split after appending


@dataclass(frozen=True)
class _Split:
    """A split of the run and of the set. `origin` is the hash of the run's `shards.json`; the set's shards record where they came from."""

    name: str
    source: Storage
    target: Storage
    new: ShardSet
    there: ShardSet
    origin: str

    @property
    def done(self) -> bool:
        return not self.new.shards or any(shard.origin == self.origin for shard in self.there.shards)


def append(folder: str, run_folder: str, skip_known: bool = False, on_message: Callable[[str], None] = lambda _: None) -> list[Appended]:
    """Appends the token shards of the run to the set in `folder`, which is made if missing. Calls `on_message` with a sentence where it
    waits for another process.

    Raises InputError if the folder belongs to a run, the run's tokens are not finished, or the tokenizers differ. Without `skip_known`
    it also raises InputError where the set has some of the documents already, or its other split has them or their near copies. With
    `skip_known` it leaves these documents out.
    """
    target, run = Storage(folder), Storage(run_folder if "://" in run_folder else str(Path(run_folder).absolute()))
    if target.exists(MANIFEST):
        raise InputError(f"{folder}: this folder belongs to a run, which would undo it; append to a folder of its own (it is made).")
    if not run.remote and not Path(run.root).is_dir():
        raise InputError(not_a_run(run_folder))
    if not Manifest(run.child("tokens"), read_only=True).complete:
        raise InputError(no_tokens(run_folder))
    with holding(target, on_message):
        for split in SPLITS:
            target.sweep(split)
        splits = [_open(split, run, target) for split in SPLITS]
        todo = [split for split in splits if not split.done]
        masks = _choose(run, splits, todo, skip_known, folder) if todo else {}
        return [_append(split, masks[split.name], run.root) if split in todo else _nothing(split) for split in splits]


def _open(split: str, run: Storage, target: Storage) -> _Split:
    source, folder = run.child(f"tokens/{split}"), target.child(split)
    new = ShardSet.read(source)
    there = ShardSet.read(folder) if folder.exists(SHARDS_FILE) else replace(new, shards=())
    for name, what in (
        ("tokenizer_sha256", "another tokenizer"),
        ("dtype", "another type"),
        ("end_of_text_id", "another end of documents"),
    ):
        mine, theirs = getattr(new, name), getattr(there, name)
        if mine != theirs:
            raise InputError(f"{source.path(SHARDS_FILE)}: tokens of {what} than those of {folder.root} ({name} {mine}, there {theirs}).")
    return _Split(split, source, folder, new, there, hashlib.sha256(source.read_bytes(SHARDS_FILE)).hexdigest())


def _choose(run: Storage, splits: list[_Split], todo: list[_Split], skip: bool, folder: str) -> dict[str, list[npt.NDArray[np.bool_]]]:
    """Returns, by split, which documents of each shard go into the set. Raises InputError if some do not, unless `skip` is set."""
    mine = {split.origin for split in splits}  # shards of an interrupted append of this run do not count as known documents
    old = {split.name: partial(names_of, split.target, [s for s in split.there.shards if s.origin not in mine]) for split in splits}
    known = Known(run, lambda: chain.from_iterable(names_of(split.source, split.new.shards) for split in splits), old)
    masks: dict[str, list[npt.NDArray[np.bool_]]] = {}
    there = held = documents = 0
    for split in todo:
        masks[split.name] = []
        for names in names_of(split.source, split.new.shards):
            twice, out = known.there(names, split.name), known.held_out(names, split.name)
            there, held, documents = there + int(twice.sum()), held + int((out & ~twice).sum()), documents + names.num_rows
            masks[split.name].append(~(twice | out))
    if (there or held) and not skip:
        also = f", and {held:,} with a near copy in its other split (use equal seeds and shares)" if held else ""
        raise InputError(
            f"{folder}: has {there:,} of the {documents:,} documents of {run.root} already{also}; --skip-known leaves them out."
        )
    return masks


def _append(split: _Split, masks: list[npt.NDArray[np.bool_]], run: str) -> Appended:
    first = len(split.there.shards)
    for path in split.target.list_files():
        left = _FILE.match(path)
        if left and int(left[1]) >= first:  # from an interrupted append
            split.target.remove(path)
    added: list[TokenShard] = []
    lengths = {plan.length for shard in (split.there.shards or split.new.shards) for plan in shard.plans}
    for shard, mask in zip(split.new.shards, masks, strict=True):
        if mask.any():
            write = _copy if mask.all() else _rest
            written = write(split, shard, mask, first + len(added))
            plans = write_plans(split.target, written, sorted(lengths))
            added.append(replace(written, run=run, origin=split.origin, plans=plans))
    now = replace(split.there, shards=(*split.there.shards, *added))
    split.target.write_bytes(SHARDS_FILE, now.to_json())
    left_out = sum(int((~mask).sum()) for mask in masks)
    return Appended(split.name, len(added), sum(s.documents for s in added), sum(s.tokens for s in added), left_out, now.tokens)


def _nothing(split: _Split) -> Appended:
    """Returns the result where there is nothing to append. Writes an empty `shards.json` where the set has none."""
    if not split.target.exists(SHARDS_FILE):
        split.target.write_bytes(SHARDS_FILE, split.there.to_json())
    return Appended(split.name, 0, 0, 0, 0, split.there.tokens)


def _copy(split: _Split, shard: TokenShard, mask: npt.NDArray[np.bool_], number: int) -> TokenShard:
    """Copies a whole shard. Raises InputError if its hashes differ from the recorded ones."""
    names = shard_names(number)
    for old, new, wanted in zip((shard.file, shard.index), names, (shard.sha256, shard.index_sha256), strict=True):
        sha = hashlib.sha256()
        with split.target.write_atomic(new) as out:
            for chunk in _chunks(split.source, old):
                sha.update(chunk)
                out.write(chunk)
            _check(split.source, old, sha.hexdigest(), wanted)
    return replace(shard, file=names[0], index=names[1])


def _check(storage: Storage, path: str, sha256: str, wanted: str) -> None:
    if sha256 != wanted:
        raise InputError(f"{storage.path(path)}: not the file that was written (its sha256 differs).")


def _chunks(storage: Storage, path: str) -> Iterator[bytes]:
    with storage.open_read(path) as file:
        while chunk := file.read(1 << 22):
            yield chunk


def _rest(split: _Split, shard: TokenShard, mask: npt.NDArray[np.bool_], number: int) -> TokenShard:
    """Writes a shard without some of its documents. Checks the hashes first, because the index decides what is copied."""
    for file, wanted in ((shard.file, shard.sha256), (shard.index, shard.index_sha256)):
        _check(split.source, file, split.source.sha256(file), wanted)
    dtype = DTYPES[split.new.dtype]
    index = read_table(split.source, shard.index).filter(pa.array(mask))
    counts = index["tokens"].to_numpy()
    firsts = np.cumsum(counts) - counts
    tokens = np.empty(int(counts.sum()), dtype)
    copy_spans(map_tokens(split.source, shard.file, dtype), index["first"].to_numpy(), counts, firsts, tokens)
    index = index.set_column(index.column_names.index("first"), index.schema.field("first"), pa.array(firsts))
    outputs = [publish(split.target, name, content) for name, content in shard_contents(number, tokens, index).items()]
    size = int(np.sum(index["utf8_bytes"].to_numpy()))
    sha256, index_sha256 = (output.sha256 for output in outputs)
    return TokenShard(*shard_names(number), len(tokens), index.num_rows, size, sha256, index_sha256)


# ---- documents that a set has already --------------------------------------------------------------------


Mask = npt.NDArray[np.bool_]
Hashes = npt.NDArray[np.uint64]

#: Where dedup records the fate of documents of earlier runs (`docs/stages/dedup.md`).
EARLIER = "dedup/earlier/part-"
NAMES = ["id", "cluster_id"]
#: Yields tables with the columns NAMES; can be called again.
Tables = Callable[[], Iterable[pa.Table]]


def names_of(storage: Storage, shards: Iterable[TokenShard]) -> Iterator[pa.Table]:
    """Yields the ids and clusters of the documents of each shard."""
    return (read_table(storage, shard.index, NAMES) for shard in shards)


class Known:
    """The documents of a set of token shards, by split, that equal documents of a run or are near copies of them. Memory: 16 bytes for each
    document of the run."""

    def __init__(self, run: Storage, new: Tables, there: Mapping[str, Tables]):
        """`new`: ids and clusters of all documents of the run; `there`: by split, those of the documents of the set."""
        hashed = np.unique(np.concatenate([np.zeros(0, np.uint64), *map(_hashes, new())]))
        pairs = _earlier(run, hashed)  # a document of an earlier run, and its near copy in this run
        wanted = np.union1d(hashed, hashes(pairs["id"], 0))
        #: By split: ids of the set's documents that may equal new ones; these ids with the clusters and ids of their near copies.
        self.ids, self.names = dict[str, pa.Array](), dict[str, pa.Array]()
        for split, tables in there.items():
            ids, names = [], []
            for table in tables():
                some = table.filter(pa.array(_among(hashes(table["id"], 0), wanted) | _among(hashes(table["cluster_id"], 0), wanted)))
                ids += some["id"].chunks
                names += some["cluster_id"].drop_null().chunks
            self.ids[split] = _united(ids)
            alike = pairs.filter(pc.is_in(pairs["id"], self.ids[split]))["like"].chunks
            self.names[split] = _united([self.ids[split], *names, *alike])

    def there(self, names: pa.Table, split: str) -> Mask:
        """Returns for each document whether the split has it already."""
        return pc.is_in(names["id"], self.ids[split]).to_numpy()

    def held_out(self, names: pa.Table, split: str) -> Mask:
        """Returns for each document whether another split has it or a near copy of it."""
        known = pa.concat_arrays([pa.array([], pa.string()), *(found for other, found in self.names.items() if other != split)])
        return pc.or_(pc.is_in(names["id"], known), pc.is_in(names["cluster_id"], known.drop_null())).to_numpy()


def _among(values: Hashes, ascending: Hashes) -> Mask:
    """Whether each value is in `ascending`. `np.isin` would sort both each time."""
    at = np.searchsorted(ascending, values)
    there = at < len(ascending)
    there[there] = ascending[at[there]] == values[there]
    return there


def _united(arrays: Iterable[pa.Array]) -> pa.Array:
    return pc.unique(pa.concat_arrays([pa.array([], pa.string()), *arrays]))


def _hashes(names: pa.Table) -> Hashes:
    return np.concatenate([hashes(names["id"], 0), hashes(names["cluster_id"].drop_null(), 0)])


def _earlier(run: Storage, hashed: Hashes) -> pa.Table:
    """Returns pairs (`id`, `like`): a document of an earlier run, and its near copy in this run, or the one kept in its place."""
    schema = pa.schema({"id": pa.string(), "like": pa.string()})  # `kept_id` is never null, `full_cluster` may be
    found = [schema.empty_table()]
    for path in run.list_files("dedup/earlier"):
        if path.startswith(EARLIER):
            for table in iter_tables(run, path, ["id", "kept_id", "full_cluster"]):
                for column in ("kept_id", "full_cluster"):
                    pairs = table.select(["id", column]).rename_columns(schema.names).cast(schema)
                    pairs = pairs.filter(pc.fill_null(pc.not_equal(pairs["id"], pairs["like"]), False))
                    found.append(pairs.filter(pa.array(_among(hashes(pairs["like"], 0), hashed))))
    return pa.concat_tables(found)
