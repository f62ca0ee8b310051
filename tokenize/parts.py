# mypy: disallow-untyped-defs=False
"""Encoded parts: the tokens of one shard of documents, already in the order in which they will be shuffled.

Each part has a table with a row per document in the same order, so a range of the global order is one contiguous run of rows and tokens in
every part. The table is an Arrow file in batches of `ROWS`, of which a task reads the few that it needs.
"""

import math
from collections.abc import Iterable, Sequence
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
from corpusmill.pipeline.shards import batches_buffer, open_batches
from corpusmill.pipeline.special_tokens import END_OF_TEXT
from corpusmill.pipeline.storage import Storage
from corpusmill.tokenize.documents import buckets, checked, hashes
from corpusmill.tokenize.encode import Encoder

#: `first` counts tokens within the part; documents without text have no tokens. `order` is the place in the global order, `group` decides
#: the split, `pick` (a bucket of `chance`) whether a mixture takes a document once more. `data_row` is the row in the shard of documents;
#: a document that a split by place cuts has two rows here, and `text_begin` says from which byte of its text on each is.
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
#: Columns of documents that a part is made of; `OPTIONAL` only where a stage has made them (dedup, the language filter).
NEEDED = ("id", "url", "source", "offset", "length", "text")
OPTIONAL = ("cluster_id", "language")
ROWS = 4096
SPACE = 1 << 64

Index = npt.NDArray[np.int64]


class EncodeConfig(Config):
    """The options that an encoded part depends on, beside documents and tokenizer."""

    shuffle: bool = Field(True, description="Whether documents are shuffled over all shards, or stay in the order of their files.")
    seed: int = Field(0, ge=0, lt=1 << 32, description="Decides the shuffled order and which documents are for validation.")
    end_of_text: str = Field(
        END_OF_TEXT, min_length=1, description="The special token after each document; tokenizers from elsewhere have others."
    )


@dataclass(frozen=True)
class DocumentOrder:
    """How documents are ordered and split: by hashes with `seed`, or (where `shuffle` is off) as they come.

    `number` of `pieces` is the place of a shard of documents among all of them. Where documents are split by their place, its first
    `training_characters` are for training.
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
        step = min(share // max(len(ids), 1), SPACE - 1)  # of a single document in all, which stands at 0
        return np.uint64(self.number * share) + np.arange(len(ids), dtype=np.uint64) * np.uint64(step)

    def groups(self, rows: pa.Table) -> npt.NDArray[np.uint64]:
        """A hash of the cluster of documents that are like each other, or of the id where a document is in none. Split by place there are
        two groups, and the lower one is for validation."""
        if self.training_characters is not None:
            return np.where(rows[HELD_OUT].to_numpy(), np.uint64(0), np.uint64(SPACE - 1))
        return hashes(pc.coalesce(rows["cluster_id"], rows["id"]), 2 * self.seed + 1)

    def picks(self, ids: pa.ChunkedArray) -> npt.NDArray[np.uint16]:
        return buckets(hashes(ids, (1 << 33) + self.seed)).astype(np.uint16)


def end_of_text_id(encoder: Encoder, token: str, path: str) -> int:
    """The id of the token that ends documents. Raises InputError where it is no special token: text could hold it."""
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
    """The tokens of one shard of documents, `end` after each that has text, and its table (schema PART), both in the global order.

    `tables` are read one after the other, and no text is held longer than its table. Raises InputError where a document has no id or
    text, or one that is not valid UTF-8; `path` names the shard.
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
        del table, texts  # before the next one is read
    if not begin:
        return np.zeros(0, encoder.dtype), PART.empty_table()
    rows = pa.concat_tables(described)
    counts = np.concatenate([counts for _, counts in encoded])
    order = ordering.orders(rows["id"])
    at = np.argsort(order, kind="stable")
    firsts = np.empty(len(at), np.int64)
    firsts[at] = np.cumsum(counts[at]) - counts[at]
    tokens = _in_order(encoded, firsts, encoder.dtype)
    second = rows[TEXT_BEGIN].to_numpy() > 0  # of the two rows of a document
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


def _in_order(encoded: list[Any], firsts: Index, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """All documents' tokens, each at its place. `encoded` (tokens and their numbers by table) is emptied: what is copied is freed."""
    tokens, begin = np.empty(sum(len(ids) for ids, _ in encoded), dtype), 0
    encoded.reverse()
    while encoded:
        ids, counts = encoded.pop()
        copy_spans(ids, np.cumsum(counts) - counts, counts, firsts[begin : begin + len(counts)], tokens)
        begin += len(counts)
    return tokens


def part_buffer(table: pa.Table) -> pa.Buffer:
    """A part's table as a file."""
    return batches_buffer(PART, [table.slice(begin, ROWS) for begin in range(0, table.num_rows, ROWS)])


def read_part(storage: Storage, path: str, columns: list[str]) -> pa.Table:
    """Some columns of a part's table, mapped into memory where it is local."""
    with open_batches(storage, path) as reader:
        batches = [reader.get_batch(number).select(columns) for number in range(reader.num_record_batches)]
    return pa.Table.from_batches(batches, pa.schema([PART.field(name) for name in columns]))


def take_rows(storage: Storage, path: str, rows: Index, columns: list[str]) -> pa.Table:
    """Some columns of some rows of a part's table, in the order of `rows`; batches before the first and behind the last are not read."""
    low, high = int(rows.min()) // ROWS, int(rows.max()) // ROWS
    with open_batches(storage, path) as reader:
        batches = [reader.get_batch(number).select(columns) for number in range(low, high + 1)]
        return pa.Table.from_batches(batches).take(pa.array(rows - low * ROWS))


# ---- a split by place ------------------------------------------------------------------------------------


#: Columns that `cut_table` adds: the UTF-8 bytes of the document's text before the row's, and whether it is for validation.
TEXT_BEGIN, HELD_OUT = "text_begin", "held_out"


def training_characters(characters: Sequence[int], tail: float) -> list[int]:
    """How many characters of each shard of documents are for training: all together `total * (1 - tail)`, rounded down.

    Of two characters or more, at least one is for training and one for validation.
    """
    total = sum(characters)
    border = max(total - max(math.ceil(total * Fraction(str(tail))), 1), min(total, 1))  # in decimals, as the share was written
    found = []
    for count in characters:
        found.append(min(count, border))
        border -= found[-1]
    return found


def cut_table(table: pa.Table, characters: int) -> pa.Table:
    """The documents of a table with the columns TEXT_BEGIN and HELD_OUT: what lies behind the first `characters` characters is held out.

    The document in which the border lies has two rows, whose texts together are its text.
    """
    texts = table["text"]
    ends = np.cumsum(pc.utf8_length(texts).to_numpy().astype(np.int64))
    row = int(np.searchsorted(ends, characters, "right"))  # the first with a character behind the border
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
    """Puts `source[firsts[i] : firsts[i] + counts[i]]` at `out[places[i]]` for every i."""
    for span in range(len(firsts)):
        first, place = firsts[span], places[span]
        for token in range(counts[span]):
            out[place + token] = source[first + token]
