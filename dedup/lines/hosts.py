"""The host that a document belongs to, and how many documents each host has: for repeats that are counted within a host."""

from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from corpusmill.dedup.sections import gather, groups, pack, range_bounds, read_section, split
from corpusmill.dedup.survivors import survivors
from corpusmill.pipeline.lists import input_paths
from corpusmill.pipeline.stage import Output, Piece, Worker
from corpusmill.pipeline.storage import Storage

Keys = npt.NDArray[np.uint64]

COLUMNS = ["url", "source"]
HOST = np.dtype([("key", "<u8"), ("documents", "<u8")])
_HOST_OF = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?(?P<host>[^/?#]+)"
_hash = partial(xxhash.xxh3_64_intdigest, seed=0)


def host_keys(table: pa.Table) -> Keys:
    """A 64-bit key for each row's host: of its URL (lower case, with the port), else of its `source`."""
    host = pc.utf8_lower(pc.struct_field(pc.extract_regex(table["url"], _HOST_OF), "host"))
    names = pc.dictionary_encode(pc.coalesce(host.cast(pa.string()), table["source"].cast(pa.string())))
    names = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
    if isinstance(names, pa.ChunkedArray):
        names = pa.concat_arrays(names.unify_dictionaries().chunks) if names.num_chunks else pa.array([], pa.string()).dictionary_encode()
    keys = np.array([_hash(name) for name in names.dictionary.to_pylist()], np.uint64)
    return keys[names.indices.to_numpy()]


class HostWorker(Worker):
    """One shard to its hosts and how many of its documents that stay each has.

    `piece.inputs`: the shard, the list of cluster tables. `params`: `ranges`.
    """

    def process(self, piece: Piece) -> Output:
        shard, *clusters = input_paths(self.run, piece.inputs)
        found = [host_keys(table) for _, table in survivors(self.run, shard, clusters, COLUMNS)]
        keys, documents = np.unique(np.concatenate([np.zeros(0, np.uint64), *found]), return_counts=True)
        records = np.empty(len(keys), HOST)
        records["key"], records["documents"] = keys, documents
        sections = split(records, range_bounds(keys, int(self.params["ranges"])))
        return Output({f"{piece.key}.bin": pack(sections)}, rows_in=int(documents.sum()), counts={"hosts": len(keys)})


class HostTotalWorker(Worker):
    """One range of hosts of all shards (listed) to how many documents each has in the corpus, for each shard its own."""

    def process(self, piece: Piece) -> Output:
        records, bounds = gather(self.run, input_paths(self.run, piece.inputs), piece.params["range"], HOST)
        order, begins = groups(records["key"])
        totals = np.empty(len(records), np.uint64)
        if len(records):
            sizes = np.diff(np.r_[begins, len(records)])
            totals[order] = np.repeat(np.add.reduceat(records["documents"][order], begins), sizes)
        return Output({f"{piece.key}.bin": pack(split(totals, bounds))}, counts={"hosts": len(begins)})


def host_totals(run: Storage, own: str, answers: list[str], shard: int) -> tuple[Keys, Keys]:
    """`(hosts, documents)` of a shard's hosts, ascending: `own` is its file, `answers` are those of the ranges."""
    keys = [read_section(run, own, number, HOST)["key"] for number in range(len(answers))]
    totals = [read_section(run, path, shard, np.uint64) for path in answers]
    return np.concatenate(keys), np.concatenate(totals)
