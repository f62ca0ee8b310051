"""The source of every export, the documents of one split streamed from token shards; and the base class of formats."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.token_shards import ShardSet, TokenShards
from corpusmill.pipeline.watch.progress import Bytes

#: Default number of tokens in a stretch: enough to write at the disk's speed, yet small enough to stay in the processor's cache between
#: hashing and writing.
STRETCH = 1 << 20


@dataclass(frozen=True)
class DocumentStretch:
    """Consecutive whole documents of a shard: a read-only view of their ids, and their rows of INDEX."""

    tokens: npt.NDArray[Any]
    documents: pa.Table

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """The tokens of each document, with the END_OF_TEXT after it."""
        counts: npt.NDArray[np.int64] = self.documents["tokens"].to_numpy()
        return counts

    def ends(self) -> npt.NDArray[np.int64]:
        """Returns where each document ends, counted from the stretch's first token."""
        return np.cumsum(self.counts)


@dataclass(frozen=True)
class SequenceBatch:
    """Consecutive sequences of one length: the place of the first token in the split, and the ids as (sequences, length)."""

    first: int
    tokens: npt.NDArray[Any]

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """The place in the split where each sequence begins."""
        return self.first + np.arange(len(self.tokens)) * self.tokens.shape[1]


class SplitSource:
    """One split of a run's tokens. Raises InputError if it is missing, or another tokenizer made it."""

    def __init__(self, folder: str, split: str, tokenizer_sha256: str, done: Bytes | None = None):
        self.split = split
        self.shards = TokenShards(folder, tokenizer_sha256)
        self.done = done or Bytes()
        self.done.expect(self.description.tokens * self.dtype.itemsize)

    @property
    def description(self) -> ShardSet:
        return self.shards.description

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.shards.dtype

    def __len__(self) -> int:
        """Returns the number of token shards."""
        return len(self.description.shards)

    def stretches(self, number: int, most: int = STRETCH) -> Iterator[DocumentStretch]:
        """Yields the documents of a shard in stretches of at most `most` tokens; a longer document is a stretch of its own.

        Hashes the shard on the way. Raises InputError after the last stretch where its sha256 differs from `shards.json`. The shard's
        memory is released at the end.
        """
        tokens, table = self.shards.tokens(number), self.shards.index(number)
        ends = np.concatenate(([0], np.cumsum(table["tokens"].to_numpy())))
        sha, begin = hashlib.sha256(), 0
        while begin < table.num_rows:
            end = max(int(np.searchsorted(ends, ends[begin] + most, "right")) - 1, begin + 1)
            piece = tokens[ends[begin] : ends[end]]
            sha.update(piece.data)
            yield DocumentStretch(piece, table.slice(begin, end - begin))
            self.done.advance(piece.nbytes)
            begin = end
        self.shards.release(number)
        shard = self.description.shards[number]
        if sha.hexdigest() != shard.sha256:
            path = self.shards.storage.path(shard.file)
            raise InputError(f"{path}: this token shard is not the one that was written (its sha256 differs), so nothing was exported.")

    def all_stretches(self, most: int = STRETCH) -> Iterator[DocumentStretch]:
        """Yields the stretches of all shards, in order."""
        for number in range(len(self)):
            yield from self.stretches(number, most)

    def sequences(self, length: int) -> Iterator[SequenceBatch]:
        """Yields the split, joined across documents and shards and cut every `length` tokens; the last sequence may be shorter."""
        position, rest = 0, np.zeros(0, self.dtype)
        for stretch in self.all_stretches():
            row = np.concatenate((rest, stretch.tokens))
            whole = len(row) // length * length
            if whole:
                yield SequenceBatch(position, row[:whole].reshape(-1, length))
            position, rest = position + whole, row[whole:]
        if len(rest):
            yield SequenceBatch(position, rest.reshape(1, -1))


# ---- formats ---------------------------------------------------------------------------------------------


class TokenFormat:
    """An export format. `write` is called once for each split that has documents, then `finish` once.

    Formats write only below `folder`; equal sources give equal bytes.
    """

    #: The largest vocabulary that the format's readers can take; None if there is no limit.
    largest_vocabulary: ClassVar[int | None] = None
    #: Whether the format has rows: documents, or sequences of one length. Other formats are read as one stream of tokens.
    has_rows: ClassVar[bool] = False
    #: The type of ids for a vocabulary above 65,535: many libraries know no uint32.
    wide: ClassVar[str] = "int32"

    def __init__(self, sequence_length: int | None = None):
        """`sequence_length`: write sequences of this many tokens instead of documents (only formats with rows)."""
        self.sequence_length = sequence_length

    def dtype(self, source: np.dtype[Any]) -> np.dtype[Any]:
        """Returns the type of the ids in the format's files. Ids are below 2**31, so int32 and uint32 have the same bytes."""
        return source if source.itemsize == 2 else np.dtype(self.wide).newbyteorder("<")

    def write(self, source: SplitSource, folder: Path) -> None:
        raise NotImplementedError

    def finish(self, folder: Path, splits: list[str], tokenizer_json: bytes) -> None:
        """Writes the files that belong to no split."""
