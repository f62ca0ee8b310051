# mypy: disallow-untyped-defs=False
"""Encoded parts: the tokens of one shard of documents, already in the global (shuffled) order.

A part has a table with one row per document, in the same order, so a range of the global order is one contiguous run of rows and of tokens
in every part. The table is an Arrow file in batches of `ROWS`, so a task reads only the batches that it needs.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.shards import batches_buffer, batches_stream, open_batches
from corpusmill.pipeline.special_tokens import END_OF_TEXT
from corpusmill.pipeline.storage import Storage
from corpusmill.tokenize.documents import buckets, checked, hashes
from corpusmill.tokenize.encode import Encoder

#: `first`: the document's first token, counted within the part; documents without text have no tokens. `order`: the place in the global
#: order. `group` decides the split. `pick`, a bucket of `documents.buckets`, decides whether a mixture takes the document once more.
#: `data_row`: the row in the shard of documents. With `validation_tail`, the last characters in file order are for validation: the document
#: that this cuts has two rows, and `text_begin` is the byte of its text where a row's part begins.
PART = pa.schema(
    [
        pa.field("order", pa.uint64(), nullable=False),
        pa.field("group", pa.uint64(), nullable=False),
        pa.field("pick", pa.uint16(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("source", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("length", pa.int64()),
        pa.field("cluster_id", pa.string()),
        pa.field("language", pa.string()),
        pa.field("data_row", pa.int64(), nullable=False),
        pa.field("text_begin", pa.int64(), nullable=False),
        pa.field("chars", pa.int64(), nullable=False),
        pa.field("utf8_bytes", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("first", pa.int64(), nullable=False),
    ]
)
#: Columns of documents that a part is made from. The OPTIONAL ones exist only where a stage made them (dedup, the language filter).
NEEDED = ("id", "url", "source", "offset", "length", "text")
OPTIONAL = ("cluster_id", "language")
ROWS = 4096
#: Tokens in a batch of a part's tokens.
TOKENS = 1 << 16
SPACE = 1 << 64

Integers = npt.NDArray[np.int64]


class EncodeConfig(Config):
    """The options on which an encoded part depends, beside its documents and the tokenizer."""

    shuffle: bool = Field(True, description="Whether documents are shuffled over all shards, or stay in the order of their files.")
    seed: int = Field(0, ge=0, lt=1 << 32, description="Decides the shuffled order and which documents are for validation.")
    end_of_text: str = Field(
        END_OF_TEXT, min_length=1, description="The special token after each document; tokenizers from elsewhere have others."
    )


@dataclass(frozen=True)
class DocumentOrder:
    """How documents are ordered and split: by hashes with `seed` or, without `shuffle`, in file order.

    `number` and `pieces`: the number of a shard of documents, and the count of all shards. With `validation_tail`, the shard's first
    `training_characters` characters are for training.
    """

    seed: int
    shuffle: bool
    number: int = 0
    pieces: int = 1
    training_characters: int | None = None

    def orders(self, ids: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
        if self.shuffle:
            return hashes(ids, 2 * self.seed)
        share = SPACE // self.pieces
        step = min(share // max(len(ids), 1), SPACE - 1)  # the limit matters for a single document in all, whose order is 0
        return np.uint64(self.number * share) + np.arange(len(ids), dtype=np.uint64) * np.uint64(step)

    def groups(self, rows: pa.Table) -> npt.NDArray[np.uint64]:
        """Returns a hash for each row, which decides its split: the hash of its cluster of near copies or, without one, of its id. Where
        documents are split by place, there are two values; the lower one is for validation."""
        if self.training_characters is not None:
            return np.where(rows[HELD_OUT].to_numpy(), np.uint64(0), np.uint64(SPACE - 1))
        return hashes(pc.coalesce(rows["cluster_id"], rows["id"]), 2 * self.seed + 1)

    def picks(self, ids: pa.ChunkedArray) -> npt.NDArray[np.uint16]:
        return buckets(hashes(ids, (1 << 33) + self.seed)).astype(np.uint16)


def end_of_text_id(encoder: Encoder, token: str, path: str) -> int:
    """Returns the id of the token that ends documents. Raises InputError if it is not a special token, as text could then hold it."""
    special = encoder.vocabulary.special
    if token not in special:
        there = ", ".join(map(repr, sorted(special)[:8])) or "none"
        raise InputError(
            f"{path}: this tokenizer has no special token {token!r} to end documents with (tokens.end_of_text; it has {there})."
        )
    return special[token]


def encode_part(
    encoder: Encoder, end: int, tables: Iterable[pa.Table], path: str, ordering: DocumentOrder
) -> tuple[npt.NDArray[Any], pa.Table]:
    """Returns the tokens of one shard of documents, and its table (schema PART), both in the global order. `end` follows each document that
    has text.

    Reads `tables` one after the other and frees each text with its table. Raises InputError if a document lacks an id or text, or its
    text is not valid UTF-8; `path` names the shard.
    """
    encoded, described, begin, left = [], [], 0, ordering.training_characters
    for table in tables:
        table, rows = checked(table, path, begin), table.num_rows
        if left is not None:
            table = cut_table(table, left)
        texts = table["text"]
        try:
            encoded.append(encoder.encode_column(texts, end))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        described.append(_describe(table, texts))
        begin += rows
        left = None if left is None else max(left - (pc.sum(described[-1]["chars"]).as_py() or 0), 0)
        del table, texts  # frees them before the next table is read
    if not begin:
        return np.zeros(0, encoder.dtype), PART.empty_table()
    rows = pa.concat_tables(described)
    counts = np.concatenate([counts for _, counts in encoded])
    order = ordering.orders(rows["id"])
    at = np.argsort(order, kind="stable")
    firsts = np.empty(len(at), np.int64)
    firsts[at] = np.cumsum(counts[at]) - counts[at]
    tokens = _in_order(encoded, firsts, encoder.dtype)
    second = rows[TEXT_BEGIN].to_numpy() > 0  # the second row of a document that was cut
    columns = {
        "order": order, "group": ordering.groups(rows), "pick": ordering.picks(rows["id"]),
        "data_row": np.arange(len(at)) - np.cumsum(second), "tokens": counts, "first": firsts,
    }  # fmt: skip
    for name, values in columns.items():
        rows = rows.append_column(name, pa.array(values))
    return tokens, rows.select(PART.names).cast(PART).take(pa.array(at))


def _describe(table: pa.Table, texts: pa.ChunkedArray) -> pa.Table:
    described = table.drop_columns(["text"])
    for name in OPTIONAL:
        if name not in table.column_names:
            described = described.append_column(name, pa.nulls(table.num_rows, pa.string()))
    if TEXT_BEGIN not in table.column_names:
        described = described.append_column(TEXT_BEGIN, pa.array(np.zeros(table.num_rows, np.int64)))
    described = described.append_column("chars", pc.utf8_length(texts).cast(pa.int64()))
    return described.append_column("utf8_bytes", pc.binary_length(texts).cast(pa.int64()))


def _in_order(encoded: list[Any], firsts: Integers, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Returns the tokens of all documents, each at its place. `encoded`: `(tokens, counts)` by table; entries are freed once copied."""
    tokens, begin = np.empty(sum(len(ids) for ids, _ in encoded), dtype), 0
    encoded.reverse()
    while encoded:
        ids, counts = encoded.pop()
        copy_spans(ids, np.cumsum(counts) - counts, counts, firsts[begin : begin + len(counts)], tokens)
        begin += len(counts)
    return tokens


def part_buffer(table: pa.Table) -> pa.Buffer:
    """Returns a part's table as the content of an Arrow file."""
    return batches_buffer(PART, [table.slice(begin, ROWS) for begin in range(0, table.num_rows, ROWS)])


def tokens_content(tokens: npt.NDArray[Any]) -> Iterator[Any]:
    """Yields a part's tokens as the content of an Arrow file, in batches of TOKENS."""
    column = pa.array(tokens)
    tables = (pa.table({"tokens": column.slice(begin, TOKENS)}) for begin in range(0, len(column), TOKENS))
    return batches_stream(pa.schema([pa.field("tokens", column.type)]), tables)


def read_tokens(storage: Storage, path: str, dtype: np.dtype[Any], low: int, high: int) -> npt.NDArray[Any]:
    """Reads tokens `low` to `high` of a part, by whole batches."""
    first = low // TOKENS
    with open_batches(storage, path) as reader:
        batches = [reader.get_batch(number)["tokens"].to_numpy() for number in range(first, -(-high // TOKENS))]
        found: npt.NDArray[Any] = np.concatenate([np.zeros(0, dtype), *batches])[low - first * TOKENS : high - first * TOKENS]
    return found


def read_part(storage: Storage, path: str, columns: list[str]) -> pa.Table:
    """Reads some columns of a part's table; a local file is mapped into memory."""
    with open_batches(storage, path) as reader:
        batches = [reader.get_batch(number).select(columns) for number in range(reader.num_record_batches)]
    return pa.Table.from_batches(batches, pa.schema([PART.field(name) for name in columns]))


def take_rows(storage: Storage, path: str, rows: Integers, columns: list[str]) -> pa.Table:
    """Reads some columns of these rows of a part's table, in the order of `rows`; skips batches before the first and after the last row."""
    low, high = int(rows.min()) // ROWS, int(rows.max()) // ROWS
    with open_batches(storage, path) as reader:
        batches = [reader.get_batch(number).select(columns) for number in range(low, high + 1)]
        return pa.Table.from_batches(batches).take(pa.array(rows - low * ROWS))


# ---- a split by place ------------------------------------------------------------------------------------


#: Columns that `cut_table` adds: where a row's part of the document's text begins (UTF-8 bytes), and whether it is for validation.
TEXT_BEGIN, HELD_OUT = "text_begin", "held_out"


def training_characters(characters: Sequence[int], tail: float) -> list[int]:
    """Returns the number of training characters of each shard of documents: in all `total * (1 - tail)`, rounded down.

    Where there are two characters or more, each split gets at least one.
    """
    total = sum(characters)
    border = max(total - max(math.ceil(total * Fraction(str(tail))), 1), min(total, 1))  # exact: the share as the decimal that was written
    found = []
    for count in characters:
        found.append(min(count, border))
        border -= found[-1]
    return found


def cut_table(table: pa.Table, characters: int) -> pa.Table:
    """Adds TEXT_BEGIN and HELD_OUT to a table of documents: text after the first `characters` characters is held out.

    The document in which the border lies becomes two rows, whose texts together are its text.
    """
    texts = table["text"]
    ends = np.cumsum(pc.utf8_length(texts).to_numpy().astype(np.int64))
    row = int(np.searchsorted(ends, characters, "right"))  # the first document with a character after the border
    inside = characters - (int(ends[row - 1]) if row else 0)
    begins = np.zeros(table.num_rows, np.int64)
    if row < table.num_rows and inside > 0:
        text = texts[row].as_py()
        parts = pa.array([text[:inside], text[inside:]], texts.type)
        document = table.slice(row, 1)
        both = pa.concat_tables([document, document]).set_column(table.column_names.index("text"), table.schema.field("text"), parts)
        table = pa.concat_tables([table.slice(0, row), both, table.slice(row + 1)])
        row += 1
        begins = np.insert(begins, row, len(text[:inside].encode()))
    return table.append_column(TEXT_BEGIN, pa.array(begins)).append_column(HELD_OUT, pa.array(np.arange(table.num_rows) >= row))


@kernel
def copy_spans(source, firsts, counts, places, out):
    """Copies `source[firsts[i] : firsts[i] + counts[i]]` to `out[places[i]:]` for every i."""
    for span in range(len(firsts)):
        first, place = firsts[span], places[span]
        for token in range(counts[span]):
            out[place + token] = source[first + token]
