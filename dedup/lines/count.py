"""Which units each shard has, and in the range of each key: which are cut, and where the first one stays."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from corpusmill.dedup.lines.config import LinesConfig, UnitsConfig
from corpusmill.dedup.lines.hosts import COLUMNS, host_keys, host_totals
from corpusmill.dedup.lines.units import unit_keys
from corpusmill.dedup.sections import gather, groups, pack, range_bounds, read_section, split
from corpusmill.dedup.survivors import survivors
from corpusmill.pipeline.lists import input_paths
from corpusmill.pipeline.stage import Output, Piece, Worker
from corpusmill.pipeline.text.buffers import text_buffers

#: A unit of a shard: its key, the first row that has it, how many documents have it, how often it occurs, its host's documents.
UNIT = np.dtype([("key", "<u8"), ("row", "<u4"), ("documents", "<u4"), ("times", "<u4"), ("host", "<u4")])
#: A unit of a shard that is cut: its place in the section of its range, and whether its first occurrence in the shard stays.
CUT = np.dtype([("place", "<u4"), ("stays", "u1")])
#: The most frequent units of a range.
TOP = pa.schema(
    [
        pa.field("key", pa.uint64(), nullable=False),
        pa.field("documents", pa.int64(), nullable=False),
        pa.field("times", pa.int64(), nullable=False),
        pa.field("sources", pa.int64(), nullable=False),
        pa.field("shard", pa.int64(), nullable=False),  # the first that has it, by its place in the input
        pa.field("row", pa.int64(), nullable=False),
    ]
)


class CountWorker(Worker):
    """One shard to its units, cut by range of key; behind the ranges' sections one with its crawl files' keys.

    `piece.inputs`: the shard, the list of cluster tables, and where hosts count its hosts and the list of the answers of their ranges.
    `piece.params`: `shard` (its place in the input). `params`: `ranges`.
    """

    config: UnitsConfig

    def process(self, piece: Piece) -> Output:
        path, tables = piece.inputs[0].path, input_paths(self.run, piece.inputs[1:2])
        others = input_paths(self.run, piece.inputs[2:])
        hosts, totals = host_totals(self.run, others[0], others[1:], piece.params["shard"]) if others else (np.zeros(0, np.uint64),) * 2
        found, sources, size, documents = [np.zeros(0, UNIT)], set(), 0, 0
        columns = ["text", *(COLUMNS if self.config.scope == "host" else ["source"])]
        for rows, table in survivors(self.run, path, tables, columns):
            units, read = self._units(rows, table, hosts, totals)
            found.append(units)
            sources |= set(table["source"].unique().to_pylist())
            size, documents = size + read, documents + len(rows)
        units = merged(np.concatenate(found))
        sections = split(units, range_bounds(units["key"], int(self.params["ranges"])))
        names = np.array(sorted(xxhash.xxh3_64_intdigest(source) for source in sources), np.uint64)
        return Output(
            {f"{piece.key}.bin": pack([*sections, names])},
            rows_in=documents,
            bytes_in=size,
            counts={"units": len(units), "occurrences": int(units["times"].sum())},
        )

    def _units(self, rows: npt.NDArray[np.int64], table: pa.Table, hosts: npt.NDArray, totals: npt.NDArray) -> tuple[npt.NDArray, int]:
        """The units of a row group, each once and by key, and the bytes of its texts."""
        config = self.config
        data, offsets = text_buffers(table["text"])
        mine = host_keys(table) if config.scope == "host" else np.zeros(len(rows), np.uint64)
        keys, texts, fresh = unit_keys(data, offsets, mine, config.normalisation, config.unit == "paragraph", config.min_chars)
        units = np.zeros(len(keys), UNIT)
        units["key"], units["row"], units["documents"], units["times"] = keys, rows[texts], fresh, 1
        if len(hosts):
            units["host"] = totals[np.searchsorted(hosts, mine)][texts]
        return merged(units), int(offsets[-1] - offsets[0])


def merged(units: npt.NDArray) -> npt.NDArray:
    """Records with equal keys as one: the first row, the sums of the counts."""
    order, begins = groups(units["key"])
    out = units[order[begins]]
    if len(units):
        out["row"] = np.minimum.reduceat(units["row"][order], begins)
        for name in ("documents", "times"):
            out[name] = np.add.reduceat(units[name][order], begins)
    return out


class DecideWorker(Worker):
    """One range of keys of all shards (listed, in order) to the units that are cut, for each shard its own, and the most frequent ones.

    `piece.params`: `range`. `params`: `ranges`.
    """

    config: LinesConfig

    def process(self, piece: Piece) -> Output:
        paths = input_paths(self.run, piece.inputs)
        records, bounds = gather(self.run, paths, piece.params["range"], UNIT)
        shard = np.repeat(np.arange(len(paths), dtype=np.uint32), np.diff(bounds))
        order, begins = groups(records["key"])
        sizes = np.diff(np.r_[begins, len(records)])
        counted = {name: _sums(records[name][order], begins) for name in ("documents", "times")}
        first = np.minimum.reduceat(shard[order], begins) if len(records) else shard
        cut = self._cut(counted, records["host"][order[begins]])
        chosen = order[np.repeat(cut, sizes)]  # records of the units that are cut
        stays = (shard[chosen] == np.repeat(first[cut], sizes[cut])) & (self.config.keep == "first")
        back = np.argsort(chosen)
        answer = np.empty(len(chosen), CUT)
        answer["place"], answer["stays"] = (chosen - bounds[shard[chosen]])[back], stays[back]
        top = self._top(paths, records, shard, order, begins, sizes, counted, first, cut)
        return Output(
            {
                f"{piece.key}.bin": pack(split(answer, np.searchsorted(chosen[back], bounds))),
                f"{piece.key.replace('cut-', 'top-')}.parquet": top,
            },
            counts={"units": len(begins), "cut": int(cut.sum()), "cut_times": int(counted["times"][cut].sum())},
        )

    def _cut(self, counted: dict[str, npt.NDArray], hosts: npt.NDArray) -> npt.NDArray[np.bool_]:
        config = self.config
        if config.keep == "first":
            return counted["times"] >= config.least
        return (counted["documents"] >= config.least) & (counted["documents"] >= np.ceil(hosts * config.min_share - 1e-9))

    def _top(self, paths, records, shard, order, begins, sizes, counted, first, cut) -> pa.Table:  # type: ignore[no-untyped-def]
        """The most frequent units of those that are cut, as TOP."""
        places = np.flatnonzero(cut)
        keys = records["key"][order[begins[places]]]
        places = places[np.lexsort((keys, -counted["times"][places], -counted["documents"][places]))[: self.config.top]]
        rows = []
        names: dict[int, npt.NDArray] = {}
        for place in places.tolist():
            members = order[begins[place] : begins[place] + sizes[place]]
            for number in shard[members].tolist():
                if number not in names:
                    names[number] = read_section(self.run, paths[number], int(self.params["ranges"]), np.uint64)
            rows.append(
                {
                    "key": int(records["key"][members[0]]),
                    "documents": int(counted["documents"][place]),
                    "times": int(counted["times"][place]),
                    "sources": len({name for number in shard[members].tolist() for name in names[number].tolist()}),
                    "shard": int(first[place]),
                    "row": int(records["row"][members][shard[members] == first[place]][0]),
                }
            )
        return pa.Table.from_pylist(rows, schema=TOP)


def _sums(values: npt.NDArray, begins: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.add.reduceat(values.astype(np.int64), begins) if len(values) else np.zeros(0, np.int64)
