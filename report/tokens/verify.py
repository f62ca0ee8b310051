"""`tokens verify`: whether token shards are what was written, and stand for the documents that their indexes name.

Nothing here stops at the first fault of a set, as readers do; each shard with one is a sentence.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.shards import open_parquet
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_bytes import TokenBytes
from corpusmill.pipeline.token_shards import DTYPES, INDEX, SHARDS_FILE, PackingPlan, ShardSet, TokenShard, map_tokens, split_folders
from corpusmill.report.tokens.token_sets import TOKENIZER, find_tokenizer
from corpusmill.report.tokens.verify_texts import Chosen, compare

#: Tokens that are looked at together.
STRETCH = 1 << 22


@dataclass
class SplitCheck:
    """What was looked at in one folder of token shards, and a sentence for each fault."""

    folder: str
    shards: int = 0
    documents: int = 0
    tokens: int = 0
    compared: int = 0  # documents whose text was compared
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(folder: str, sample: int = 20, every: bool = False) -> list[SplitCheck]:
    """Checks all token shards of a run or a set, or one folder of them. `sample` documents a shard, evenly spread, or `every` one are
    compared with their texts. Raises InputError where there is nothing to check."""
    root = Storage(folder)
    if root.exists(SHARDS_FILE):
        parents = [] if root.remote else [Storage(str(path)) for path in Path(folder).resolve().parents[:2]]
        return [_check(root, next((parent for parent in parents if parent.exists(TOKENIZER)), root), sample, every)]
    splits = split_folders(root)
    if not splits:
        raise InputError(f"{folder}: it holds no token shards, and is no run that has any (run: corpusmill tokens {folder}).")
    return [_check(root.child(path), root, sample, every) for path in splits.values()]


def _check(storage: Storage, run: Storage, sample: int, every: bool) -> SplitCheck:
    """`run` is where documents and tokenizer of shards lie that were not appended from another run."""
    check = SplitCheck(storage.root)
    try:
        described = ShardSet.read(storage)
        table = _tokenizer(run, described, check)
    except InputError as error:
        check.faults.append(str(error))
        return check
    chosen: list[Chosen] = []
    for number, shard in enumerate(described.shards):
        check.shards, check.documents, check.tokens = check.shards + 1, check.documents + shard.documents, check.tokens + shard.tokens
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
        chosen.append(Chosen(number, shard, places.take(pa.array(wanted))))
    if table is not None:
        check.compared = compare(storage, run, described, table, chosen, check.faults)
    return check


def _tokenizer(run: Storage, described: ShardSet, check: SplitCheck) -> TokenBytes | None:
    """The tokenizer; None, with a note or a fault, where it is not there or another one."""
    table, reason = find_tokenizer(run, described)
    if table is None and run.exists(TOKENIZER):
        check.faults.append(
            f"{check.folder}: these tokens were made by another tokenizer: {reason} (sha256 {described.tokenizer_sha256[:12]})."
        )
    elif table is None:
        check.notes.append("there is no tokenizer beside these shards, so tokens were not compared with texts.")
    return table


def _read(storage: Storage, shard: TokenShard, described: ShardSet) -> tuple[pa.Table, npt.NDArray[Any]]:
    """A shard's index and tokens, once size and hashes are those of `shards.json`."""
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
    """Every id is of the vocabulary; each document ends with END_OF_TEXT and has no other special token in it."""
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
    """Whether each packing plan is the one that was written, and covers the shard."""
    for plan in shard.plans:
        if storage.size(plan.file) < 0:
            raise InputError(f"{storage.path(plan.file)}: this packing plan is missing.")
        if storage.size(plan.file) != plan.bytes or storage.sha256(plan.file) != plan.sha256:
            raise InputError(f"{storage.path(plan.file)}: this packing plan is not the one that was written (its sha256 differs).")
        if not storage.remote:
            PackingPlan(storage.path(plan.file), shard.tokens, plan.length, plan.rows)
