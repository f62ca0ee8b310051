"""Checks that token shards are unchanged, and that they hold the tokens of the documents in their indexes.

Unlike readers, this does not stop at a set's first fault; each faulty shard gives a sentence.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.run import no_tokens
from corpusmill.pipeline.shards import open_parquet
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_bytes import TokenBytes
from corpusmill.pipeline.token_shards import DTYPES, INDEX, SHARDS_FILE, PackingPlan, ShardSet, TokenShard, map_tokens, split_folders
from corpusmill.report.sources import other_run
from corpusmill.report.tokens.token_sets import TOKENIZER, find_tokenizer

ROW = ("data_row", "first", "tokens", "text_begin", "utf8_bytes")


@dataclass(frozen=True)
class Chosen:
    """Documents of a shard to compare: columns data_file (a dictionary) and ROW of its index."""

    number: int
    shard: TokenShard
    rows: pa.Table


def compare(storage: Storage, run: Storage, described: ShardSet, table: TokenBytes, chosen: Sequence[Chosen], faults: list[str]) -> int:
    """Compares the bytes of tokens with the documents' texts, and returns how many documents were equal. `faults` gets at most one sentence
    for each file."""
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
        except (pa.ArrowException, OSError) as error:  # damage that an intact footer does not show
            faults.append(f"{place.path(path)}: can't be read ({error}).")
    return equal


def _reader(storage: Storage, described: ShardSet) -> Callable[[str, int, int], npt.NDArray[Any]]:
    """Returns a function that reads some tokens of a shard: from a memory map, or only those bytes where the store is remote."""
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
    """Yields the texts of some rows (ascending, perhaps repeated) of a file of documents, in UTF-8. Row groups without such rows are not
    read."""
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


#: Tokens checked at a time.
STRETCH = 1 << 22


@dataclass
class SplitCheck:
    """The result for one folder of token shards, with a sentence for each fault."""

    folder: str
    shards: int = 0
    documents: int = 0
    tokens: int = 0
    bytes: int = 0
    compared: int = 0  # documents whose text was compared
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(folder: str, sample: int = 20, every: bool = False) -> list[SplitCheck]:
    """Checks all token shards of a run or a set, or one folder of them. Compares `sample` documents of each shard (evenly spread), or with
    `every` all documents, with their texts. Raises InputError if there is nothing to check."""
    root = Storage(folder)
    if root.exists(SHARDS_FILE):
        parents = [] if root.remote else [Storage(str(path)) for path in Path(folder).resolve().parents[:2]]
        return [_check(root, next((parent for parent in parents if parent.exists(TOKENIZER)), root), sample, every)]
    splits = split_folders(root)
    if not splits:
        if not root.exists("run.json"):
            raise InputError(f"{folder}: neither token shards nor a run with token shards.")
        raise InputError(no_tokens(folder))
    return [_check(root.child(path), root, sample, every) for path in splits.values()]


def _check(storage: Storage, run: Storage, sample: int, every: bool) -> SplitCheck:
    """Checks one folder. `run`: the place of the documents and tokenizer of shards that were not appended from another run."""
    check = SplitCheck(storage.root)
    try:
        described = ShardSet.read(storage)
        table = _tokenizer(run, described, check)
    except InputError as error:
        check.faults.append(str(error))
        return check
    chosen: list[Chosen] = []
    for place, shard in enumerate(described.shards):
        check.shards, check.documents, check.tokens = check.shards + 1, check.documents + shard.documents, check.tokens + shard.tokens
        check.bytes += max(0, storage.size(shard.file))
        try:
            index, tokens = _read(storage, shard, described)
            _check_tokens(storage.path(shard.file), index, tokens, described, table)
            _check_plans(storage, shard)
        except InputError as error:
            check.faults.append(str(error))
            continue
        rows = index.num_rows
        wanted = np.arange(rows) if every else np.unique(np.linspace(0, rows - 1, min(sample, rows), dtype=int))
        places = index.select(["data_row", "first", "tokens", "text_begin", "utf8_bytes"]).append_column(
            "data_file", index["data_file"].dictionary_encode()
        )
        chosen.append(Chosen(place, shard, places.take(pa.array(wanted))))
    if table is not None:
        check.compared = compare(storage, run, described, table, chosen, check.faults)
    return check


def _tokenizer(run: Storage, described: ShardSet, check: SplitCheck) -> TokenBytes | None:
    """Returns the tokenizer; None, with a note or a fault, where it is missing or another one."""
    table, reason = find_tokenizer(run, described)
    if table is None and run.exists(TOKENIZER):
        check.faults.append(
            f"{check.folder}: these tokens were made by another tokenizer: {reason} (sha256 {described.tokenizer_sha256[:12]})."
        )
    elif table is None:
        check.notes.append("there is no tokenizer beside these shards, so tokens were not compared with texts.")
    return table


def _read(storage: Storage, shard: TokenShard, described: ShardSet) -> tuple[pa.Table, npt.NDArray[Any]]:
    """Returns a shard's index and tokens, after a check of size and hashes with `shards.json`."""
    path, dtype = storage.path(shard.file), DTYPES[described.dtype]
    size, wanted = storage.size(shard.file), shard.tokens * dtype.itemsize
    if size != wanted:
        what = "missing" if size < 0 else "cut short" if size < wanted else "too long"
        raise InputError(f"{path}: this token shard is {what} ({max(size, 0)} bytes, and {SHARDS_FILE} says {wanted}).")
    for what, file, sha256 in (("token shard", shard.file, shard.sha256), ("index", shard.index, shard.index_sha256)):
        if storage.size(file) < 0:
            raise InputError(f"{storage.path(file)}: this {what} is missing.")
        if storage.sha256(file) != sha256:
            raise InputError(f"{storage.path(file)}: this {what} is not the one that was written (its sha256 differs).")
    with open_parquet(storage, shard.index) as parquet:
        if not parquet.schema_arrow.equals(INDEX):
            raise InputError(f"{storage.path(shard.index)}: not an index of token shards (its columns differ).")
        index = parquet.read(use_threads=False)
    first, counts = index["first"].to_numpy(), index["tokens"].to_numpy()
    ends = np.cumsum(counts)
    covered = int(ends[-1]) if len(ends) else 0
    if index.num_rows != shard.documents or not np.array_equal(first, ends - counts) or covered != shard.tokens or (counts < 1).any():
        raise InputError(f"{storage.path(shard.index)}: this index does not cover the {shard.tokens} tokens of {shard.file}.")
    if pc.sum(index["utf8_bytes"]).as_py() not in (shard.utf8_bytes, None):
        raise InputError(f"{storage.path(shard.index)}: its documents have other UTF-8 bytes than {SHARDS_FILE} says.")
    return index, map_tokens(storage, shard.file, dtype)


def _check_tokens(path: str, index: pa.Table, tokens: npt.NDArray[Any], described: ShardSet, table: TokenBytes | None) -> None:
    """Checks that every id is in the vocabulary, and that each document ends with END_OF_TEXT and holds no other special token."""
    ends = index["first"].to_numpy() + index["tokens"].to_numpy() - 1
    special = np.zeros(described.vocabulary_size, np.bool_)
    special[[number for number in (table.special if table else {}) if number < len(special)] + [described.end_of_text_id]] = True
    for begin in range(0, len(tokens), STRETCH):
        part = tokens[begin : begin + STRETCH]
        if int(part.max()) >= described.vocabulary_size:
            place = begin + int(np.argmax(part >= described.vocabulary_size))
            raise InputError(f"{path}: token {place} is {tokens[place]}, beyond the vocabulary of {described.vocabulary_size}.")
        here = ends[np.searchsorted(ends, begin) : np.searchsorted(ends, begin + len(part))]
        wrong = np.flatnonzero(tokens[here] != described.end_of_text_id)
        if len(wrong):
            place = int(here[wrong[0]])
            raise InputError(f"{path}: the document that ends with token {place} ends with {tokens[place]}, not with END_OF_TEXT.")
        found = np.flatnonzero(special[part]) + begin
        inside = found[~np.isin(found, here)]
        if len(inside):
            raise InputError(f"{path}: token {inside[0]} is the special token {tokens[inside[0]]} inside a document.")


def _check_plans(storage: Storage, shard: TokenShard) -> None:
    """Checks that each packing plan is unchanged and covers the shard."""
    for plan in shard.plans:
        if storage.size(plan.file) < 0:
            raise InputError(f"{storage.path(plan.file)}: this packing plan is missing.")
        if storage.size(plan.file) != plan.bytes or storage.sha256(plan.file) != plan.sha256:
            raise InputError(f"{storage.path(plan.file)}: this packing plan is not the one that was written (its sha256 differs).")
        if not storage.remote:
            PackingPlan(storage.path(plan.file), shard.tokens, plan.length, plan.rows)
