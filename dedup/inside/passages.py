# mypy: disallow-untyped-defs=False
"""Cuts passages that repeat word for word in the corpus.

A *window* is `tokens` words in a row; a repeated passage is one repeated window or several that overlap. Sampled hashes (*anchors*) show
which windows may repeat, the hashes of these windows show which do, and `SubstringEditor` cuts them."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.dedup.cluster_table import survivors
from corpusmill.dedup.config import DedupConfig, SubstringsConfig
from corpusmill.dedup.inside.lines import LineEditor
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
from corpusmill.dedup.removal import Edit, Editor, one_array
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.lists import input_paths
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Output, Task, Worker
from corpusmill.text.buffers import read_only, text_array, text_buffers
from corpusmill.text.hashing import BASE, find, mix64, power
from corpusmill.text.utf8 import NEWLINE, SPACE, WORD, character_classes, count_byte, decode
from corpusmill.text.words import VISIBLE, word_rule_classes

Data = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

#: There may be a window for each word, so there are far more keys than lines have: this multiplies the number of ranges.
FINER = 4


def prepare_passages(
    run: StageRun, config: DedupConfig, documents: list[FileRef], clusters: list[FileRef], lines: Sequence[tuple[FileRef, ...]]
) -> list[tuple[FileRef, ...]]:
    """Runs the phases; returns for each shard the files that its SubstringEditor reads, none if the recipe has no `substrings`.

    `clusters`: for each shard the file with its rows of the cluster tables. `lines`: for each shard the files that its LineEditor reads,
    because passages are looked for in the texts after its cuts.
    """
    if config.substrings is None:
        return [()] * len(documents)
    seen = DedupConfig(lines=config.lines, substrings=config.substrings)  # the options on which these phases depend
    ranges = plan_ranges(documents, FINER)
    inputs = [(ref, rows, *files) for ref, rows, files in zip(documents, clusters, lines, strict=True)]
    shards = ExchangePhase("substrings: anchors", "substrings/anchors", AnchorWorker, seen)
    answers = ExchangePhase("substrings: repeated anchors", "substrings/repeated", RepeatedAnchorWorker, seen)
    repeated, _ = exchange(run, shards, answers, inputs, ranges)
    inputs = [(*read, *more) for read, more in zip(inputs, repeated, strict=True)]
    shards = ExchangePhase("substrings: windows", "substrings/windows", WindowWorker, seen)
    answers = ExchangePhase("substrings: repeated windows", "substrings/cut", RepeatedWindowWorker, seen)
    return exchange(run, shards, answers, inputs, ranges)[0]


# ---- the tasks -------------------------------------------------------------------------------------------


ANCHORS_FOLDER, REPEATED_FOLDER = "dedup/substrings/anchors-", "dedup/substrings/repeated-"

#: An anchor of a shard: its hash, and `times`: 1 where it occurs once, 2 where more often.
ANCHOR = np.dtype([("key", "<u8"), ("times", "u1")])
#: A window of a shard whose anchor repeats: its hash, the row and the word of its first occurrence, and `times` as in ANCHOR.
WINDOW = np.dtype([("key", "<u8"), ("row", "<u4"), ("word", "<u4"), ("times", "u1")])


def texts_of(worker: Worker, task: Task) -> Iterator[tuple[npt.NDArray[np.int64], pa.Array]]:
    """Yields `(rows, texts)` for each row group of a shard: the documents that stay, as the LineEditor leaves them."""
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


class AnchorWorker(Worker):
    """Finds the anchors of one shard; writes a section for each range of keys.

    Inputs: the shard, the file with its rows of the cluster tables, and the files that its LineEditor reads. `task.params`: `shard` (its
    number). `params`: `ranges`.
    """

    def process(self, task: Task) -> Output:
        config = section_config(self)
        found, size, documents = [np.zeros(0, np.uint64)], 0, 0
        for rows, texts in texts_of(self, task):
            data, offsets = text_buffers(texts)
            found.append(anchors(data, offsets, config.tokens, config.anchor))
            size, documents = size + int(offsets[-1] - offsets[0]), documents + len(rows)
        keys, times = np.unique(np.concatenate(found), return_counts=True)
        records = np.empty(len(keys), ANCHOR)
        records["key"], records["times"] = keys, np.minimum(times, 2)
        sections = split(records, range_bounds(keys, int(self.params["ranges"])))
        return Output({f"{task.key}.bin": pack(sections)}, rows_in=documents, bytes_in=size, counts={"anchors": len(records)})


class RepeatedAnchorWorker(Worker):
    """Finds the anchors of one range that occur at least twice in all shards together.

    For each shard it writes the indexes of these anchors in the shard's section. The input is the list of the shards' anchors.
    """

    def process(self, task: Task) -> Output:
        records, bounds = gather(self.run, input_paths(self.run, task.inputs), task.params["range"], ANCHOR)
        order, begins = groups(records["key"])
        sections = answer(records, bounds, order, begins, _repeated(records, order, begins), keep_first=False)
        places = [section["place"] for section in sections]
        return Output({f"{task.key}.bin": pack(places)}, counts={"anchors": len(begins), "repeated": sum(map(len, places))})


def _repeated(records: npt.NDArray, order: Offsets, begins: Offsets) -> npt.NDArray[np.bool_]:
    """Returns for each group of equal keys (`groups`) whether the key occurs at least twice."""
    if not len(records):
        return np.zeros(0, bool)
    return np.add.reduceat(records["times"][order].astype(np.int64), begins) > 1


class WindowWorker(Worker):
    """Finds the windows of one shard whose anchor repeats; writes a section for each range of keys.

    Inputs: those of AnchorWorker, the shard's anchors, and the list of the answers about anchors.
    """

    def process(self, task: Task) -> Output:
        config = section_config(self)
        paths = input_paths(self.run, task.inputs)
        anchors_file = next(path for path in paths if path.startswith(ANCHORS_FOLDER))
        answers = [path for path in paths if path.startswith(REPEATED_FOLDER)]
        known = []
        for number, path in enumerate(answers):
            places = read_section(self.run, path, task.params["shard"], "<u4")
            known.append(read_section(self.run, anchors_file, number, ANCHOR)["key"][places])
        repeated = KeyTable(np.concatenate(known)).table
        parts, size = [np.zeros(0, WINDOW)], 0
        for rows, texts in texts_of(self, task):
            data, offsets = text_buffers(texts)
            keys, places, words = windows(data, offsets, config.tokens, config.anchor, repeated)
            found = np.ones(len(keys), WINDOW)
            found["key"], found["row"], found["word"] = keys, rows[places], words
            parts.append(_merged(found))
            size += int(offsets[-1] - offsets[0])
        records = _merged(np.concatenate(parts))
        sections = split(records, range_bounds(records["key"], int(self.params["ranges"])))
        return Output({f"{task.key}.bin": pack(sections)}, bytes_in=size, counts={"windows": len(records)})


def _merged(records: npt.NDArray) -> npt.NDArray:
    """Merges windows: one record for each key, with the place of its first occurrence."""
    order, begins = groups(records["key"])
    out = records[order[begins]]
    if len(out):
        places = records["row"].astype(np.uint64) << np.uint64(32) | records["word"]
        first = np.minimum.reduceat(places[order], begins)
        out["row"], out["word"] = first >> np.uint64(32), first & np.uint64(0xFFFFFFFF)
        out["times"] = np.minimum(np.add.reduceat(records["times"][order].astype(np.int64), begins), 2)
    return out


class RepeatedWindowWorker(Worker):
    """Finds the windows of one range that occur at least twice in all shards together. Writes for each shard those of its own, as ANSWER.

    The input is the list of the shards' windows, in order.
    """

    def process(self, task: Task) -> Output:
        records, bounds = gather(self.run, input_paths(self.run, task.inputs), task.params["range"], WINDOW)
        order, begins = groups(records["key"])
        repeated = _repeated(records, order, begins)
        sections = answer(records, bounds, order, begins, repeated, section_config(self).keep == "first")
        return Output({f"{task.key}.bin": pack(sections)}, counts={"windows": len(begins), "repeated": sum(map(len, sections))})


# ---- the cut ---------------------------------------------------------------------------------------------


WINDOWS_FOLDER, CUTS_FOLDER = "dedup/substrings/windows-", "dedup/substrings/cut-"
ONLY_SUBSTRINGS = "only_repeated_substrings"


class SubstringEditor(Editor):
    """Cuts repeated passages: the windows (runs of words) that `RepeatedWindowWorker` chose.

    The inputs include the shard's windows, and the list of the files in which `RepeatedWindowWorker` says which of them go.
    `task.params`: `shard`.
    """

    fields = (pa.field("substring_spans", pa.int64()), pa.field("substring_chars_cut", pa.int64()))

    def __init__(self, config: Any, run: Any):
        super().__init__(config, run)
        self.substrings: SubstringsConfig = config.substrings

    def open(self, task: Task) -> None:
        paths = input_paths(self.run, task.inputs)
        windows_file = next(path for path in paths if path.startswith(WINDOWS_FOLDER))
        answers = [path for path in paths if path.startswith(CUTS_FOLDER)]
        windows, stays = read_answers(self.run, windows_file, answers, task.params["shard"], WINDOW)
        rows, words = (np.where(stays, windows[name].astype(np.int64), -1) for name in ("row", "word"))
        self.windows = KeyTable(windows["key"].copy(), rows, words)

    def edit(self, texts: pa.Array, rows: npt.NDArray[np.int64]) -> Edit:
        new, spans = cut_windows(*text_buffers(texts), rows, self.substrings.tokens, self.windows)
        gone = pc.subtract(pc.utf8_length(texts), pc.utf8_length(new)).cast(pa.int64())
        empty = (spans > 0) & (pc.binary_length(new).to_numpy() == 0)
        return Edit(new, {"substring_spans": pa.array(spans), "substring_chars_cut": gone}, {ONLY_SUBSTRINGS: empty})


# ---- words, the windows of words of a text, and the anchors that stand for the windows -------------------
#
# A window of `tokens` words has `tokens - anchor + 1` runs of `anchor` words. The run with the least hash is the window's anchor
# (winnowing: Schleimer, Wilkerson and Aiken, 2003). It depends on the window's words alone: if a window occurs twice, so does its anchor.
# So it is enough to look at windows whose anchor repeats, and no repeat of at least `tokens` words is missed. About 2 in
# `tokens - anchor + 2` places of a text are an anchor (7.4% for 50 words).


#: The kinds of a character: a space between words, a part of a word, a word by itself, a mark that belongs to the character before it.
BETWEEN, PART, ALONE, MARK = range(4)
#: The first code point of the first script without spaces. Other scripts use the apostrophes and accents before it, too; they are PART.
_FIRST_UNSPACED = 0x0E00


@cache
def kinds() -> npt.NDArray[np.uint8]:
    """Returns the kind of each character (uint8 of length 0x110000): BETWEEN, PART, ALONE or MARK."""
    classes = character_classes()
    characters = word_rule_classes("characters", classes)
    table = np.full(len(classes), PART, np.uint8)
    table[(classes & WORD != 0) & (characters & WORD == 0)] = ALONE
    table[characters & VISIBLE == 0] = MARK
    table[:_FIRST_UNSPACED] = PART
    table[classes & SPACE != 0] = BETWEEN
    return table


@kernel(error_model="numpy")
def walk(data, start, end, table, prefixes, begins, ends):
    """Finds the words of `data[start:end]`; returns their number.

    Writes where they begin and end to `begins` and `ends` (uint32, counted from `start`), and the hash of the first w words to
    `prefixes[w]` (uint64, one more than words). Each array has room for `most_words`.
    """
    count = 0
    value = np.uint64(0)
    state = BETWEEN  # the kind of the current word's first character; BETWEEN outside of words
    prefixes[0] = 0
    i = start
    while i < end:
        point = np.int64(data[i])
        width = 1
        if point >= 0x80:
            point, width = decode(data, i)
        kind = table[point]
        if kind != state or kind == ALONE:
            if kind == MARK and state != BETWEEN:
                kind = state
            else:
                if state != BETWEEN:
                    ends[count] = i - start
                    count += 1
                    prefixes[count] = prefixes[count - 1] * BASE + mix64(value)
                if kind != BETWEEN:
                    begins[count] = i - start
                    kind = PART if kind == MARK else kind
                value = np.uint64(0)
                state = kind
        value = value * BASE + np.uint64(point + 1)
        i += width
    if state != BETWEEN:
        ends[count] = end - start
        count += 1
        prefixes[count] = prefixes[count - 1] * BASE + mix64(value)
    return count


def most_words(offsets: Offsets) -> int:
    """Returns an upper bound for the number of words of the longest text.

    A word takes at least two bytes on average: after a word of one byte comes a space, a word of three bytes or more, or the end.
    """
    return int(np.diff(offsets).max(initial=0)) // 2 + 2


@kernel(inline="always")
def window_key(prefixes, at, words, weight):
    """Returns the hash of the `words` words from word `at` on; `weight` is `power(words)`."""
    return mix64(prefixes[at + words] - prefixes[at] * weight)


@kernel(error_model="numpy")
def _least(hashes, first, last):
    """Returns the index of the least of `hashes[first:last + 1]`, the last one of equals."""
    best = first
    for at in range(first + 1, last + 1):
        if hashes[at] <= hashes[best]:
            best = at
    return best


@kernel(error_model="numpy")
def _anchor_hashes(prefixes, count, anchor, hashes):
    weight = power(anchor)
    for at in range(count - anchor + 1):
        hashes[at] = window_key(prefixes, at, anchor, weight)


@kernel(error_model="numpy")
def _anchors(data, offsets, table, tokens, anchor, prefixes, begins, ends, hashes, keys):
    found = 0
    for d in range(len(offsets) - 1):
        count = walk(data, offsets[d], offsets[d + 1], table, prefixes, begins, ends)
        if count < tokens:
            continue
        _anchor_hashes(prefixes, count, anchor, hashes)
        best = -1
        for window in range(count - tokens + 1):
            last = window + tokens - anchor
            before = best
            if best < window:
                best = _least(hashes, window, last)
            elif hashes[last] <= hashes[best]:
                best = last
            if best != before:
                keys[found] = hashes[best]
                found += 1
    return found


class WordScratch:
    """Scratch arrays for the words of the longest text."""

    def __init__(self, offsets: Offsets):
        size = most_words(offsets)
        self.prefixes = np.empty(size + 1, np.uint64)
        self.begins, self.ends = np.empty(size, np.uint32), np.empty(size, np.uint32)
        self.hashes = np.empty(size, np.uint64)


def anchors(data: Data, offsets: Offsets, tokens: int, anchor: int) -> Keys:
    """Returns the hashes of the anchors of n texts, one for each place where some window has its anchor."""
    scratch = WordScratch(offsets)
    keys = np.empty(int((np.diff(offsets) // 2 + 2).sum()), np.uint64)
    found = _anchors(
        read_only(data), read_only(offsets), kinds(), tokens, anchor,
        scratch.prefixes, scratch.begins, scratch.ends, scratch.hashes, keys,
    )  # fmt: skip
    return keys[:found].copy()


@kernel(error_model="numpy")
def _windows(data, offsets, table, tokens, anchor, repeated, prefixes, begins, ends, hashes, keys, texts, words):
    found = 0
    weight = power(tokens)
    for d in range(len(offsets) - 1):
        count = walk(data, offsets[d], offsets[d + 1], table, prefixes, begins, ends)
        if count < tokens:
            continue
        _anchor_hashes(prefixes, count, anchor, hashes)
        best, known = -1, False
        for window in range(count - tokens + 1):
            last = window + tokens - anchor
            before = best
            if best < window:
                best = _least(hashes, window, last)
            elif hashes[last] <= hashes[best]:
                best = last
            if best != before:
                known = find(repeated, len(repeated) - 1, hashes[best]) >= 0
            if known:
                keys[found] = window_key(prefixes, window, tokens, weight)
                texts[found] = d
                words[found] = window
                found += 1
    return found


def windows(
    data: Data, offsets: Offsets, tokens: int, anchor: int, repeated: Keys
) -> tuple[Keys, npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Returns `(keys, texts, words)` of the windows whose anchor is in the table `repeated`: hash, number of the text, first word."""
    scratch = WordScratch(offsets)
    most = int((np.diff(offsets) // 2 + 2).sum())
    keys, texts, words = np.empty(most, np.uint64), np.empty(most, np.uint32), np.empty(most, np.uint32)
    found = _windows(
        read_only(data), read_only(offsets), kinds(), tokens, anchor, repeated,
        scratch.prefixes, scratch.begins, scratch.ends, scratch.hashes, keys, texts, words,
    )  # fmt: skip
    return keys[:found].copy(), texts[:found].copy(), words[:found].copy()


# ---- texts without repeated windows ----------------------------------------------------------------------


@kernel(error_model="numpy")
def _mark(prefixes, count, tokens, weight, row, table, rows, words, changes):
    """Marks the words to cut, in `changes` (int32, count + 1); returns whether there are any.

    The sum of `changes[:w + 1]` is the number of windows to cut that cover word w.
    """
    changes[: count + 1] = 0
    some = False
    for window in range(count - tokens + 1):
        slot = find(table, len(table) - 1, window_key(prefixes, window, tokens, weight))
        if slot < 0:
            continue
        first = window
        if rows[slot] == row:
            if words[slot] == window:
                continue
            if words[slot] + tokens > window:  # it overlaps its first occurrence, which stays
                first = words[slot] + tokens
        changes[first] += 1
        changes[window + tokens] -= 1
        some = True
    return some


@kernel(error_model="numpy")
def _join(data, left, cut, rest, right, out, place):
    """Writes the space between two words that meet after a cut; returns the place after it.

    Takes the space before the cut (`data[left:cut]`) or after it (`data[rest:right]`), whichever has more newlines; one blank where there
    is none.
    """
    before, behind = count_byte(data, left, cut, NEWLINE), count_byte(data, rest, right, NEWLINE)
    if behind > before or (behind == before and left == cut):
        left, cut = rest, right
    if left == cut:
        out[place] = 32
        return place + 1
    return copy_bytes(data, left, cut, out, place)


@kernel(error_model="numpy")
def _write(data, start, end, count, begins, ends, changes, out, place):
    """Writes the text without the words that `changes` marks; returns the place after it, and the number of passages that were cut."""
    depth, spans, word = 0, 0, 0
    kept = start  # the text before it is copied or cut
    some = False  # whether a word was kept
    while word < count:
        depth += changes[word]
        if depth == 0:
            some = True
            word += 1
            continue
        first = word
        while word < count and depth > 0:
            word += 1
            depth += changes[word]
        depth -= changes[word]  # the outer loop adds it again
        spans += 1
        left = start + np.int64(ends[first - 1]) if first else start
        if some:
            place = copy_bytes(data, kept, left, out, place)
        kept = start + np.int64(begins[word]) if word < count else end
        if some and word < count:
            place = _join(data, left, start + np.int64(begins[first]), start + np.int64(ends[word - 1]), kept, out, place)
    return copy_bytes(data, kept, end, out, place), spans


@kernel(error_model="numpy")
def _cut(data, offsets, row_of, kind_table, tokens, table, rows, words, prefixes, begins, ends, changes, out, places, spans):
    weight = power(tokens)
    place = 0
    for d in range(len(offsets) - 1):
        start, end = offsets[d], offsets[d + 1]
        count = walk(data, start, end, kind_table, prefixes, begins, ends)
        if count >= tokens and _mark(prefixes, count, tokens, weight, row_of[d], table, rows, words, changes):
            place, spans[d] = _write(data, start, end, count, begins, ends, changes, out, place)
        else:
            place = copy_bytes(data, start, end, out, place)
        places[d + 1] = place


def cut_windows(
    data: Data, offsets: Offsets, rows: npt.NDArray[np.int64], tokens: int, windows: KeyTable
) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """Returns `(texts, spans)`: n texts (Arrow) without the words of the table's windows, and the number of passages that each lost.

    The table `windows` has for each window the row and the word where its first occurrence stays, or -1. `rows`: the rows of the texts.
    """
    scratch = WordScratch(offsets)
    out = np.empty(int(offsets[-1] - offsets[0]), np.uint8)
    places, spans = np.zeros(len(offsets), np.int64), np.zeros(len(offsets) - 1, np.int64)
    _cut(
        read_only(data), read_only(offsets), rows, kinds(), tokens, windows.table, *windows.values,
        scratch.prefixes, scratch.begins, scratch.ends, np.empty(len(scratch.prefixes), np.int32), out, places, spans,
    )  # fmt: skip
    return text_array(out[: places[-1]], places), spans
