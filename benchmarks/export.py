"""Measures MB of tokens a second of each export, next to the format's own writer on the same documents, and to a plain copy.

    python benchmarks/export.py RUN [--rounds 3]

corpusmill reads the run's shards, checks each sha256, writes, and waits for the disk (fsync). The other writers get each document as an
array in memory, and do none of this. Prints processor and wall seconds, the best of the rounds. Leaves out writers of packages that aren't
installed.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.tokenize.export.export import FORMATS, export

Documents = list[tuple[str, str, npt.NDArray[Any]]]  # id, URL, token ids


def read_documents(run: str) -> Documents:
    shards = TokenShards(f"{run}/tokens/train")
    found: Documents = []
    for number in range(len(shards.shards)):
        table, tokens = shards.index(number), np.array(shards.tokens(number))
        columns = (table[name].to_pylist() for name in ("id", "url", "first", "tokens"))
        found += [(name, url or "", tokens[first : first + count]) for name, url, first, count in zip(*columns)]
    return found


def copy(run: str, out: Path) -> None:
    """Copies the shards' files with fsync: the limit that the disk sets."""
    for path in sorted(Path(run, "tokens/train").glob("*.bin")):
        shutil.copyfile(path, out / path.name)
        with open(out / path.name, "rb") as file:
            os.fsync(file.fileno())


def megatron(documents: Documents, out: Path) -> None:
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    dtype = np.uint16 if documents[0][2].itemsize == 2 else np.int32
    builder = IndexedDatasetBuilder(str(out / "train.bin"), dtype)
    for _, _, ids in documents:
        builder.add_document(ids, [len(ids)])  # type: ignore[arg-type, unused-ignore]
    builder.finalize(str(out / "train.idx"))


def datatrove(documents: Documents, out: Path) -> None:
    from datatrove.pipeline.tokens.tokenizer import TokenizedFile

    file = TokenizedFile(str(out), "00000_tokens.ds", save_final_metadata=True, token_size=documents[0][2].itemsize)
    for _, _, ids in documents:
        file.write_bytes(ids.tobytes())
    file.close()


def parquet(documents: Documents, out: Path) -> None:
    from datasets import Dataset, Features, List, Value

    def rows() -> Iterator[dict[str, Any]]:
        for name, url, ids in documents:
            yield {"id": name, "url": url, "input_ids": ids}

    features = Features({"id": Value("string"), "url": Value("string"), "input_ids": List(Value(documents[0][2].dtype.name))})
    Dataset.from_generator(rows, features=features, cache_dir=str(out / "cache")).to_parquet(str(out / "train.parquet"))


def mds(documents: Documents, out: Path) -> None:
    from streaming import MDSWriter

    columns = {"id": "str", "url": "str", "tokens": f"ndarray:{documents[0][2].dtype.name}"}
    with MDSWriter(columns=columns, out=str(out / "mds")) as writer:
        for name, url, ids in documents:
            writer.write({"id": name, "url": url, "tokens": ids})


def litdata(documents: Documents, out: Path) -> None:
    import torch
    from litdata import TokensLoader
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(out / "litdata"), chunk_bytes="64MB", item_loader=TokensLoader(block_size=1024))
    for number, (_, _, ids) in enumerate(documents):
        writer[number] = torch.from_numpy(ids.view(np.uint16 if ids.itemsize == 2 else np.int32))
    writer.done()
    writer.merge()


PEERS: dict[str, tuple[str, Callable[[Documents, Path], None]]] = {
    "megatron": ("megatron-core's builder", megatron),
    "datatrove": ("datatrove's TokenizedFile", datatrove),
    "parquet": ("datasets' to_parquet", parquet),
    "mds": ("streaming's MDSWriter", mds),
    "litdata": ("litdata's BinaryWriter", litdata),
}


def report(name: str, megabytes: float, rounds: int, work: Callable[[Path], object]) -> None:
    clock, processor = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter(), time.process_time()
            try:
                work(Path(folder))
            except ImportError as error:
                print(f"{name:32} not installed ({error.name})")
                return
            clock.append(time.perf_counter() - started[0])
            processor.append(time.process_time() - started[1])
    print(f"{name:32} {megabytes / min(clock):8.0f} MB/s by the clock {megabytes / min(processor):8.0f} MB a processor second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    run, rounds = arguments.run, arguments.rounds
    documents = read_documents(run)
    megabytes = sum(ids.nbytes for _, _, ids in documents) / 1e6
    print(f"{len(documents):,} documents, {megabytes:,.1f} MB of tokens ({documents[0][2].dtype.name})")
    report("copy of the shards", megabytes, rounds, lambda out: copy(run, out))
    for name in FORMATS:
        report(f"ours, {name}", megabytes, rounds, lambda out, name=name: export(run, name, str(out / "out"), ["train"]))  # type: ignore[misc]
        if name in PEERS:
            title, write = PEERS[name]
            report(f"  {title}", megabytes, rounds, lambda out, write=write: write(documents, out))  # type: ignore[misc]


if __name__ == "__main__":
    main()
