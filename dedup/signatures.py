"""The first phase: what is to be known of each document to find its copies, without its text."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpusmill.dedup.config import DedupConfig
from corpusmill.dedup.minhash import band_keys
from corpusmill.dedup.normalise import HASH_BYTES, exact_hashes
from corpusmill.dedup.shingles import Shingler
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.shards import open_parquet
from corpusmill.pipeline.stage import Output, Piece, Worker
from corpusmill.pipeline.text.buffers import text_buffers

#: What the phase takes over from the documents, to order the copies and to name them.
TAKEN = ("id", "source", "offset", "timestamp")

#: Rows in a row group of signatures: one band of them is half a megabyte.
ROW_GROUP_ROWS = 65_536


def band_column(band: int) -> str:
    return f"band_{band:03d}"


def signature_schema(bands: int, rows: int, bits: int) -> pa.Schema:
    """One row a document, in the order of its shard. Where `near` is false signature and bands mean nothing."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("offset", pa.int64()),
            pa.field("timestamp", pa.string()),
            pa.field("quality", pa.float64()),  # null where the policy does not need it
            pa.field("chars", pa.int64(), nullable=False),
            pa.field("words", pa.int64(), nullable=False),
            pa.field("near", pa.bool_(), nullable=False),
            pa.field("exact", pa.binary(HASH_BYTES), nullable=False),
            pa.field("signature", pa.binary(bands * rows * bits // 8), nullable=False),
            *(pa.field(band_column(band), pa.uint64(), nullable=False) for band in range(bands)),
        ]
    )


def fixed_binary(column: pa.ChunkedArray | pa.Array, dtype: np.dtype) -> np.ndarray:
    """A fixed-size binary column as a matrix of `dtype`, one row a value, without a copy where it is one chunk."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    width = array.type.byte_width
    places = width // dtype.itemsize
    if not len(array):
        return np.zeros((0, places), dtype)
    view = np.frombuffer(array.buffers()[1], np.uint8)[array.offset * width : (array.offset + len(array)) * width]
    return view.view(dtype).reshape(len(array), places)


def to_fixed_binary(matrix: np.ndarray) -> pa.Array:
    """A matrix as a fixed-size binary column, one value a row."""
    width = matrix.shape[1] * matrix.itemsize
    data = pa.py_buffer(np.ascontiguousarray(matrix).tobytes())
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(matrix), [None, data])


def parquet_bytes(table: pa.Table) -> bytes:
    """A signature table as Parquet that spends no time on compressing hashes."""
    hashes = [field.name for field in table.schema if field.name in ("exact", "signature") or pa.types.is_uint64(field.type)]
    others = [name for name in table.schema.names if name not in hashes]
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.combine_chunks(),
        sink,
        row_group_size=ROW_GROUP_ROWS,
        compression={name: "none" if name in hashes else "zstd" for name in table.schema.names},
        use_dictionary=others,
        write_statistics=False,
    )
    return sink.getvalue().to_pybytes()


class SignatureWorker(Worker):
    """One shard of documents to one shard of signatures. `params`: `bands`, `rows`."""

    config: DedupConfig

    def setup(self) -> None:
        minhash = self.config.minhash
        self.bands, self.rows = int(self.params["bands"]), int(self.params["rows"])
        self.shingler = Shingler(minhash)
        self.shingler.setup()
        self.schema = signature_schema(self.bands, self.rows, minhash.bits)

    def process(self, piece: Piece) -> Output:
        path = piece.inputs[0].path
        quality = self.config.quality_column if self.config.keep == "quality" else None
        tables = []
        size = 0
        with open_parquet(self.run, path) as file:
            require_columns(self.run.path(path), file.schema_arrow.names, [*TAKEN, "text", *([quality] if quality else [])])
            for group in range(file.num_row_groups):
                batch = file.read_row_group(group, columns=[*TAKEN, "text", *([quality] if quality else [])], use_threads=False)
                data, offsets = text_buffers(batch["text"])
                size += int(offsets[-1] - offsets[0])
                tables.append(self._measure(batch, data, offsets, quality))
        table = pa.concat_tables(tables) if tables else self.schema.empty_table()
        return Output({f"{piece.key}.parquet": parquet_bytes(table)}, rows_in=table.num_rows, kept=table.num_rows, bytes_in=size)

    def _measure(self, batch: pa.Table, data: np.ndarray, offsets: np.ndarray, quality: str | None) -> pa.Table:
        signature, shingles = self.shingler.signatures(data, offsets)
        exact = exact_hashes(data, offsets, self.config.exact.normalisation)
        keys = band_keys(signature, self.bands, self.rows)
        columns = {
            "id": batch["id"],
            "source": batch["source"],
            "offset": batch["offset"],
            "timestamp": batch["timestamp"],
            "quality": batch[quality] if quality else pa.nulls(batch.num_rows, pa.float64()),
            "chars": pc.utf8_length(batch["text"]),
            "words": shingles,
            "near": shingles > 0,
            "exact": to_fixed_binary(np.frombuffer(exact, np.uint8).reshape(-1, HASH_BYTES)),
            "signature": to_fixed_binary(signature),
            **{band_column(band): keys[band] for band in range(self.bands)},
        }
        return pa.table([_column(columns[field.name], field) for field in self.schema], schema=self.schema)


def _column(values: pa.ChunkedArray | pa.Array | np.ndarray, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    return pa.array(values, field.type) if isinstance(values, np.ndarray) else values.cast(field.type)


def require_columns(path: str, present: Sequence[str], needed: Sequence[str]) -> None:
    """Raises InputError where a shard lacks a column."""
    missing = [name for name in needed if name not in present]
    if missing:
        raise InputError(f"{path}: has no column {missing[0]!r}, which dedup needs.")
