"""Whether documents' tokens stand for their texts: the part of `tokens verify` that reads documents.

Documents are read file by file in their order, whatever the order of their tokens; in memory are about 100 bytes for each that is compared.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.shards import open_parquet
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_bytes import TokenBytes
from corpusmill.pipeline.token_shards import DTYPES, ShardSet, TokenShard, map_tokens
from corpusmill.report.sources import other_run

ROW = ("data_row", "first", "tokens", "text_begin", "utf8_bytes")


@dataclass(frozen=True)
class Chosen:
    """Documents of a shard that are to be compared: columns data_file (a dictionary) and ROW of its index."""

    number: int
    shard: TokenShard
    rows: pa.Table


def compare(storage: Storage, run: Storage, described: ShardSet, table: TokenBytes, chosen: Sequence[Chosen], faults: list[str]) -> int:
    """Compares the bytes of tokens with texts; returns how many documents were equal. `faults` gets a sentence a file at most."""
    files: dict[tuple[str | None, str], int] = {}
    parts = []
    for one in chosen:
        coded = one.rows["data_file"].combine_chunks()
        names = coded.dictionary.to_pylist()
        code = np.array([files.setdefault((one.shard.run, name), len(files)) for name in names], np.int32)[coded.indices.to_numpy()]
        parts.append((code, np.full(len(code), one.number, np.int32), *(one.rows[name].to_numpy() for name in ROW)))
    if not files:
        return 0
    code, number, row, first, count, begin_at, size = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((row, code))
    borders = np.searchsorted(code[order], np.arange(len(files) + 1))
    read, equal = _reader(storage, described), 0
    for (home, path), begin, end in zip(files, borders[:-1], borders[1:], strict=True):
        wanted, place = order[begin:end], run
        try:
            place = other_run(storage, home) if home else run
            for one, text in zip(wanted.tolist(), _texts(place, path, row[wanted]), strict=True):
                file = described.shards[number[one]].file
                ids = read(file, int(first[one]), int(count[one]) - 1)
                part = None if text is None else text[begin_at[one] : begin_at[one] + size[one]]
                if int(ids.max(initial=0)) >= len(table.sizes) or table.join(ids) != part:
                    last = first[one] + count[one] - 1
                    raise InputError(f"{storage.path(file)}: tokens {first[one]} to {last} are not the text of {path}, row {row[one]}.")
                equal += 1
        except InputError as error:
            faults.append(str(error))
        except (pa.ArrowException, OSError) as error:  # behind a footer that is whole
            faults.append(f"{place.path(path)}: can't be read ({error}).")
    return equal


def _reader(storage: Storage, described: ShardSet) -> Callable[[str, int, int], npt.NDArray[Any]]:
    """Reads some tokens of a shard: from memory maps, or the bytes alone where the store is remote."""
    dtype, maps, files = DTYPES[described.dtype], dict[str, npt.NDArray[Any]](), dict[str, IO[bytes]]()

    def local(file: str, first: int, count: int) -> npt.NDArray[Any]:
        if file not in maps:
            maps[file] = map_tokens(storage, file, dtype)
        return maps[file][first : first + count]

    def remote(file: str, first: int, count: int) -> npt.NDArray[Any]:
        if file not in files:
            files[file] = storage.open_read(file)
        files[file].seek(first * dtype.itemsize)
        return np.frombuffer(files[file].read(count * dtype.itemsize), dtype)

    return remote if storage.remote else local


def _texts(run: Storage, path: str, rows: npt.NDArray[np.int64]) -> Iterator[bytes | None]:
    """The texts of rows (ascending, some perhaps twice) of a file of documents, in UTF-8; row groups without any are not read."""
    with open_parquet(run, path) as file:
        if "text" not in file.schema_arrow.names:
            raise InputError(f"{run.path(path)}: it has no column text.")
        begin = at = 0
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            end = int(np.searchsorted(rows, begin + size))
            if end > at:
                texts = file.read_row_group(group, columns=["text"], use_threads=False)["text"]
                found = texts.take(pa.array(rows[at:end] - begin))
                yield from (text.as_buffer().to_pybytes() if text.is_valid else None for text in found)
            begin, at = begin + size, end
    if at < len(rows):
        raise InputError(f"{run.path(path)}: it has no row {rows[at]}.")
