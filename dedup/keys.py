"""Keys by which copies meet: of exact texts, of URLs and of LSH bands. Each range of them is one batch of a shard's file."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

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
    part = range_of(keys, ranges)
    order = np.argsort(part, kind="stable")
    bounds = np.searchsorted(part[order], np.arange(ranges + 1))
    table = pa.table([keys[order], check[order], rows[order]], schema=KEYS)
    return batches_bytes(KEYS, [table.slice(a, b - a) for a, b in pairwise(bounds)])


def read_keys(run: Storage, path: str, part: int, parts: int) -> tuple[Keys, Keys, npt.NDArray[np.int64]]:
    """`(key, check, row)` of one of `parts` ranges, whatever number of ranges the file was written with."""
    with open_batches(run, path) as reader:
        ranges = reader.num_record_batches
        per = max(ranges // parts, 1)
        first = part * ranges // parts
        tables = [reader.get_batch(number) for number in range(first, first + per)]
        key = np.concatenate([batch["key"].to_numpy() for batch in tables])
        check = np.concatenate([batch["check"].to_numpy() for batch in tables])
        row = np.concatenate([batch["row"].to_numpy() for batch in tables]).astype(np.int64)
    if parts > ranges:
        mine = range_of(key, parts) == part
        key, check, row = key[mine], check[mine], row[mine]
    return key, check, row
