"""Keys by which copies meet: of exact texts, of URLs and of LSH bands. Each range of them is one batch of a shard's file."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc as ipc

from corpusmill.dedup.batches import batches_bytes, open_batches
from corpusmill.pipeline.storage import Storage

EXACT_KEYS, URL_KEYS, BAND_KEYS = "exact", "url", "bands"

KEYS = pa.schema(
    [
        pa.field("key", pa.uint64(), nullable=False),
        # of bands: which text it is, so that exact copies count as one; else the other half of the key
        pa.field("check", pa.uint64(), nullable=False),
        pa.field("row", pa.uint32(), nullable=False),
    ]
)

#: Keys in a batch: whoever wants a range reads no more than one batch beside it.
BATCH_KEYS = 4_096
MAX_RANGES = 65_536

Keys = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.uint32]
#: `(key, check, row)` of some keys.
KeyRows: TypeAlias = tuple[Keys, Keys, npt.NDArray[Any]]


def range_of(keys: Keys, ranges: int) -> npt.NDArray[np.uint16]:
    """In which of `ranges` (a power of two up to 65,536) equal ranges of the 64-bit numbers each key lies."""
    if ranges == 1:
        return np.zeros(len(keys), np.uint16)
    return (keys >> np.uint64(64 - (ranges.bit_length() - 1))).astype(np.uint16)


def batch_ranges(keys: int) -> int:
    """In how many ranges (a power of two) so many keys of a shard are parted."""
    return min(1 << max(keys // BATCH_KEYS, 1).bit_length() - 1, MAX_RANGES)


def keys_bytes(keys: Keys, check: Keys, rows: Rows) -> bytes:
    """The file of one shard: a batch a range, of about `BATCH_KEYS`; in a batch the keys stand as they came."""
    ranges = batch_ranges(len(keys))
    return batches_bytes(KEYS, [pa.table(list(found), schema=KEYS) for found in parted(keys, check, rows, ranges, 0, ranges)])


def parted(keys: Keys, check: Keys, rows: npt.NDArray[Any], ranges: int, first: int, end: int) -> Iterator[KeyRows]:
    """The keys of each range from `first` to `end`, of `ranges`, as they came. All of them lie in these."""
    part = range_of(keys, ranges)
    order = np.argsort(part, kind="stable")
    bounds = np.searchsorted(part[order], np.arange(first, end + 1))
    keys, check, rows = keys[order], check[order], rows[order]
    for a, b in pairwise(bounds):
        yield keys[a:b], check[a:b], rows[a:b]


def read_keys(run: Storage, path: str, part: int, parts: int) -> tuple[Keys, Keys, npt.NDArray[np.int64]]:
    """`(key, check, row)` of one of `parts` ranges, whatever number of ranges the file was written with."""
    with open_batches(run, path) as reader:
        ranges = reader.num_record_batches
        key, check, row = _read(reader, part * ranges // parts, max(ranges // parts, 1))
        row = row.astype(np.int64)
    if parts > ranges:
        mine = range_of(key, parts) == part
        key, check, row = key[mine], check[mine], row[mine]
    return key, check, row


def key_ranges(reader: ipc.RecordBatchFileReader, parts: int) -> Iterator[KeyRows]:
    """As `read_keys`, of one range after the other. Each batch is read once."""
    ranges = reader.num_record_batches
    per, finer = max(ranges // parts, 1), max(parts // ranges, 1)
    for number in range(ranges // per):
        found = _read(reader, number * per, per)
        if finer == 1:
            yield found
        else:
            yield from parted(*found, parts, number * finer, (number + 1) * finer)


def _read(reader: ipc.RecordBatchFileReader, first: int, count: int) -> KeyRows:
    batches = [reader.get_batch(number) for number in range(first, first + count)]
    key, check, row = (np.concatenate([batch[name].to_numpy() for batch in batches]) for name in KEYS.names)
    return key, check, row
