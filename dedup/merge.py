"""Between a phase that writes a file a shard and one of which each task reads a batch of every file: neighbouring files become one.

What is opened would else be files times tasks. It is a `FAN_IN`-th of that with one such phase, and each file once more. There is no second
one: of 10,000 files the first leaves 157, which a task opens in less time than its batches take, and the second would be three tasks.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import Any, ClassVar, Generic, TypeVar

import pyarrow as pa
import pyarrow.ipc as ipc

from corpusmill.dedup.batches import open_batches
from corpusmill.dedup.corpus import located
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.shards import batches_stream
from corpusmill.pipeline.stage import Output, Piece, Worker
from corpusmill.pipeline.store_requests import StoreError

#: Files that one task merges. It has all of them open, and of each, on a store, up to 9 MiB that were read ahead.
FAN_IN = 64
#: Where no more tasks read each of the files, they may well open them all: to write them again takes longer.
FEW = 32

Item = TypeVar("Item")


def worth_merging(files: int, readers: int) -> bool:
    """Whether so many files, each of which so many tasks read, are merged."""
    return files > FAN_IN and readers > FEW


def neighbours(items: Sequence[Item]) -> list[Sequence[Item]]:
    """What becomes one: `FAN_IN` of the items, and the next."""
    return [items[begin : begin + FAN_IN] for begin in range(0, len(items), FAN_IN)]


class MergeWorker(Worker, Generic[Item]):
    """Neighbouring Arrow files to one. All of them hold the same blocks of what is merged, each of which fits memory; the file is written
    while they are read."""

    memory_mb = 900
    #: Inputs of a piece that are none of the files; these come first.
    others: ClassVar[int] = 0
    compression: ClassVar[str | None] = None

    @abstractmethod
    def blocks(self, piece: Piece, reader: ipc.RecordBatchFileReader) -> Iterator[Item]:
        """What a file has, block by block."""

    @abstractmethod
    def merged(self, piece: Piece, schema: pa.Schema, blocks: Iterable[Sequence[Item]]) -> Iterator[pa.Table]:
        """The batches of the merged file. `blocks`: of each what the files have of it, in their order. `schema`: that of all files."""

    def process(self, piece: Piece) -> Output:
        return Output({f"{piece.key}.arrow": self._content(piece)})

    def _content(self, piece: Piece) -> Iterator[Any]:
        paths = [ref.path for ref in piece.inputs[self.others :]]
        with ExitStack() as stack:
            readers = [stack.enter_context(open_batches(self.run, path)) for path in paths]
            schema = pa.unify_schemas([reader.schema for reader in readers], promote_options="permissive")
            found = [self._named(path, self.blocks(piece, reader)) for path, reader in zip(paths, readers, strict=True)]
            tables = self.merged(piece, schema, zip(*found, strict=True))
            first = next(tables)
            yield from batches_stream(first.schema, chain([first], tables), self.compression)

    def _named(self, path: str, blocks: Iterator[Item]) -> Iterator[Item]:
        """One sentence where a file whose end is whole can't be read all the same."""
        try:
            yield from blocks
        except StoreError:
            raise
        except (pa.ArrowInvalid, OSError) as error:
            storage, name = located(self.run, path)
            raise InputError(f"{storage.path(name)}: not a working file of this run ({error}).") from error
