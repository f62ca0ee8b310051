"""What every format is written from, the documents of one split, streamed from their token shards; and what a format has to know."""

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

#: Tokens of a stretch where a format has no wish of its own: enough to write at the disk's speed, and still in the
#: processor's cache when it is written after it was hashed.
STRETCH = 1 << 20


@dataclass(frozen=True)
class DocumentStretch:
    """Whole documents that follow one another in a shard: a read-only view of their ids, and their rows of INDEX."""

    tokens: npt.NDArray[Any]
    documents: pa.Table

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Tokens of each document, the END_OF_TEXT behind it included."""
        counts: npt.NDArray[np.int64] = self.documents["tokens"].to_numpy()
        return counts

    def ends(self) -> npt.NDArray[np.int64]:
        """Where each document ends, counted from the stretch's first token."""
        return np.cumsum(self.counts)


@dataclass(frozen=True)
class SequenceBatch:
    """Sequences of one length that follow one another: the place of the first token in the split, and ids as (sequences, length)."""

    first: int
    tokens: npt.NDArray[Any]

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """Where each sequence begins in the split."""
        return self.first + np.arange(len(self.tokens)) * self.tokens.shape[1]


class SplitSource:
    """One split of a run's tokens. Raises InputError where it isn't there, or was made by another tokenizer."""

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
        """How many token shards there are."""
        return len(self.description.shards)

    def stretches(self, number: int, most: int = STRETCH) -> Iterator[DocumentStretch]:
        """The documents of a shard in stretches of at most `most` tokens; a longer document comes alone.

        The shard's sha256 is taken on the way. Raises InputError after the last stretch where it is another one than
        `shards.json` says. Nothing of a shard is kept once it is through.
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
        """The stretches of all shards, in their order."""
        for number in range(len(self)):
            yield from self.stretches(number, most)

    def sequences(self, length: int) -> Iterator[SequenceBatch]:
        """The split as one row of tokens, across documents and shards, cut every `length`; the last one may be shorter."""
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
    """One format. `write` is called once for each split that holds documents, `finish` once after all of them.

    Formats write below `folder` and nowhere else; equal sources give equal bytes.
    """

    #: The largest vocabulary that the format's readers can take; None where there is no limit.
    largest_vocabulary: ClassVar[int | None] = None
    #: Whether it has rows, which can be documents or sequences of one length; the others are read as one row of tokens.
    has_rows: ClassVar[bool] = False
    #: The type in which ids of a vocabulary above 65,535 are written: many libraries know no uint32.
    wide: ClassVar[str] = "int32"

    def __init__(self, sequence_length: int | None = None):
        """`sequence_length`: write sequences of so many tokens instead of documents (formats that have rows)."""
        self.sequence_length = sequence_length

    def dtype(self, source: np.dtype[Any]) -> np.dtype[Any]:
        """The type of the ids in the format's files. Ids are below 2**31, so their bytes are the same in int32 as in uint32."""
        return source if source.itemsize == 2 else np.dtype(self.wide).newbyteorder("<")

    def write(self, source: SplitSource, folder: Path) -> None:
        raise NotImplementedError

    def finish(self, folder: Path, splits: list[str], tokenizer_json: bytes) -> None:
        """Files that belong to no split."""
