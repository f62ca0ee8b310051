"""An exchange of records between tasks of shards and tasks of ranges of 64-bit keys.

The task of a shard writes a file with a section for each range of keys. The task of a range reads its section from the file of each shard,
decides about the keys, and writes its answers: a file with a section for each shard. So no task holds more than a shard or a range, and
nothing is read twice.

A file of sections has the number of sections, where each ends (both int64), then the records, all little-endian. It is not Parquet, because
a task reads one of many small sections, and hashes do not compress.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from corpusmill.dedup.corpus import Integers, first_output, shard_key
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.lists import write_list
from corpusmill.pipeline.manifest import FileRef, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Task, Worker
from corpusmill.pipeline.storage import Storage
from corpusmill.text.hashing import find, insert, table_size

#: Bytes of (compressed) document shards for each range of keys. The task of a range then holds some hundred MB, and never more than one GB.
RANGE_BYTES = 128 << 20

#: An answer about a chosen record of a shard. `place`: the record's index in its section. `stays`: whether the first occurrence of its key
#: is in this shard and stays.
ANSWER = np.dtype([("place", "<u4"), ("stays", "u1")])

_LENGTH = np.dtype("<i8")


class ExchangePhase(NamedTuple):
    """One of the two phases of an exchange: that of the shards, or that of the ranges."""

    title: str  # shown to users
    name: str  # the prefix of its tasks
    worker: type[Worker]
    config: Config


def exchange(
    run: StageRun, shards: ExchangePhase, answers: ExchangePhase, inputs: Sequence[tuple[FileRef, ...]], ranges: int
) -> tuple[list[tuple[FileRef, ...]], Sequence[TaskRow]]:
    """Runs the phase of the shards and the phase of the ranges (`answers`).

    Returns for each shard its file of records and the list of all answers; and the tasks of the ranges. `inputs`: for each shard the files
    that its task reads, the shard first.
    """
    params = {"ranges": ranges}
    tasks = [Task(f"{shards.name}-{shard_key(read[0].path)}", read, {"shard": shard}) for shard, read in enumerate(inputs)]
    records = [first_output(row) for row in run.map(shards.title, shards.worker, tasks, params, config=shards.config)]
    listed = write_list(run, shards.name.replace("/", "-"), records)
    tasks = [Task(f"{answers.name}-{number:05d}", (listed,), {"range": number}) for number in range(ranges)]
    done = run.map(answers.title, answers.worker, tasks, params, config=answers.config)
    answered = write_list(run, answers.name.replace("/", "-"), [first_output(row) for row in done])
    return [(ref, answered) for ref in records], done


def plan_ranges(documents: Sequence[FileRef], finer: int = 1) -> int:
    """Returns the number of ranges of keys. It depends on the size of the input alone, never on the number of workers.

    `finer`: multiplies the number of ranges, for phases that have more keys.
    """
    return max(1, -(-sum(ref.bytes for ref in documents) * finer // RANGE_BYTES))


def range_bounds(keys: npt.NDArray[np.uint64], ranges: int) -> npt.NDArray[np.int64]:
    """Returns where each of `ranges` equal ranges of the 64-bit numbers begins in ascending `keys`, then the end: `ranges + 1` indexes."""
    starts = [-(-(part << 64) // ranges) for part in range(ranges)]
    return np.append(np.searchsorted(keys, np.array(starts, np.uint64)), len(keys)).astype(np.int64)


def pack(sections: Sequence[npt.NDArray]) -> bytes:
    """Joins arrays, also of different dtypes, into the bytes of one file, from which `read_section` reads one of them back."""
    ends = np.cumsum([0, *(section.nbytes for section in sections)])[1:]
    head = [_LENGTH.type(len(sections)).tobytes(), ends.astype(_LENGTH).tobytes()]
    return b"".join(head + [np.ascontiguousarray(section).tobytes() for section in sections])


def read_section(run: Storage, path: str, number: int, dtype: npt.DTypeLike) -> npt.NDArray:
    """Reads one section of a file as an array of `dtype`, and no other section."""
    with run.open_read(path) as file:
        ends = _ends(file)
        start, end = (int(ends[number - 1]) if number else 0), int(ends[number])
        file.seek(start, 1)
        return np.frombuffer(file.read(end - start), dtype)


def gather(run: Storage, paths: Sequence[str], number: int, dtype: npt.DTypeLike) -> tuple[npt.NDArray, npt.NDArray[np.int64]]:
    """Reads one section of each file; returns `(records, bounds)`. Those of file i are `records[bounds[i]:bounds[i + 1]]`."""
    found = [np.zeros(0, dtype), *(read_section(run, path, number, dtype) for path in paths)]
    return np.concatenate(found), np.cumsum([len(records) for records in found]).astype(np.int64)


def read_answers(
    run: Storage, records_file: str, answers: Sequence[str], shard: int, dtype: npt.DTypeLike
) -> tuple[npt.NDArray, npt.NDArray[np.bool_]]:
    """Returns `(records, stays)`: the records of a shard that the tasks of ranges chose, and for each whether the first occurrence of its
    key is in this shard and stays. `records_file`: the shard's file of records. `answers`: the files of the ranges."""
    records, stays = [np.zeros(0, dtype)], [np.zeros(0, bool)]
    for number, path in enumerate(answers):
        answer = read_section(run, path, shard, ANSWER)
        records.append(read_section(run, records_file, number, dtype)[answer["place"]])
        stays.append(answer["stays"] > 0)
    return np.concatenate(records), np.concatenate(stays)


def split(records: npt.NDArray, bounds: npt.NDArray[np.int64]) -> list[npt.NDArray]:
    """Returns `records` cut at `bounds`: a section for each file that `gather` has read, in the same order."""
    return [records[a:b] for a, b in pairwise(bounds.tolist())]


def _ends(file: IO[bytes]) -> npt.NDArray[np.int64]:
    count = int(np.frombuffer(file.read(_LENGTH.itemsize), _LENGTH)[0])
    return np.frombuffer(file.read(_LENGTH.itemsize * count), _LENGTH)


def groups(keys: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns `(order, begins)`: the order that sorts the keys, and where in it each group of equal keys begins."""
    order = np.argsort(keys)
    ordered = keys[order]
    return order, np.flatnonzero(np.r_[np.ones(min(len(keys), 1), bool), ordered[1:] != ordered[:-1]])


def answer(
    records: npt.NDArray, bounds: Integers, order: Integers, begins: Integers, chosen: npt.NDArray[np.bool_], keep_first: bool
) -> list[npt.NDArray]:
    """Returns a section of ANSWER for each file that `gather` has read: about those of its records that have a chosen key.

    `order`, `begins`: as `groups` returns them. `chosen`: whether each group of equal keys is chosen. A file has each key at most once.
    """
    # the indexes of the chosen records, and for each the lowest index with the same key
    sizes = np.diff(np.r_[begins, len(records)])
    places = order[np.repeat(chosen, sizes)]
    first = np.repeat(np.minimum.reduceat(order, begins)[chosen], sizes[chosen]) if len(records) else places
    answers = np.empty(len(places), ANSWER)
    answers["place"] = places - bounds[np.searchsorted(bounds, places, side="right") - 1]
    answers["stays"] = (places == first) & keep_first
    # from the order of keys back to the order of files
    back = np.argsort(places)
    return split(answers[back], np.searchsorted(places[back], bounds))


class KeyTable:
    """A hash table of keys with open addressing (see `find`), and arrays with the values of the key in each slot, -1 in empty slots."""

    def __init__(self, keys: npt.NDArray[np.uint64], *values: npt.NDArray[np.int64]):
        self.table = np.zeros(table_size(len(keys)), np.uint64)
        slots = np.empty(len(keys), np.int64)
        _fill(self.table, keys, slots)
        self.values = [np.full(len(self.table), -1) for _ in values]
        for array, given in zip(self.values, values, strict=True):
            array[slots] = given


@kernel
def _fill(table, keys, slots):  # type: ignore[no-untyped-def]
    mask = len(table) - 1
    for k in range(len(keys)):
        insert(table, mask, keys[k])
    for k in range(len(keys)):
        slots[k] = find(table, mask, keys[k])


@kernel
def copy_bytes(data, start, end, out, place):  # type: ignore[no-untyped-def]
    """Copies `data[start:end]` to `out` from `place` on; returns the place after it."""
    for at in range(end - start):
        out[place + at] = data[start + at]
    return place + end - start
