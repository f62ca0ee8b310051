# mypy: disallow-untyped-defs=False
"""Makes a corpus of any size with known copies from real text, as a finished `ingest` stage.

Document i is a pure function of the seed and i, so only the source is in memory, and any document can be made again alone.
A fresh document is a sequence of passages of 6 to 18 words drawn from the whole source; two fresh documents share almost no 5-gram.
The other kinds are

    near       a fresh document with words replaced or a passage left out, to about a drawn similarity (.4 to 1)
    exact      a fresh document again
    page       one page, again and again
    template   a long text that thousands share around a passage of their own, too long for any two to be similar (.4 to .55)

Texts have about 1 KB (log-normal, 300 B to 5 KB). Shards have 60,000 documents, or half of the documents where there are fewer.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from dedup_documents import write_upstream

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.schemas import DOCUMENTS
from corpusmill.pipeline.shards import ROW_GROUP_ROWS
from corpusmill.pipeline.storage import Storage
from corpusmill.text.hashing import mix64

FRESH, NEAR, EXACT, PAGE, TEMPLATE = range(5)
KINDS = ("fresh", "near", "exact", "page", "template")
#: Shares of the kinds other than fresh.
NEAR_SHARE, EXACT_SHARE, PAGE_SHARE, TEMPLATE_SHARE = 0.30, 0.10, 0.01, 0.01
LEAST_SIMILAR = 0.4
TEMPLATE_MEMBERS = 5_000  # documents of one template, if there are enough
TEMPLATE_BYTES = 900
SHARD_ROWS = 60_000
LONGEST_WORD = 24
LONGEST_TEXT = 6_000
THREADS = 2  # processes that make shards

Result = TypeVar("Result")

TRUTH = pa.schema([pa.field("kind", pa.int8()), pa.field("base", pa.int64())])


@dataclass(frozen=True)
class Synthesis:
    """Everything that decides a document: the words of the source (`data[starts[w]:ends[w]]`), the number of documents, and the seed."""

    data: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    documents: int
    seed: int = 1

    @property
    def templates(self) -> int:
        return max(1, round(self.documents * TEMPLATE_SHARE / TEMPLATE_MEMBERS))

    def truth(self, first: int, last: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int64]]:
        """Returns `(kind, base)` of documents `first` to `last - 1`; a fresh document is its own base, a page has the base `documents`."""
        kinds: tuple[npt.NDArray[np.int8], npt.NDArray[np.int64]] = _truths(first, last, self.documents, self.seed)
        return kinds

    def texts(self, index: npt.NDArray[np.int64]) -> pa.Array:
        """Returns the texts of these documents, as `large_string`."""
        out = np.empty(len(index) * LONGEST_TEXT, np.uint8)
        offsets = np.zeros(len(index) + 1, np.int64)
        _write_texts(index, self.documents, self.seed, self.templates, self.data, self.starts, self.ends, out, offsets)
        data = pa.py_buffer(out[: offsets[-1]].copy())
        return pa.LargeStringArray.from_buffers(len(index), pa.py_buffer(offsets), data)

    def ids(self, first: int, last: int) -> pa.Array:
        """Returns 32 hex digits a document: a drawn half, so that ids do not sort in the order of the corpus, and the document's number."""
        out = np.empty((last - first, 32), np.uint8)
        _write_ids(first, self.seed, out)
        offsets = pa.py_buffer(np.arange(len(out) + 1, dtype=np.int32) * 32)
        return pa.StringArray.from_buffers(len(out), offsets, pa.py_buffer(out))


def numbers_of(ids: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.int64]:
    """Returns the documents' numbers from ids that `Synthesis.ids` made."""
    array = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    digits = np.array(pc.utf8_slice_codeunits(array, 16, 32).cast(pa.binary(16), safe=True).to_numpy(False), "S16")
    nibbles = digits.view(np.uint8).reshape(-1, 16).astype(np.int64)
    nibbles = np.where(nibbles >= 97, nibbles - 87, nibbles - 48)
    return nibbles @ (np.int64(1) << (4 * np.arange(15, -1, -1, dtype=np.int64)))


def read_source(texts: Sequence[str], documents: int, seed: int = 1) -> Synthesis:
    """Splits distinct texts at spaces into words; drops words longer than 24 bytes."""
    data = np.frombuffer("\n".join(dict.fromkeys(texts)).encode() + b"\n", np.uint8)
    starts, ends = _split(data)
    return Synthesis(data, starts, ends, documents, seed)


def write_corpus(root: Path, made: Synthesis) -> Storage:
    """Writes the run folder with the finished stage, and the truth next to it (`truth/part-*.parquet`)."""
    (root / "truth").mkdir(parents=True, exist_ok=True)
    rows = min(SHARD_ROWS, -(-made.documents // THREADS))

    def shard(first: int) -> tuple[bytes, int]:
        number, last = first // rows, min(first + rows, made.documents)
        truth = pa.table([pa.array(column) for column in made.truth(first, last)], schema=TRUTH)
        pq.write_table(truth, root / f"truth/part-{number:05d}.parquet")
        return _shard(made, number, first, last), last - first

    with ThreadPoolExecutor(THREADS) as pool:
        return write_upstream(root, _in_order(pool, shard, range(0, made.documents, rows)))


def _in_order(pool: ThreadPoolExecutor, function: Callable[[int], Result], items: Sequence[int]) -> Iterator[Result]:
    """Maps in order, with at most two results for each thread in memory."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) == 2 * THREADS:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _shard(made: Synthesis, number: int, first: int, last: int) -> bytes:
    """Encodes a shard as Parquet, one row group at a time, with less compression than the stages, to save time."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, DOCUMENTS, compression="zstd", compression_level=1, use_dictionary=["source", "timestamp"]) as writer:
        for begin in range(first, last, ROW_GROUP_ROWS):
            index = np.arange(begin, min(begin + ROW_GROUP_ROWS, last))
            numbers = pa.array(index).cast(pa.string())
            columns = {
                "id": made.ids(begin, begin + len(index)),
                "url": pc.binary_join_element_wise("https://www.example.org/pages", numbers, "/"),
                "timestamp": pa.repeat("2026-01-15T12:00:00Z", len(index)),
                "source": pa.repeat(f"crawl-{number:05d}.warc.gz", len(index)),
                "offset": pa.array(index * 4096),
                "length": pa.repeat(pa.scalar(4096, pa.int64()), len(index)),
                "text": made.texts(index),
            }
            rows = [columns.get(field.name, pa.nulls(len(index), field.type)) for field in DOCUMENTS]
            writer.write_table(pa.table(rows, schema=DOCUMENTS), row_group_size=ROW_GROUP_ROWS)
    content: bytes = sink.getvalue().to_pybytes()
    return content


# ---- kernels -------------------------------------------------------------------------------------------


@kernel
def _split(data):
    """Returns `(starts, ends)` of the words."""
    starts, ends = np.empty(len(data) // 2 + 1, np.int64), np.empty(len(data) // 2 + 1, np.int64)
    count = begin = 0
    for i in range(len(data)):
        if data[i] <= 32:
            if 0 < i - begin <= LONGEST_WORD:
                starts[count], ends[count] = begin, i
                count += 1
            begin = i + 1
    return starts[:count].copy(), ends[:count].copy()


@kernel
def _key(seed, purpose, number):
    return mix64(mix64(np.uint64(seed) * np.uint64(64) + np.uint64(purpose)) + np.uint64(number) * np.uint64(0x9E3779B97F4A7C15))


@kernel
def _uniform(key, draw):
    """Returns draw number `draw` of a key, uniform in [0, 1)."""
    return np.float64(mix64(key + np.uint64(draw) * np.uint64(0xD1342543DE82EF95)) >> np.uint64(11)) * 2.0**-53


@kernel
def _kind(document, seed):
    u = _uniform(_key(seed, 0, document), 0)
    if u < NEAR_SHARE:
        return NEAR
    if u < NEAR_SHARE + EXACT_SHARE:
        return EXACT
    if u < NEAR_SHARE + EXACT_SHARE + PAGE_SHARE:
        return PAGE
    return TEMPLATE if u < NEAR_SHARE + EXACT_SHARE + PAGE_SHARE + TEMPLATE_SHARE else FRESH


@kernel
def _truth(document, documents, seed):
    """Returns `(kind, base)`; the originals of copies are fresh documents from anywhere in the corpus."""
    kind, key, draw = _kind(document, seed), _key(seed, 1, document), 0
    if kind == PAGE:
        return kind, documents
    base = document
    while kind in (NEAR, EXACT) and (draw == 0 or _kind(base, seed) != FRESH):
        base = np.int64(_uniform(key, draw) * documents)
        draw += 1
    return kind, base


@kernel
def _truths(first, last, documents, seed):
    kinds, bases = np.empty(last - first, np.int8), np.empty(last - first, np.int64)
    for document in range(first, last):
        kinds[document - first], bases[document - first] = _truth(document, documents, seed)
    return kinds, bases


@kernel
def _passages(key, size, starts, ends, words, count):
    """Appends passages of at least `size` bytes in total to `words` (places in the source); returns the new number of words."""
    draw = 2
    while size > 0:
        begin = np.int64(_uniform(key, draw) * (len(starts) - 18))
        length = 6 + np.int64(_uniform(key, draw + 1) * 13)
        draw += 2
        for w in range(begin, begin + length):
            words[count] = w
            count += 1
            size -= ends[w] - starts[w] + 1
    return count


@kernel
def _text_size(key):
    """Draws the size of a text in bytes: log-normal, median 800."""
    normal = np.sqrt(-2 * np.log(1 - _uniform(key, 0))) * np.cos(2 * np.pi * _uniform(key, 1))
    return min(max(800 * np.exp(0.7 * normal), 300), 5000)


@kernel
def _edit(key, words, count, source):
    """Edits `words[:count]` in place to about the drawn similarity; returns the new number of words."""
    similar = LEAST_SIMILAR + (1 - LEAST_SIMILAR) * _uniform(key, 0)
    if _uniform(key, 1) < 0.5:  # leaves out a passage
        cut = np.int64(round((1 - similar) * count))
        begin = np.int64(_uniform(key, 2) * (count - cut + 1))
        words[begin : count - cut] = words[begin + cut : count].copy()
        return count - cut
    rate = 1 - (2 * similar / (1 + similar)) ** 0.2  # a 5-gram survives only if all of its words do
    for w in range(count):
        if _uniform(key, 2 * w + 3) < rate:
            words[w] = np.int64(_uniform(key, 2 * w + 4) * source)
    return count


@kernel
def _words(document, documents, seed, templates, starts, ends, words):
    """Writes the document's places in the source to `words`; returns their number."""
    kind, base = _truth(document, documents, seed)
    if kind == TEMPLATE:
        template = np.int64(_uniform(_key(seed, 2, document), 0) * templates)
        key = _key(seed, 3, documents + 1 + template)
        similar = 0.4 + 0.15 * _uniform(key, 0)  # so low that one passage drawn by both does not make two documents copies
        half = _passages(key, TEMPLATE_BYTES // 2, starts, ends, words, 0)
        own = _passages(_key(seed, 3, document), TEMPLATE_BYTES * (1 - similar) / (2 * similar), starts, ends, words, half)
        return _passages(_key(seed, 4, documents + 1 + template), TEMPLATE_BYTES // 2, starts, ends, words, own)
    key = _key(seed, 3, base)
    count = _passages(key, _text_size(key), starts, ends, words, 0)
    return _edit(_key(seed, 5, document), words, count, len(starts)) if kind == NEAR else count


@kernel
def _write_texts(index, documents, seed, templates, data, starts, ends, out, offsets):
    words = np.empty(LONGEST_TEXT, np.int64)
    place = 0
    for d in range(len(index)):
        count = _words(index[d], documents, seed, templates, starts, ends, words)
        begin = 0
        while begin < count:  # copies neighbouring words of the source at once, with the bytes between them
            last = begin
            while last + 1 < count and words[last + 1] == words[last] + 1 and starts[words[last + 1]] == ends[words[last]] + 1:
                last += 1
            size = ends[words[last]] - starts[words[begin]]
            out[place : place + size] = data[starts[words[begin]] : ends[words[last]]]
            out[place + size] = 32
            place += size + 1
            begin = last + 1
        place -= 1 if count else 0
        offsets[d + 1] = place


@kernel
def _write_ids(first, seed, out):
    for d in range(len(out)):
        for half, value in enumerate((_key(seed, 6, first + d), np.uint64(first + d))):
            for digit in range(16):
                nibble = np.uint8((value >> np.uint64(60 - 4 * digit)) & np.uint64(15))
                out[d, half * 16 + digit] = nibble + 48 if nibble < 10 else nibble + 87
