"""Passages that repeat word for word across documents: found by sampled hashes, proved by hashes of every window, and cut."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.dedup.cluster_table import survivors
from corpusmill.dedup.config import DedupConfig, SubstringsConfig
from corpusmill.dedup.inside.lines import LineEditor
from corpusmill.dedup.inside.sections import (
    ANSWER,
    ExchangePhase,
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
from corpusmill.dedup.inside.windows import WindowTable, anchors, cut_windows, key_set, windows
from corpusmill.dedup.removal import Edit, Editor, one_array
from corpusmill.pipeline.lists import input_paths
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Output, Task, Worker
from corpusmill.pipeline.text.buffers import text_buffers

#: There may be a window for each word, which are far more than lines.
FINER = 4


def prepare_passages(
    run: StageRun, config: DedupConfig, documents: list[FileRef], clusters: list[FileRef], lines: Sequence[tuple[FileRef, ...]]
) -> list[tuple[FileRef, ...]]:
    """Runs the phases; returns for each shard the files that its SubstringEditor reads, none if the recipe has no `substrings`.

    `clusters`: for each shard what has its rows of the cluster tables. `lines`: what its LineEditor reads. Passages are looked for in the
    texts that it leaves.
    """
    if config.substrings is None:
        return [()] * len(documents)
    seen = DedupConfig(lines=config.lines, substrings=config.substrings)  # all that these phases depend on
    ranges = plan_ranges(documents, FINER)
    inputs = [(ref, rows, *own) for ref, rows, own in zip(documents, clusters, lines, strict=True)]
    shards = ExchangePhase("substrings: anchors", "substrings/anchors", AnchorWorker, seen)
    answers = ExchangePhase("substrings: repeated anchors", "substrings/repeated", RepeatedAnchorWorker, seen)
    repeated, _ = exchange(run, shards, answers, inputs, ranges)
    inputs = [(*read, *more) for read, more in zip(inputs, repeated, strict=True)]
    shards = ExchangePhase("substrings: windows", "substrings/windows", WindowWorker, seen)
    answers = ExchangePhase("substrings: repeated windows", "substrings/cut", RepeatedWindowWorker, seen)
    return exchange(run, shards, answers, inputs, ranges)[0]


# ---- the tasks -------------------------------------------------------------------------------------------


ANCHORS_FOLDER, REPEATED_FOLDER = "dedup/substrings/anchors-", "dedup/substrings/repeated-"

#: An anchor of a shard: its hash, and whether it occurs once or more often.
ANCHOR = np.dtype([("key", "<u8"), ("times", "u1")])
#: A window of a shard whose anchor repeats: its hash, where it comes first, and whether it occurs once or more often.
WINDOW = np.dtype([("key", "<u8"), ("row", "<u4"), ("word", "<u4"), ("times", "u1")])


def texts_of(worker: Worker, task: Task) -> Iterator[tuple[npt.NDArray[np.int64], pa.Array]]:
    """`(rows, texts)` of the documents of a shard that stay, edited by the LineEditor, per row group."""
    config, run = worker.config, worker.run
    assert isinstance(config, DedupConfig)
    shard, *tables = input_paths(run, task.inputs[:2])
    editor = LineEditor(config, run) if config.lines else None
    if editor:
        editor.open(task)
    for rows, table in survivors(run, shard, tables, ["text"]):
        texts = one_array(table["text"])
        if editor:
            edit = editor.edit(texts, rows)
            stays = ~np.logical_or.reduce(list(edit.dropped.values()))
            texts, rows = edit.texts.filter(pa.array(stays)), rows[stays]
        yield rows, texts


def section_config(worker: Worker) -> SubstringsConfig:
    assert isinstance(worker.config, DedupConfig) and worker.config.substrings is not None
    return worker.config.substrings


def record(keys: npt.NDArray[np.uint64], dtype: np.dtype) -> tuple[npt.NDArray, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """`(records, order, begins)`: one record for each key, ascending, with `times` 1 or 2; order and begins as of `groups`."""
    order, begins = groups(keys)
    records = np.zeros(len(begins), dtype)
    records["key"] = keys[order[begins]]
    records["times"] = np.minimum(np.diff(np.r_[begins, len(keys)]), 2)
    return records, order, begins


class AnchorWorker(Worker):
    """Finds the anchors of one shard, by range. `task.inputs`: the shard, the list of cluster tables, what the editor of lines reads;
    `task.params`: `shard` (its place in the input). `params`: `ranges`."""

    def process(self, task: Task) -> Output:
        config = section_config(self)
        found, size, documents = [np.zeros(0, np.uint64)], 0, 0
        for rows, texts in texts_of(self, task):
            data, offsets = text_buffers(texts)
            found.append(anchors(data, offsets, config.tokens, config.anchor))
            size, documents = size + int(offsets[-1] - offsets[0]), documents + len(rows)
        records, _, _ = record(np.concatenate(found), ANCHOR)
        sections = split(records, range_bounds(records["key"], int(self.params["ranges"])))
        return Output({f"{task.key}.bin": pack(sections)}, rows_in=documents, bytes_in=size, counts={"anchors": len(records)})


class RepeatedAnchorWorker(Worker):
    """Finds the anchors of one range that occur twice in all shards (listed); answers each shard with their places in its section."""

    def process(self, task: Task) -> Output:
        records, bounds = gather(self.run, input_paths(self.run, task.inputs), task.params["range"], ANCHOR)
        order, begins = groups(records["key"])
        chosen = np.sort(order[_repeated(records, order, begins)])
        places = (chosen - bounds[np.searchsorted(bounds, chosen, side="right") - 1]).astype("<u4")
        sections = split(places, np.searchsorted(chosen, bounds))
        return Output({f"{task.key}.bin": pack(sections)}, counts={"anchors": len(begins), "repeated": len(chosen)})


def _repeated(records: npt.NDArray, order: npt.NDArray[np.int64], begins: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """For each record in `order` whether its key occurs twice."""
    if not len(records):
        return np.zeros(0, bool)
    times = np.add.reduceat(records["times"][order].astype(np.int64), begins)
    return np.repeat(times > 1, np.diff(np.r_[begins, len(records)]))


class WindowWorker(Worker):
    """Finds the windows of one shard whose anchor repeats, by range. `task.inputs`: those of AnchorWorker, the shard's
    anchors, and the list of the answers of their ranges."""

    def process(self, task: Task) -> Output:
        config = section_config(self)
        paths = input_paths(self.run, task.inputs)
        own = next(path for path in paths if path.startswith(ANCHORS_FOLDER))
        answers = [path for path in paths if path.startswith(REPEATED_FOLDER)]
        known = []
        for number, path in enumerate(answers):
            places = read_section(self.run, path, task.params["shard"], "<u4")
            known.append(read_section(self.run, own, number, ANCHOR)["key"][places])
        repeated = key_set(np.concatenate(known))
        parts, size = [np.zeros(0, WINDOW)], 0
        for rows, texts in texts_of(self, task):
            data, offsets = text_buffers(texts)
            keys, places, words = windows(data, offsets, config.tokens, config.anchor, repeated)
            parts.append(_first_windows(keys, rows[places].astype(np.uint32), words))
            size += int(offsets[-1] - offsets[0])
        records = _merged(np.concatenate(parts))
        sections = split(records, range_bounds(records["key"], int(self.params["ranges"])))
        return Output({f"{task.key}.bin": pack(sections)}, bytes_in=size, counts={"windows": len(records)})


def _first_windows(keys: npt.NDArray[np.uint64], rows: npt.NDArray[np.uint32], words: npt.NDArray[np.uint32]) -> npt.NDArray:
    """One record per key: where it comes first."""
    records, order, begins = record(keys, WINDOW)
    if len(records):
        first = np.minimum.reduceat(_place(rows, words)[order], begins)
        records["row"], records["word"] = first >> np.uint64(32), first & np.uint64(0xFFFFFFFF)
    return records


def _merged(records: npt.NDArray) -> npt.NDArray:
    """Merges the records of several row groups: one per key."""
    order, begins = groups(records["key"])
    out = records[order[begins]]
    if len(out):
        first = np.minimum.reduceat(_place(records["row"], records["word"])[order], begins)
        out["row"], out["word"] = first >> np.uint64(32), first & np.uint64(0xFFFFFFFF)
        out["times"] = np.minimum(np.add.reduceat(records["times"][order].astype(np.int64), begins), 2)
    return out


def _place(rows: npt.NDArray, words: npt.NDArray) -> npt.NDArray[np.uint64]:
    """Row and word as one number that ascends as texts are read."""
    return (rows.astype(np.uint64) << np.uint64(32)) | words.astype(np.uint64)


class RepeatedWindowWorker(Worker):
    """Finds the windows of one range that occur twice in all shards (listed, in order); answers each shard with its own as ANSWER."""

    def process(self, task: Task) -> Output:
        records, bounds = gather(self.run, input_paths(self.run, task.inputs), task.params["range"], WINDOW)
        order, begins = groups(records["key"])
        repeated = _repeated(records, order, begins)
        answer = np.zeros(int(repeated.sum()), ANSWER)
        chosen = order[repeated]
        if len(chosen):
            shard = np.searchsorted(bounds, order, side="right") - 1
            first = np.repeat(np.minimum.reduceat(shard, begins), np.diff(np.r_[begins, len(records)]))
            shard, first = shard[repeated], first[repeated]
            back = np.argsort(chosen)
            answer["place"] = (chosen - bounds[shard])[back]
            answer["stays"] = ((shard == first) & (section_config(self).keep == "first"))[back]
            chosen = chosen[back]
        sections = split(answer, np.searchsorted(chosen, bounds))
        return Output({f"{task.key}.bin": pack(sections)}, counts={"windows": len(begins), "repeated": len(answer)})


# ---- the cut ---------------------------------------------------------------------------------------------


WINDOWS_FOLDER, CUTS_FOLDER = "dedup/substrings/windows-", "dedup/substrings/cut-"
ONLY_SUBSTRINGS = "only_repeated_substrings"


class SubstringEditor(Editor):
    """Cuts the windows that the ranges chose.

    `task.inputs` hold the shard's own windows and the list of the answers of all ranges; `task.params`: `shard`.
    """

    fields = (pa.field("substring_spans", pa.int64()), pa.field("substring_chars_cut", pa.int64()))

    def __init__(self, config: Any, run: Any):
        super().__init__(config, run)
        self.substrings: SubstringsConfig = config.substrings

    def open(self, task: Task) -> None:
        paths = input_paths(self.run, task.inputs)
        own = next(path for path in paths if path.startswith(WINDOWS_FOLDER))
        answers = [path for path in paths if path.startswith(CUTS_FOLDER)]
        windows, stays = read_answers(self.run, own, answers, task.params["shard"], WINDOW)
        rows, words = (np.where(stays, windows[name].astype(np.int64), -1) for name in ("row", "word"))
        self.windows = WindowTable(windows["key"].copy(), rows, words)

    def edit(self, texts: pa.Array, rows: npt.NDArray[np.int64]) -> Edit:
        new, spans = cut_windows(*text_buffers(texts), rows, self.substrings.tokens, self.windows)
        gone = pc.subtract(pc.utf8_length(texts), pc.utf8_length(new)).cast(pa.int64())
        empty = (spans > 0) & (pc.binary_length(new).to_numpy() == 0)
        return Edit(new, {"substring_spans": pa.array(spans), "substring_chars_cut": gone}, {ONLY_SUBSTRINGS: empty})
