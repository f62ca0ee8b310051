"""Which documents of a run a set of token shards has already, and which it must not get because their like is in its other split.

New documents are looked for by parts of their hashes: held are up to 100 bytes for each document of a part, and the names of those that the
set has, or whose like it has.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.shards import iter_tables, read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import TokenShard
from corpusmill.tokenize.chance import hashes

Mask = npt.NDArray[np.bool_]
Hashes = npt.NDArray[np.uint64]

#: Where dedup says what became of documents of earlier runs (`docs/dedup.md`).
EARLIER = "dedup/earlier/part-"
NAMES = ["id", "cluster_id"]
#: New documents of whose hashes one part is in memory.
PART_DOCUMENTS = 1 << 23

#: Tables of names that can be read again.
Tables = Callable[[], Iterable[pa.Table]]


def names_of(storage: Storage, shards: Iterable[TokenShard]) -> Iterator[pa.Table]:
    """Ids and clusters of the documents of each shard."""
    return (read_table(storage, shard.index, NAMES) for shard in shards)


class Known:
    """The documents of a set (by split) that have to do with those of a run."""

    def __init__(self, run: Storage, documents: int, new: Tables, there: Mapping[str, Tables]):
        """`new`: names of all `documents` of the run; `there`: of those of the set, by split."""
        parts = max(1, -(-documents // PART_DOCUMENTS))
        found = [_part(run, new, there, number, parts) for number in range(parts)]
        self.ids = {split: _united(ids[split] for ids, _ in found) for split in there}
        self.names = {split: _united(names[split] for _, names in found) for split in there}

    def there(self, names: pa.Table, split: str) -> Mask:
        """For each document whether the split has it already."""
        return pc.is_in(names["id"], self.ids[split]).to_numpy()

    def held_out(self, names: pa.Table, split: str) -> Mask:
        """For each document whether another split has it, or one that it is like."""
        others = [found for other, found in self.names.items() if other != split]
        known = pa.concat_arrays([pa.array([], pa.string()), *others])
        return pc.or_(pc.is_in(names["id"], known), pc.is_in(names["cluster_id"], known.drop_null())).to_numpy()


def _part(
    run: Storage, new: Tables, there: Mapping[str, Tables], number: int, parts: int
) -> tuple[dict[str, pa.Array], dict[str, pa.Array]]:
    """By split: ids of documents of the set that may be new ones of a part, and these with all names of what may be like them."""
    hashed = np.unique(np.concatenate([np.zeros(0, np.uint64), *(_in_part(_hashes(table), number, parts) for table in new())]))
    pairs = _earlier(run, hashed)  # a document of an earlier run, and the new one that is like it
    wanted = np.union1d(hashed, hashes(pairs["id"], 0))
    found_ids, found_names = {}, {}
    for split, tables in there.items():
        ids, names = [], []
        for table in tables():
            some = table.filter(pa.array(_among(hashes(table["id"], 0), wanted) | _among(hashes(table["cluster_id"], 0), wanted)))
            ids += some["id"].chunks
            names += some["cluster_id"].drop_null().chunks
        found_ids[split] = _united(ids)
        alike = pairs.filter(pc.is_in(pairs["id"], found_ids[split]))["like"].chunks
        found_names[split] = _united([found_ids[split], *names, *alike])
    return found_ids, found_names


def _among(values: Hashes, ascending: Hashes) -> Mask:
    """Which of the values are there; `np.isin` would sort both each time."""
    at = np.searchsorted(ascending, values)
    there = at < len(ascending)
    there[there] = ascending[at[there]] == values[there]
    return there


def _united(arrays: Iterable[pa.Array]) -> pa.Array:
    return pc.unique(pa.concat_arrays([pa.array([], pa.string()), *arrays]))


def _in_part(values: Hashes, number: int, parts: int) -> Hashes:
    return values[values % np.uint64(parts) == number] if parts > 1 else values


def _hashes(names: pa.Table) -> Hashes:
    return np.concatenate([hashes(names["id"], 0), hashes(names["cluster_id"].drop_null(), 0)])


def _earlier(run: Storage, hashed: Hashes) -> pa.Table:
    """Pairs (`id`, `like`): a document of an earlier run, and the document of this one that was kept for it or that it is like."""
    found = [pa.table({name: pa.array([], pa.string()) for name in ("id", "like")})]
    for path in run.list_files("dedup/earlier"):
        if path.startswith(EARLIER):
            for table in iter_tables(run, path, ["id", "kept_id", "full_cluster"]):
                for column in ("kept_id", "full_cluster"):
                    pairs = table.select(["id", column]).rename_columns(["id", "like"])
                    pairs = pairs.filter(pc.fill_null(pc.not_equal(pairs["id"], pairs["like"]), False))
                    found.append(pairs.filter(pa.array(_among(hashes(pairs["like"], 0), hashed))))
    return pa.concat_tables(found)
