"""The tasks that find repeated windows: anchors of a shard and of a range, then windows of a shard and of a range."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.dedup.config import DedupConfig
from corpusmill.dedup.lines.editor import LineEditor
from corpusmill.dedup.removal import one_array
from corpusmill.dedup.sections import gather, groups, pack, range_bounds, read_section, split
from corpusmill.dedup.substrings.config import SubstringsConfig
from corpusmill.dedup.substrings.windows import anchors, key_set, windows
from corpusmill.dedup.survivors import survivors
from corpusmill.pipeline.lists import input_paths
from corpusmill.pipeline.stage import Output, Piece, Worker
from corpusmill.pipeline.text.buffers import text_buffers

ANCHORS_FOLDER, REPEATED_FOLDER = "dedup/substrings/anchors-", "dedup/substrings/repeated-"

#: An anchor of a shard: its hash, and whether it occurs once or more often.
ANCHOR = np.dtype([("key", "<u8"), ("times", "u1")])
#: A window of a shard whose anchor repeats: its hash, where it comes first, and whether it occurs once or more often.
WINDOW = np.dtype([("key", "<u8"), ("row", "<u4"), ("word", "<u4"), ("times", "u1")])
#: A window of a shard that repeats: its place in the section of its range, and whether its first occurrence is in the shard and stays.
CUT = np.dtype([("place", "<u4"), ("stays", "u1")])


def texts_of(worker: Worker, piece: Piece) -> Iterator[tuple[npt.NDArray[np.int64], pa.Array]]:
    """`(rows, texts)` of the documents of a shard that stay, as the editor of lines leaves them, a row group at a time."""
    config, run = worker.config, worker.run
    assert isinstance(config, DedupConfig)
    shard, *tables = input_paths(run, piece.inputs[:2])
    editor = LineEditor(config, run) if config.lines else None
    if editor:
        editor.open(piece)
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
    """One shard to its anchors, by range. `piece.inputs`: the shard, the list of cluster tables, what the editor of lines reads;
    `piece.params`: `shard` (its place in the input). `params`: `ranges`."""

    def process(self, piece: Piece) -> Output:
        config = section_config(self)
        found, size, documents = [np.zeros(0, np.uint64)], 0, 0
        for rows, texts in texts_of(self, piece):
            data, offsets = text_buffers(texts)
            found.append(anchors(data, offsets, config.tokens, config.anchor))
            size, documents = size + int(offsets[-1] - offsets[0]), documents + len(rows)
        records, _, _ = record(np.concatenate(found), ANCHOR)
        sections = split(records, range_bounds(records["key"], int(self.params["ranges"])))
        return Output({f"{piece.key}.bin": pack(sections)}, rows_in=documents, bytes_in=size, counts={"anchors": len(records)})


class RepeatedAnchorWorker(Worker):
    """One range of anchors of all shards (listed) to those that occur twice: for each shard their places in its section."""

    def process(self, piece: Piece) -> Output:
        records, bounds = gather(self.run, input_paths(self.run, piece.inputs), piece.params["range"], ANCHOR)
        order, begins = groups(records["key"])
        chosen = np.sort(order[_repeated(records, order, begins)])
        places = (chosen - bounds[np.searchsorted(bounds, chosen, side="right") - 1]).astype("<u4")
        sections = split(places, np.searchsorted(chosen, bounds))
        return Output({f"{piece.key}.bin": pack(sections)}, counts={"anchors": len(begins), "repeated": len(chosen)})


def _repeated(records: npt.NDArray, order: npt.NDArray[np.int64], begins: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """For each record in `order` whether its key occurs twice."""
    if not len(records):
        return np.zeros(0, bool)
    times = np.add.reduceat(records["times"][order].astype(np.int64), begins)
    return np.repeat(times > 1, np.diff(np.r_[begins, len(records)]))


class WindowWorker(Worker):
    """One shard to the windows whose anchor repeats, by range. `piece.inputs`: as of AnchorWorker, and behind them the shard's anchors and
    the list of the answers of their ranges."""

    def process(self, piece: Piece) -> Output:
        config = section_config(self)
        paths = input_paths(self.run, piece.inputs)
        own = next(path for path in paths if path.startswith(ANCHORS_FOLDER))
        answers = [path for path in paths if path.startswith(REPEATED_FOLDER)]
        known = []
        for number, path in enumerate(answers):
            places = read_section(self.run, path, piece.params["shard"], "<u4")
            known.append(read_section(self.run, own, number, ANCHOR)["key"][places])
        repeated = key_set(np.concatenate(known))
        parts, size = [np.zeros(0, WINDOW)], 0
        for rows, texts in texts_of(self, piece):
            data, offsets = text_buffers(texts)
            keys, places, words = windows(data, offsets, config.tokens, config.anchor, repeated)
            parts.append(_first_windows(keys, rows[places].astype(np.uint32), words))
            size += int(offsets[-1] - offsets[0])
        records = _merged(np.concatenate(parts))
        sections = split(records, range_bounds(records["key"], int(self.params["ranges"])))
        return Output({f"{piece.key}.bin": pack(sections)}, bytes_in=size, counts={"windows": len(records)})


def _first_windows(keys: npt.NDArray[np.uint64], rows: npt.NDArray[np.uint32], words: npt.NDArray[np.uint32]) -> npt.NDArray:
    """One record for each key: where it comes first."""
    records, order, begins = record(keys, WINDOW)
    if len(records):
        first = np.minimum.reduceat(_place(rows, words)[order], begins)
        records["row"], records["word"] = first >> np.uint64(32), first & np.uint64(0xFFFFFFFF)
    return records


def _merged(records: npt.NDArray) -> npt.NDArray:
    """The records of several row groups as one for each key."""
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
    """One range of windows of all shards (listed, in order) to those that occur twice, for each shard its own as CUT."""

    def process(self, piece: Piece) -> Output:
        records, bounds = gather(self.run, input_paths(self.run, piece.inputs), piece.params["range"], WINDOW)
        order, begins = groups(records["key"])
        repeated = _repeated(records, order, begins)
        answer = np.zeros(int(repeated.sum()), CUT)
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
        return Output({f"{piece.key}.bin": pack(sections)}, counts={"windows": len(begins), "repeated": len(answer)})
