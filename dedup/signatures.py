"""The first phase: measures each document (hashes, MinHash signature, counts), and writes its keys. Copies have equal keys."""

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from corpusmill.dedup.config import DedupConfig, ExactForm, MeasureConfig
from corpusmill.dedup.corpus import MeasuredShard, shard_key
from corpusmill.dedup.external_sort import BAND_KEYS, EXACT_KEYS, URL_KEYS, keys_bytes
from corpusmill.dedup.normalise import HASH_BYTES, exact_hashes
from corpusmill.dedup.policy import policy_columns
from corpusmill.dedup.shingles import Shingler, band_keys, band_shape
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.schemas import hosts
from corpusmill.pipeline.shards import PART_BYTES, iter_tables, open_parquet
from corpusmill.pipeline.stage import Output, Task, Worker
from corpusmill.text.buffers import text_buffers

#: Columns that the phase copies from the documents, because later phases order and name copies by them.
TAKEN = ("id", "source", "offset", "timestamp")
#: The column by which removals are counted; `host` comes from the URL.
BY = "by"
HOST = "host"

#: Rows in a row group of signatures.
ROW_GROUP_ROWS = 65_536
_U64 = np.dtype(np.uint64)


def signature_schema(places: int, bits: int, more: Sequence[pa.Field] = ()) -> pa.Schema:
    """Returns the schema of a shard of signatures: one row for each document, in the order of its shard.

    A signature has `places` minima of `bits` bits; with 0 places there is no such column. Where `shingles` is 0, a signature means nothing.
    """
    signature = [pa.field("signature", pa.binary(places * bits // 8), nullable=False)] if places else []
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("offset", pa.int64()),
            pa.field("timestamp", pa.string()),
            pa.field("chars", pa.int64(), nullable=False),
            pa.field("shingles", pa.int64(), nullable=False),
            pa.field("exact", pa.binary(HASH_BYTES), nullable=False),
            pa.field("url", pa.binary(HASH_BYTES)),  # null without a URL, or where URLs are not compared
            *signature,
            pa.field(BY, pa.string()),  # null where removals are counted by `source`
            *more,
        ]
    )


def fixed_binary(column: pa.ChunkedArray | pa.Array, dtype: np.dtype) -> np.ndarray:
    """Returns a fixed-size binary column as a matrix of `dtype`, one row for each value. A single chunk is not copied."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    width = array.type.byte_width
    places = width // dtype.itemsize
    if not len(array) or not width:
        return np.zeros((len(array), places), dtype)
    view = np.frombuffer(array.buffers()[1], np.uint8)[array.offset * width : (array.offset + len(array)) * width]
    return view.view(dtype).reshape(len(array), places)


def to_fixed_binary(matrix: np.ndarray) -> pa.Array:
    """Returns a matrix as a fixed-size binary column, one value for each row."""
    width = matrix.shape[1] * matrix.itemsize
    data = pa.py_buffer(np.ascontiguousarray(matrix).tobytes())
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(matrix), [None, data])


def parquet_bytes(table: pa.Table) -> bytes:
    """Returns a table of signatures as a Parquet file. Hashes are not compressed."""
    hashes = [field.name for field in table.schema if pa.types.is_fixed_size_binary(field.type)]
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.combine_chunks(),
        sink,
        row_group_size=ROW_GROUP_ROWS,
        compression={name: "none" if name in hashes else "zstd" for name in table.schema.names},
        use_dictionary=["source", BY],
        write_statistics=False,
    )
    return sink.getvalue().to_pybytes()


def key_kinds(config: MeasureConfig) -> dict[str, int]:
    """Returns the kinds of keys that a configuration needs, with the number of keys of that kind for each document."""
    enabled = {EXACT_KEYS: config.exact.enabled, URL_KEYS: config.url.enabled, BAND_KEYS: config.minhash.enabled}
    return {kind: band_shape(config.minhash)[0] if kind == BAND_KEYS else 1 for kind, on in enabled.items() if on}


def read_columns(config: MeasureConfig, by: str, more: Sequence[str]) -> list[str]:
    """Returns the columns of documents that are measured. `by`: by what removals are counted; `more`: the columns that policies compare."""
    url = ["url"] if config.url.enabled or by == HOST else []
    return list(dict.fromkeys([*TAKEN, "text", *url, *([by] if by not in ("source", HOST) else []), *more]))


def find_signatures(run: StageRun, config: DedupConfig) -> list[MeasuredShard]:
    """Runs the phase; returns this run's shards with the files of their measurements."""
    return measured(run, config, run.documents(), "signatures")


def measured(run: StageRun, config: DedupConfig, documents: Sequence[FileRef], phase: str) -> list[MeasuredShard]:
    """Measures shards of documents, a task each."""
    kinds = list(key_kinds(config))
    bands, rows = band_shape(config.minhash)
    params = {"bands": bands, "rows": rows, "kinds": kinds, "by": config.by, "columns": policy_columns(config)}
    names = [shard_key(ref.path) for ref in documents]
    tasks = [Task(f"signatures/{name}", (ref,)) for name, ref in zip(names, documents, strict=True)]
    done = run.map(phase, SignatureWorker, tasks, params, config.part(MeasureConfig))
    return [
        MeasuredShard(
            name, row.rows_in, ref, row.ref("dedup", f"signatures/{name}.parquet"),
            {kind: row.ref("dedup", f"keys/{name}.{kind}.arrow") for kind in kinds},
        )
        for name, ref, row in zip(names, documents, done, strict=True)
    ]  # fmt: skip


class SignatureWorker(Worker):
    """Measures one shard of documents; writes a shard of signatures and a file for each kind of keys.

    `params`: `bands`, `rows` (minima in a band), `kinds` (of keys), `by` (as in the configuration), and `columns` (those that the policies
    compare, besides `TAKEN`).
    """

    memory_mb = 600
    config: MeasureConfig

    def setup(self) -> None:
        self.shingler = Shingler(self.config.minhash)
        if self.config.minhash.enabled:
            self.shingler.setup()
        self.bands, self.rows = int(self.params["bands"]), int(self.params["rows"])
        self.columns = read_columns(self.config, self.params["by"], self.params["columns"])

    def process(self, task: Task) -> Output:
        path = task.inputs[0].path
        tables, bands, texts, size = [], [np.zeros((self.bands, 0), np.uint64)], [np.zeros(0, np.uint64)], 0
        with open_parquet(self.run, path) as file:
            require_columns(self.run.path(path), file.schema_arrow.names, self.columns)
            more = [file.schema_arrow.field(name).with_nullable(True).remove_metadata() for name in self.params["columns"]]
            schema = signature_schema(self.bands * self.rows, self.config.minhash.bits, more)
        for batch in iter_tables(self.run, path, self.columns, part_bytes=PART_BYTES):
            data, offsets = text_buffers(batch["text"])
            signature, shingles = self._signatures(data, offsets)
            exact = _hashes(data, offsets, self.config.exact.normalisation)
            bands.append(band_keys(signature, self.bands, self.rows))
            texts.append((exact if self.config.copies_share_shingles else _hashes(data, offsets, "none"))[:, 0])
            tables.append(self._table(batch, signature, shingles, exact, schema))
            size += int(offsets[-1] - offsets[0])
        table = pa.concat_tables([schema.empty_table(), *tables])
        files: dict[str, bytes] = {f"{task.key}.parquet": parquet_bytes(table)}
        for kind, content in self._keys(table, np.concatenate(bands, axis=1), np.concatenate(texts)):
            files[f"{task.key.replace('signatures', 'keys', 1)}.{kind}.arrow"] = content
        return Output(dict(files), rows_in=table.num_rows, kept=table.num_rows, bytes_in=size)

    def _signatures(self, data: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.config.minhash.enabled:
            signature, shingles = self.shingler.signatures(data, offsets)
            return signature, shingles
        return np.zeros((len(offsets) - 1, 0), np.uint32), np.zeros(len(offsets) - 1, np.int64)

    def _table(self, batch: pa.Table, signature: np.ndarray, shingles: np.ndarray, exact: np.ndarray, schema: pa.Schema) -> pa.Table:
        columns = {
            **{name: batch[name] for name in (*TAKEN, *self.params["columns"])},
            "chars": pc.utf8_length(batch["text"]),
            "shingles": pa.array(shingles),
            "exact": to_fixed_binary(exact),
            "url": _url_hashes(batch["url"], self.config.url.normalisation) if self.config.url.enabled else pa.nulls(batch.num_rows),
            "signature": to_fixed_binary(signature),
            BY: _by(batch, self.params["by"]),
        }
        return pa.table([columns[field.name].cast(field.type) for field in schema], schema=schema)

    def _keys(self, table: pa.Table, bands: np.ndarray, texts: np.ndarray) -> Iterator[tuple[str, bytes]]:
        """Yields `(kind, content)` of the shard's key files.

        `bands`: the band keys, bands x n. `texts`: a hash of each document's text; documents with equal hashes have equal signatures.
        """
        kinds, rows = self.params["kinds"], np.arange(table.num_rows, dtype=np.uint32)
        exact = fixed_binary(table["exact"], _U64)
        if EXACT_KEYS in kinds:
            yield EXACT_KEYS, keys_bytes(exact[:, 0], exact[:, 1], rows)
        if URL_KEYS in kinds:
            have = table["url"].is_valid().to_numpy()
            url = fixed_binary(table["url"], _U64)[have]
            yield URL_KEYS, keys_bytes(url[:, 0], url[:, 1], rows[have])
        if BAND_KEYS in kinds:
            near = np.flatnonzero(table["shingles"].to_numpy())
            repeated = np.tile(texts[near], self.bands), np.tile(rows[near], self.bands)
            yield BAND_KEYS, keys_bytes(bands[:, near].reshape(-1), *repeated)


def _hashes(data: np.ndarray, offsets: np.ndarray, how: ExactForm) -> np.ndarray:
    """Returns the 128-bit hash of each of n texts in their normalised form `how`: n x 2, uint64."""
    return np.frombuffer(exact_hashes(data, offsets, how), np.uint64).reshape(-1, 2)


def _url_hashes(urls: pa.ChunkedArray, how: str) -> pa.Array:
    """Returns the hash of each URL, null if the URL is null or empty."""
    form = normalised_url if how == "syntax" else str
    found = [xxhash.xxh3_128_digest(form(url)) if url and url.strip() else None for url in urls.to_pylist()]
    return pa.array(found, pa.binary(HASH_BYTES))


def _by(batch: pa.Table, by: str) -> pa.Array | pa.ChunkedArray:
    if by == "source":
        return pa.nulls(batch.num_rows)
    if by != HOST:
        return batch[by].cast(pa.string())
    return hosts(batch["url"])


def require_columns(path: str, present: Sequence[str], needed: Sequence[str]) -> None:
    """Raises InputError if a shard lacks a column."""
    missing = [name for name in needed if name not in present]
    if missing:
        raise InputError(f"{path}: has no column {missing[0]!r}, which dedup needs.")


# ---- when two URLs are one address -----------------------------------------------------------------------


DEFAULT_PORTS = {"http": "80", "https": "443", "ftp": "21"}
#: Splits a URL without a fragment into scheme, authority, path and query (RFC 3986, appendix B).
_PARTS = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?://([^/?]*))?([^?]*)(.*)", re.DOTALL)
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PLACE = re.compile(r"(\[[^\]]*\]|[^:]*)(?::([0-9]*))?", re.DOTALL)
#: A percent-escape, unless it follows a broken one (`%` or `%4`): decoding it there could complete the broken escape.
_ESCAPE = re.compile("(?<!%)(?<!%[0-9a-fA-F])%([0-9a-fA-F]{2})")
#: White space and control characters, which URL parsers strip at both ends.
_AROUND = "".join(chr(point) for point in range(0x3001) if point <= 0x20 or chr(point).isspace())


def normalised_url(url: str) -> str:
    """Returns the URL in the normal form of RFC 3986, sections 6.2.2 and 6.2.3, without its fragment. Accepts any text."""
    match = _PARTS.fullmatch(url.partition("#")[0].strip(_AROUND))
    assert match is not None  # all parts are optional
    scheme, authority, path, query = match.groups("")
    scheme, path = scheme.lower(), _escapes(path)
    if match[2] is None:
        start = f"{scheme}:" if scheme else ""
    else:
        start = (f"{scheme}:" if scheme else "") + "//" + _authority(authority, scheme)
        path = path or "/"
    if scheme and path.startswith("/"):
        path = without_dots(path)
        if match[2] is None and path.startswith("//"):
            path = f"/.{path}"  # a path that begins with // would be read as an authority
    return start + path + _escapes(query)


def _authority(authority: str, scheme: str) -> str:
    user, at, place = authority.rpartition("@")
    match = _PLACE.fullmatch(place)
    if match is None:
        return authority
    host, port = _escapes(match[1]).lower(), match[2]
    host = _ESCAPE.sub(lambda escape: escape.group().upper(), host)
    return user + at + host + (f":{port}" if port and port != DEFAULT_PORTS.get(scheme) else "")


def without_dots(path: str) -> str:
    """Returns an absolute path with its `.` and `..` resolved (RFC 3986, section 5.2.4)."""
    if "/." not in path:
        return path
    out: list[str] = []
    *folders, last = path.split("/")[1:]
    for part in folders:
        if part == "..":
            out = out[:-1]
        elif part != ".":
            out.append(part)
    if last == "..":
        out = out[:-1]
    return "/" + "/".join([*out, "" if last in (".", "..") else last])


def _escapes(text: str) -> str:
    """Decodes percent-escapes of characters that need none, and writes the others in capitals."""
    return _ESCAPE.sub(_escape, text) if "%" in text else text


def _escape(match: re.Match[str]) -> str:
    character = chr(int(match.group(1), 16))
    return character if character in _UNRESERVED else match.group().upper()
