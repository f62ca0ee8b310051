"""Megatron-LM: `train.bin` with the ids and `train.idx`, which says where each document lies."""

import struct
from pathlib import Path
from typing import IO

import numpy as np

from corpusmill.tokenize.export.format import Format
from corpusmill.tokenize.export.source import Source

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
#: Megatron's numbers for types (`megatron.core.datasets.indexed_dataset.DType`).
TYPE_CODES = {"uint16": 8, "int32": 4}


class Megatron(Format):
    """A sequence a document, END_OF_TEXT included (as with `--append-eod`), so `document_indices` counts 0, 1, 2, ..."""

    def write(self, source: Source, folder: Path) -> None:
        index = IndexFile(open(folder / f"{source.split}.idx", "wb"), self.dtype(source.dtype), source.description.documents)
        with index.file, open(folder / f"{source.split}.bin", "wb") as file:
            for stretch in source.all_stretches():
                file.write(stretch.tokens.data)
                index.add(stretch.counts)
            index.finish()


class IndexFile:
    """Writes an `.idx` whose number of sequences is known before: its three tables grow side by side, none in memory.

    After 34 bytes of header follow the lengths (int32), the byte at which each sequence begins (int64), and the number of
    the first sequence of each document with the total behind the last (int64).
    """

    def __init__(self, file: IO[bytes], dtype: "np.dtype[np.integer]", sequences: int):
        self.file, self.itemsize, self.sequences = file, dtype.itemsize, sequences
        self.done, self.tokens = 0, 0
        header = MAGIC + struct.pack("<QBQQ", VERSION, TYPE_CODES[dtype.name], sequences, sequences + 1)
        self.lengths, self.pointers = len(header), len(header) + 4 * sequences
        self.documents = self.pointers + 8 * sequences
        file.write(header)

    def add(self, counts: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> None:
        """The next sequences, by their tokens."""
        firsts = self.tokens + np.cumsum(counts) - counts
        self._put(self.lengths + 4 * self.done, counts.astype("<i4"))
        self._put(self.pointers + 8 * self.done, (firsts * self.itemsize).astype("<i8"))
        self._put(self.documents + 8 * self.done, np.arange(self.done, self.done + len(counts), dtype="<i8"))
        self.done, self.tokens = self.done + len(counts), self.tokens + int(counts.sum())

    def finish(self) -> None:
        self._put(self.documents + 8 * self.done, np.array([self.done], "<i8"))

    def _put(self, place: int, values: "np.ndarray[tuple[int], np.dtype[np.integer]]") -> None:
        self.file.seek(place)
        self.file.write(values.data)
