"""Formats whose files hold the ids as one stream: nanoGPT, llm.c, Megatron-LM, datatrove."""

import pickle
import struct
from pathlib import Path
from typing import IO, ClassVar

import humanize
import numpy as np
from tokenizers import Tokenizer

from corpusmill.pipeline.token_bytes import to_bytes
from corpusmill.tokenize.export.source import SplitSource, TokenFormat

# ---- nanoGPT: `train.bin` and `val.bin`, a stream of uint16, and `meta.pkl`, the vocabulary --------------


FILES = {"train": "train.bin", "validation": "val.bin"}


class NanoGPT(TokenFormat):
    """Files for nanoGPT. Its `train.py` reads uint16 whatever the vocabulary, so the format has no tokens of 32 bits."""

    largest_vocabulary: ClassVar[int | None] = (1 << 16) - 1  # token shards in uint16 hold no larger one

    def write(self, source: SplitSource, folder: Path) -> None:
        with open(folder / FILES[source.split], "wb") as file:
            for stretch in source.all_stretches():
                file.write(stretch.tokens.data)

    def finish(self, folder: Path, splits: list[str], tokenizer_json: bytes) -> None:
        (folder / "meta.pkl").write_bytes(pickle.dumps(vocabulary_of(Tokenizer.from_buffer(tokenizer_json)), protocol=2))


def vocabulary_of(tokenizer: Tokenizer) -> dict[str, object]:
    """Returns the content of `meta.pkl`: `vocab_size`, which nanoGPT's train.py reads, `itos` and `stoi`, which its sample.py reads.

    sample.py encodes a prompt character by character, so `stoi` holds only tokens of one character. A character that several tokens share
    is shown as U+FFFD.
    """
    special = tokenizer.get_added_tokens_decoder()
    tokens = sorted((number, token) for token, number in tokenizer.get_vocab().items())
    itos = {number: token if number in special else to_bytes(token).decode("utf-8", "replace") for number, token in tokens}
    stoi = {text: number for number, text in itos.items() if len(text) == 1 and text != "\ufffd"}
    return {"vocab_size": tokens[-1][0] + 1, "itos": itos, "stoi": stoi}


# ---- llm.c and modded-nanogpt ----------------------------------------------------------------------------


HEADER_INTS = 256
#: By bytes of an id: the file's magic number and version. llm.c calls the two kinds gpt-2 and llama-3.
KINDS = {2: (20240520, 1), 4: (20240801, 7)}
NAMES = {"train": "train", "validation": "val"}


class LLMC(TokenFormat):
    """One file for each token shard. llm.c expects END_OF_TEXT before a document, our shards have it after. So one is written before the
    first document, and the one after the last is left out: the number and order of tokens stay the same."""

    wide: ClassVar[str] = "uint32"

    def write(self, source: SplitSource, folder: Path) -> None:
        magic, version = KINDS[source.dtype.itemsize]
        for number, shard in enumerate(source.description.shards):
            header = np.zeros(HEADER_INTS, "<i4")
            header[:3] = magic, version, shard.tokens
            with open(folder / f"tokens_{NAMES[source.split]}_{number:06d}.bin", "wb") as file:
                file.write(header.data)
                file.write(np.array([source.description.end_of_text_id], source.dtype).data)
                for stretch in source.stretches(number):
                    file.write(stretch.tokens.data)
                file.truncate(header.nbytes + shard.tokens * source.dtype.itemsize)


# ---- Megatron-LM -----------------------------------------------------------------------------------------


MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
#: Megatron's numbers for types (`megatron.core.datasets.indexed_dataset.DType`).
TYPE_CODES = {"uint16": 8, "int32": 4}


class Megatron(TokenFormat):
    """One sequence for each document, with END_OF_TEXT (as with `--append-eod`), so `document_indices` is 0, 1, 2, ..."""

    def write(self, source: SplitSource, folder: Path) -> None:
        index = IndexFile(open(folder / f"{source.split}.idx", "wb"), self.dtype(source.dtype), source.description.documents)
        with index.file, open(folder / f"{source.split}.bin", "wb") as file:
            for stretch in source.all_stretches():
                file.write(stretch.tokens.data)
                index.add(stretch.counts)
            index.finish()


class IndexFile:
    """Writes an `.idx` of a known number of sequences. Its three tables grow side by side in the file, not in memory.

    After 34 bytes of header come the lengths (int32), the byte where each sequence begins (int64), and the number of each document's
    first sequence, then the number of all sequences (int64).
    """

    def __init__(self, file: IO[bytes], dtype: "np.dtype[np.integer]", sequences: int):
        self.file, self.itemsize, self.sequences = file, dtype.itemsize, sequences
        self.done, self.tokens = 0, 0
        header = MAGIC + struct.pack("<QBQQ", VERSION, TYPE_CODES[dtype.name], sequences, sequences + 1)
        self.lengths, self.pointers = len(header), len(header) + 4 * sequences
        self.documents = self.pointers + 8 * sequences
        file.write(header)

    def add(self, counts: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> None:
        """Adds the next sequences. `counts`: the number of tokens of each."""
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


# ---- datatrove and nanotron ------------------------------------------------------------------------------


class Datatrove(TokenFormat):
    """Files as `datatrove.pipeline.tokens.tokenizer.TokenizedFile` writes them. The index holds where each document ends, in tokens
    (uint64). The metadata are the tokenizer's name, the size of an id in bytes, the number of tokens, and a short form of that number."""

    wide: ClassVar[str] = "uint32"

    def write(self, source: SplitSource, folder: Path) -> None:
        (folder / source.split).mkdir()
        for number, shard in enumerate(source.description.shards):
            path = folder / source.split / f"{number:05d}_tokens.ds"
            with open(path, "wb") as tokens, open(f"{path}.index", "wb") as index:
                first = 0
                for stretch in source.stretches(number):
                    tokens.write(stretch.tokens.data)
                    index.write((first + stretch.ends()).astype("<u8").data)
                    first += len(stretch.tokens)
            lines = (f"tokenizer.json|{source.dtype.itemsize}", str(shard.tokens), humanize.metric(shard.tokens, unit="T"))
            Path(f"{path}.metadata").write_text("\n".join(lines))
