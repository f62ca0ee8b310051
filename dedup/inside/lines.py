# mypy: disallow-untyped-defs=False
"""Cuts lines or paragraphs (*units*) that repeat in many documents.

The tasks of shards count units, the tasks of ranges of keys decide which units are cut, and `LineEditor` cuts them while the last phase
writes the shards. The key of a unit is a hash of its normalised form."""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from corpusmill.dedup.cluster_table import survivors
from corpusmill.dedup.config import DedupConfig, LineForm, LinesConfig, UnitsConfig
from corpusmill.dedup.corpus import read_rows
from corpusmill.dedup.inside.sections import (
    ExchangePhase,
    KeyTable,
    answer,
    copy_bytes,
    exchange,
    gather,
    groups,
    pack,
    plan_ranges,
    range_bounds,
    read_answers,
    read_section,
    split,
)
from corpusmill.dedup.removal import Edit, Editor
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.lists import input_paths
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.shards import iter_tables, read_table
from corpusmill.pipeline.stage import Output, Task, Worker
from corpusmill.pipeline.storage import Storage
from corpusmill.text.buffers import read_only, text_array, text_buffers
from corpusmill.text.hashing import BASE, ONE, cleared, find, hash_span, insert, mix64, table_size
from corpusmill.text.lines import paragraph_end
from corpusmill.text.utf8 import (
    DIGIT,
    NEWLINE,
    WORD,
    character_classes,
    count_byte,
    count_characters,
    decode,
    find_byte,
    lowercase_table,
    strip_end,
    strip_start,
)

Data = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

TOP_FILE = "lines/top.parquet"
#: The terminal shows the SHOWN most frequent units, and SHOWN_CHARS characters of each.
SHOWN, SHOWN_CHARS = 3, 60


def prepare_lines(run: StageRun, config: DedupConfig, documents: list[FileRef], clusters: list[FileRef]) -> list[tuple[FileRef, ...]]:
    """Runs the phases; returns for each shard the files that its LineEditor reads, none if the recipe has no `lines`.

    `clusters`: for each shard the file with its rows of the cluster tables.
    """
    if config.lines is None:
        return [()] * len(documents)
    lines, units, ranges = config.lines, config.lines.units, plan_ranges(documents)
    inputs: list[tuple[FileRef, ...]] = list(zip(documents, clusters, strict=True))
    if lines.min_share:
        shards = ExchangePhase("lines: hosts", "lines/hosts", HostWorker, units)
        totals = ExchangePhase("lines: host totals", "lines/host-totals", HostTotalWorker, units)
        hosts, _ = exchange(run, shards, totals, inputs, ranges)
        inputs = [(*read, *more) for read, more in zip(inputs, hosts, strict=True)]
    counts = ExchangePhase("lines: count", "lines/counts", LineCountWorker, units)
    decisions = ExchangePhase("lines: decide", "lines/cut", LineDecisionWorker, lines)
    found, decided = exchange(run, counts, decisions, inputs, ranges)
    tops = [row.ref("dedup", row.outputs[-1].path) for row in decided]
    paths = [ref.path for ref in documents]
    run.once("lines/top", [*documents, *tops], lambda _: top_output(run.run, lines, paths, [ref.path for ref in tops]), config=lines)
    return found


def lines_summary(run: StageRun) -> dict[str, str]:
    """Returns lines for the terminal, if the run looked for repeated units."""
    rows = [row for key, row in run.manifest.tasks.items() if key.startswith("lines/cut-") and key in run.plan]
    if not rows:
        return {}
    units, cut = (sum(row.counts[name] for row in rows) for name in ("units", "cut"))
    times = sum(row.counts["cut_times"] for row in rows)
    path = run.storage.path(TOP_FILE)
    found = {"repeated lines": f"{cut:,} different ones of {units:,} are cut, {times:,} times found ({path})"}
    top = read_table(run.storage, TOP_FILE).slice(0, SHOWN).to_pylist()
    shown = [f"“{safe_line(row['text'], SHOWN_CHARS)}” in {row['documents']:,} documents" for row in top]
    return found | ({"most frequent of them": "; ".join(shown)} if shown else {})


# ---- hosts -----------------------------------------------------------------------------------------------


COLUMNS = ["url", "source"]
HOST = np.dtype([("key", "<u8"), ("documents", "<u8")])
_HOST_OF = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?(?P<host>[^/?#]+)"
_hash = partial(xxhash.xxh3_64_intdigest, seed=0)


def host_keys(table: pa.Table) -> Keys:
    """Returns a 64-bit key for the host of each row: the host of its URL (lower case, with the port), or its `source` without a URL."""
    host = pc.utf8_lower(pc.struct_field(pc.extract_regex(table["url"], _HOST_OF), "host"))
    names = pc.dictionary_encode(pc.coalesce(host.cast(pa.string()), table["source"].cast(pa.string())))
    names = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
    keys = np.array([_hash(name) for name in names.dictionary.to_pylist()], np.uint64)
    return keys[names.indices.to_numpy()]


class HostWorker(Worker):
    """Counts the documents of one shard that stay, by host.

    Inputs: the shard, the file with its rows of the cluster tables. `params`: `ranges`.
    """

    def process(self, task: Task) -> Output:
        shard, *clusters = input_paths(self.run, task.inputs)
        found = [host_keys(table) for _, table in survivors(self.run, shard, clusters, COLUMNS)]
        keys, documents = np.unique(np.concatenate([np.zeros(0, np.uint64), *found]), return_counts=True)
        records = np.empty(len(keys), HOST)
        records["key"], records["documents"] = keys, documents
        sections = split(records, range_bounds(keys, int(self.params["ranges"])))
        return Output({f"{task.key}.bin": pack(sections)}, rows_in=int(documents.sum()), counts={"hosts": len(keys)})


class HostTotalWorker(Worker):
    """Adds up the documents of one range of hosts over all shards. Writes for each shard the totals of its hosts.

    The input is the list of the shards' files.
    """

    def process(self, task: Task) -> Output:
        records, bounds = gather(self.run, input_paths(self.run, task.inputs), task.params["range"], HOST)
        order, begins = groups(records["key"])
        totals = np.empty(len(records), np.uint64)
        if len(records):
            sizes = np.diff(np.r_[begins, len(records)])
            totals[order] = np.repeat(np.add.reduceat(records["documents"][order], begins), sizes)
        return Output({f"{task.key}.bin": pack(split(totals, bounds))}, counts={"hosts": len(begins)})


def host_totals(run: Storage, hosts_file: str, answers: list[str], shard: int) -> tuple[Keys, Keys]:
    """Returns `(hosts, documents)`: the keys of a shard's hosts, ascending, and how many documents each has in all shards.

    `hosts_file`: the shard's file of hosts. `answers`: the files of the ranges.
    """
    keys = [read_section(run, hosts_file, number, HOST)["key"] for number in range(len(answers))]
    totals = [read_section(run, path, shard, np.uint64) for path in answers]
    return np.concatenate(keys), np.concatenate(totals)


# ---- counts and decisions --------------------------------------------------------------------------------


#: A unit of a shard: its key, the first row that has it, how many documents have it, how often it occurs, and how many documents its host
#: has (0 where hosts do not count).
UNIT = np.dtype([("key", "<u8"), ("row", "<u4"), ("documents", "<u4"), ("times", "<u4"), ("host", "<u4")])
#: The most frequent units of a range.
RANGE_TOP = pa.schema(
    [
        pa.field("key", pa.uint64(), nullable=False),
        pa.field("documents", pa.int64(), nullable=False),
        pa.field("times", pa.int64(), nullable=False),
        pa.field("sources", pa.int64(), nullable=False),
        pa.field("shard", pa.int64(), nullable=False),  # the number of the first shard that has it
        pa.field("row", pa.int64(), nullable=False),
    ]
)


class LineCountWorker(Worker):
    """Counts the units of one shard; writes a section for each range of keys, and a last section with the hashes of its crawl files.

    Inputs: the shard, the file with its rows of the cluster tables, and for `min_share` the shard's file of hosts and the list of their
    totals. `task.params`: `shard` (its number). `params`: `ranges`.
    """

    config: UnitsConfig

    def process(self, task: Task) -> Output:
        path, tables = task.inputs[0].path, input_paths(self.run, task.inputs[1:2])
        others = input_paths(self.run, task.inputs[2:])
        hosts, totals = host_totals(self.run, others[0], others[1:], task.params["shard"]) if others else (np.zeros(0, np.uint64),) * 2
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
            {f"{task.key}.bin": pack([*sections, names])},
            rows_in=documents,
            bytes_in=size,
            counts={"units": len(units), "occurrences": int(units["times"].sum())},
        )

    def _units(self, rows: npt.NDArray[np.int64], table: pa.Table, hosts: npt.NDArray, totals: npt.NDArray) -> tuple[npt.NDArray, int]:
        """Returns the distinct units of a row group, by key, and the bytes of its texts."""
        config = self.config
        data, offsets = text_buffers(table["text"])
        mine = host_keys(table) if config.scope == "host" else np.zeros(len(rows), np.uint64)
        keys, texts, fresh, _ = unit_keys(data, offsets, mine, config.normalisation, config.unit == "paragraph", config.min_chars)
        units = np.zeros(len(keys), UNIT)
        units["key"], units["row"], units["documents"], units["times"] = keys, rows[texts], fresh, 1
        if len(hosts):
            units["host"] = totals[np.searchsorted(hosts, mine)][texts]
        return merged(units), int(offsets[-1] - offsets[0])


def merged(units: npt.NDArray) -> npt.NDArray:
    """Merges records with equal keys: takes the first row, and adds up the counts."""
    order, begins = groups(units["key"])
    out = units[order[begins]]
    if len(units):
        out["row"] = np.minimum.reduceat(units["row"][order], begins)
        for name in ("documents", "times"):
            out[name] = np.add.reduceat(units[name][order], begins)
    return out


class LineDecisionWorker(Worker):
    """Decides which units of one range of keys are cut. Writes an answer for each shard, and a list of the most frequent units.

    The input is the list of the shards' counts, in order. `task.params`: `range`. `params`: `ranges`.
    """

    config: LinesConfig

    def process(self, task: Task) -> Output:
        paths = input_paths(self.run, task.inputs)
        records, bounds = gather(self.run, paths, task.params["range"], UNIT)
        order, begins = groups(records["key"])
        counted = {name: _sums(records[name][order], begins) for name in ("documents", "times")}
        cut = self._cut(counted, records["host"][order[begins]])
        sections = answer(records, bounds, order, begins, cut, self.config.keep == "first")
        counted["shards"] = np.diff(np.r_[begins, len(records)])
        top = self._top(paths, records, bounds, order, begins, counted, cut)
        return Output(
            {f"{task.key}.bin": pack(sections), f"{task.key.replace('cut-', 'top-')}.parquet": top},
            counts={"units": len(begins), "cut": int(cut.sum()), "cut_times": int(counted["times"][cut].sum())},
        )

    def _cut(self, counted: dict[str, npt.NDArray], hosts: npt.NDArray) -> npt.NDArray[np.bool_]:
        config = self.config
        if config.keep == "first":
            return counted["times"] >= config.least
        return (counted["documents"] >= config.least) & (counted["documents"] >= np.ceil(hosts * config.min_share - 1e-9))

    def _top(
        self,
        paths: list[str],
        records: npt.NDArray,
        bounds: Offsets,
        order: Offsets,
        begins: Offsets,
        counted: dict[str, npt.NDArray],
        cut: npt.NDArray[np.bool_],
    ) -> pa.Table:
        """Returns the most frequent units among those that are cut, as RANGE_TOP."""
        keys, places = records["key"][order[begins]], np.flatnonzero(cut)
        places = places[np.lexsort((keys[places], -counted["times"][places], -counted["documents"][places]))[: self.config.top]]
        rows = []
        sources_of = cache(lambda number: read_section(self.run, paths[number], int(self.params["ranges"]), np.uint64).tolist())
        for place in places.tolist():
            members = np.sort(order[begins[place] :][: counted["shards"][place]])
            shards = (np.searchsorted(bounds, members, side="right") - 1).tolist()
            counts = {name: int(counted[name][place]) for name in ("documents", "times")}
            sources = len({source for number in shards for source in sources_of(number)})
            rows.append({"key": int(keys[place]), **counts, "sources": sources, "shard": shards[0], "row": int(records["row"][members[0]])})
        return pa.Table.from_pylist(rows, schema=RANGE_TOP)


def _sums(values: npt.NDArray, begins: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.add.reduceat(values.astype(np.int64), begins) if len(values) else np.zeros(0, np.int64)


# ---- the list of the most frequent units, for users --------------------------------------------------------


#: Characters of a unit's text in the list, at most.
TOP_CHARS = 300
TOP_LINES = pa.schema(
    [
        pa.field("text", pa.string(), nullable=False),  # of its first occurrence, at most TOP_CHARS characters
        pa.field("documents", pa.int64(), nullable=False),  # how many have it, among those that no copy replaces
        pa.field("times", pa.int64(), nullable=False),
        pa.field("sources", pa.int64(), nullable=False),  # crawl files whose shards have it
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("example_url", pa.string()),
    ]
)


def top_output(run: Storage, config: LinesConfig, shards: Sequence[str], tops: Sequence[str]) -> Output:
    """Returns the output with the list for the whole corpus. `shards`: the document shards. `tops`: the lists of the ranges."""
    table = pa.concat_tables([read_table(run, path) for path in tops])
    table = table.sort_by([("documents", "descending"), ("times", "descending"), ("key", "ascending")]).slice(0, config.top)
    table = table.append_column("place", pa.array(range(table.num_rows), pa.int64()))
    lines = []
    for shard in sorted(set(table["shard"].to_pylist())):
        wanted = table.filter(pc.equal(table["shard"], shard))
        lines += _with_texts(run, config, shards[shard], wanted)
    found = pa.Table.from_pylist(sorted(lines, key=lambda line: line.pop("place")), schema=TOP_LINES)
    return Output({TOP_FILE: found}, counts={"listed": len(lines)})


def _with_texts(run: Storage, config: LinesConfig, shard: str, wanted: pa.Table) -> list[dict[str, Any]]:
    """Returns the rows of TOP_LINES, with their `place` in the list, for the units that come first in one shard.

    `wanted`: these units, as RANGE_TOP with `place`.
    """
    rows = np.unique(wanted["row"].to_numpy())
    documents = pa.concat_tables(read_rows(run, shard, rows, ["id", "text", *COLUMNS]))
    hosts = host_keys(documents) if config.scope == "host" else np.zeros(len(rows), np.uint64)
    data, offsets = text_buffers(documents["text"])
    keys, _, _, spans = unit_keys(data, offsets, hosts, config.normalisation, config.unit == "paragraph", config.min_chars)
    keys, first = np.unique(keys, return_index=True)
    spans = spans[first[np.searchsorted(keys, wanted["key"].to_numpy())]]
    lines = []
    for row, (begin, end) in zip(wanted.to_pylist(), spans.tolist(), strict=True):
        document = int(np.searchsorted(rows, row["row"]))
        lines.append(
            {
                **{name: row[name] for name in ("place", "documents", "times", "sources")},
                "text": bytes(data[begin : min(end, begin + 4 * TOP_CHARS)]).decode(errors="ignore")[:TOP_CHARS],
                "example_id": documents["id"][document].as_py(),
                "example_url": documents["url"][document].as_py(),
            }
        )
    return lines


# ---- the cut ---------------------------------------------------------------------------------------------


COUNTS_FOLDER, CUTS_FOLDER = "dedup/lines/counts-", "dedup/lines/cut-"
ONLY_LINES, MOSTLY_LINES = "only_repeated_lines", "mostly_repeated_lines"


class LineEditor(Editor):
    """Cuts the units that `LineDecisionWorker` chose.

    The inputs include the shard's counts and the list of the files with the answers. `task.params`: `shard`.
    """

    fields = (pa.field("lines_in", pa.int64()), pa.field("lines_cut", pa.int64()), pa.field("line_chars_cut", pa.int64()))

    def __init__(self, config: Any, run: Any):
        super().__init__(config, run)
        self.lines: LinesConfig = config.lines

    def open(self, task: Task) -> None:
        paths = input_paths(self.run, task.inputs)
        counts_file = next(path for path in paths if path.startswith(COUNTS_FOLDER))
        answers = [path for path in paths if path.startswith(CUTS_FOLDER)]
        units, stays = read_answers(self.run, counts_file, answers, task.params["shard"], UNIT)
        self.units = KeyTable(units["key"].copy(), np.where(stays, units["row"].astype(np.int64), -1))
        self.hosts: npt.NDArray[np.uint64] | None = None
        if self.lines.scope == "host":
            found = [host_keys(table) for table in iter_tables(self.run, task.inputs[0].path, COLUMNS)]
            self.hosts = np.concatenate([np.zeros(0, np.uint64), *found])

    def edit(self, texts: pa.Array, rows: npt.NDArray[np.int64]) -> Edit:
        config = self.lines
        hosts = np.zeros(len(rows), np.uint64) if self.hosts is None else self.hosts[rows]
        new, counts = cut_units(
            *text_buffers(texts), hosts, rows, config.normalisation, config.unit == "paragraph", config.min_chars, self.units
        )
        before, after = (pc.utf8_length(array).to_numpy().astype(np.int64) for array in (texts, new))
        cut, gone = counts[:, 1], before - after
        too_much = (cut > 0) & (gone > config.max_cut * before)
        if too_much.any() and config.beyond == "leave":
            new = pc.if_else(pa.array(too_much), texts, new)
            cut, gone = np.where(too_much, 0, cut), np.where(too_much, 0, gone)
        empty = (cut > 0) & (pc.binary_length(new).to_numpy() == 0)
        dropped = {ONLY_LINES: empty}
        if config.beyond == "drop":
            dropped[MOSTLY_LINES] = too_much & ~empty
        columns = {"lines_in": pa.array(counts[:, 0]), "lines_cut": pa.array(cut), "line_chars_cut": pa.array(gone)}
        return Edit(new, columns, dropped)


# ---- units: lines and paragraphs as 64-bit keys of their normalised form ---------------------------------
# 64 bits are CCNet's choice, too: among 10^11 different lines, some 270 pairs share a key by chance.


#: The characters that CCNet's `normalize_for_dedup` drops, after digits became 0: punctuation beyond ASCII, and control characters.
CCNET_LEFT_OUT = "，。、„”“«»」「《》´∶：？！（）；–—．～’…━〈〉【】％►" + "".join(map(chr, [*range(32), *range(127, 160)]))


@cache
def unit_forms(how: LineForm) -> npt.NDArray[np.uint32]:
    """Returns the form of each character (uint32 of length 0x110000): its code point plus 1, or 0 where it is dropped. Empty for `none`.

    A character is lower-cased by `str.lower`, unless that gives several characters.
    """
    if how == "none":
        return np.zeros(0, np.uint32)
    classes = character_classes()
    forms = lowercase_table() + np.uint32(1)
    forms[classes & DIGIT != 0] = ord("0") + 1
    if how == "words":
        forms[classes & WORD == 0] = 0
    else:
        forms[[ord(character) for character in CCNET_LEFT_OUT]] = 0
    return forms


@kernel(error_model="numpy")
def _unit_hash(data, start, end, forms):
    """Returns the hash of a unit's form; where the form is empty, the hash of its bytes, so that units of different marks differ."""
    value = ONE
    i = start
    if forms.size:
        while i < end:
            point = np.int64(data[i])
            if point < 0x80:
                i += 1
            else:
                point, width = decode(data, i)
                i += width
            form = np.uint64(forms[point])
            value = value * BASE + form if form else value
    return hash_span(data, start, end) if value == ONE else mix64(value)


@kernel
def _unit_end(data, at, end, paragraphs):
    """Returns `(end of the unit, start of the next one)`; the last unit ends at `end`."""
    if paragraphs:
        return paragraph_end(data, at, end)
    stop = find_byte(data, at, end, NEWLINE)
    return stop, min(stop + 1, end)


@kernel
def _long_enough(data, start, end, min_chars):
    return end - start >= min_chars and (end - start >= 4 * min_chars or count_characters(data, start, end) >= min_chars)


@kernel(error_model="numpy")
def _unit_keys(data, offsets, hosts, forms, classes, paragraphs, min_chars, scratch, keys, texts, fresh, spans):
    count = 0
    for d in range(len(offsets) - 1):
        at, end = offsets[d], offsets[d + 1]
        mask = cleared(scratch, count_byte(data, at, end, NEWLINE) + 1)
        while True:
            stop, after = _unit_end(data, at, end, paragraphs)
            first = strip_start(data, at, stop, classes)
            last = strip_end(data, first, stop, classes)
            if _long_enough(data, first, last, min_chars):
                keys[count] = mix64(_unit_hash(data, first, last, forms) ^ hosts[d])
                texts[count], spans[count, 0], spans[count, 1] = d, first, last
                fresh[count] = not insert(scratch, mask, keys[count])
                count += 1
            if stop == end:
                break
            at = after
    return count


def unit_keys(
    data: Data, offsets: Offsets, hosts: Keys, how: LineForm, paragraphs: bool, min_chars: int
) -> tuple[Keys, npt.NDArray[np.int32], npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Returns `(keys, texts, fresh, spans)` for all units of n texts, in order.

    For each unit: its key, the number of its text, 1 where no earlier unit of the text has its key (else 0), and where in `data` it begins
    and ends. `hosts` (n): equal units of texts with different hosts have different keys.
    """
    newlines = int(np.count_nonzero(data[offsets[0] : offsets[-1]] == NEWLINE))
    most = newlines + len(offsets) - 1
    keys, texts = np.empty(most, np.uint64), np.empty(most, np.int32)
    fresh, spans = np.empty(most, np.uint32), np.empty((most, 2), np.int64)
    count = _unit_keys(
        read_only(data), read_only(offsets), hosts, unit_forms(how), character_classes(), paragraphs, min_chars,
        np.empty(table_size(newlines + 1), np.uint64), keys, texts, fresh, spans,
    )  # fmt: skip
    return keys[:count], texts[:count], fresh[:count], spans[:count]


@kernel(error_model="numpy")
def _cut_units(data, offsets, hosts, rows, forms, classes, paragraphs, min_chars, table, stays, seen, out, places, counts):
    place = 0
    for d in range(len(offsets) - 1):
        at, end, begin = offsets[d], offsets[d + 1], place
        before = at  # the end of the unit before this one; the bytes between the two are copied with a unit that stays
        # `some`: a unit of this text stays. `blank`: the last one that stays is empty, or there is none. `gap`: a unit after it was cut
        some, blank, gap = False, True, False
        while True:
            stop, after = _unit_end(data, at, end, paragraphs)
            first = strip_start(data, at, stop, classes)
            last = strip_end(data, first, stop, classes)
            empty = first == last
            cut = False
            if not empty:
                counts[d, 0] += 1
                if _long_enough(data, first, last, min_chars):
                    slot = find(table, len(table) - 1, mix64(_unit_hash(data, first, last, forms) ^ hosts[d]))
                    if slot >= 0:
                        cut = stays[slot] != rows[d] or seen[slot]
                        seen[slot] |= stays[slot] == rows[d]
            if cut:
                counts[d, 1] += 1
                gap = True
            elif not (empty and gap and blank):  # one run of blank lines stays where a cut joins two
                if some:
                    place = copy_bytes(data, before, at, out, place)
                place = copy_bytes(data, at, stop, out, place)
                some, blank, gap = True, empty, False
            before = stop
            if stop == end:
                break
            at = after
        if gap:
            place = strip_end(out, begin, place, classes)
        places[d + 1] = place


def cut_units(
    data: Data, offsets: Offsets, hosts: Keys, rows: Offsets, how: LineForm, paragraphs: bool, min_chars: int, units: KeyTable
) -> tuple:
    """Returns `(texts, counts)`: n texts (Arrow) without the units of the table, and for each text the number of its units and of its cuts.

    The table `units` has for each key the row in which its first unit stays, or -1. `rows` (n): the rows of the texts. The newlines before
    a unit are cut with it.
    """
    out = np.empty(int(offsets[-1] - offsets[0]), np.uint8)
    places = np.zeros(len(offsets), np.int64)
    counts = np.zeros((len(offsets) - 1, 2), np.int64)
    _cut_units(
        read_only(data), read_only(offsets), hosts, rows, unit_forms(how), character_classes(), paragraphs, min_chars,
        units.table, units.values[0], np.zeros(len(units.table), np.bool_), out, places, counts,
    )  # fmt: skip
    return text_array(out[: places[-1]], places), counts
