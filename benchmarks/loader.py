"""Compares batches from token shards: corpusmill, nanoGPT's get_batch, and the datasets of datatrove and litdata, on the same tokens.

    python benchmarks/loader.py RUN/tokens/train [--context 1024] [--batch 64] [--rounds 3] [--shards 1000] [--folder DIR]

All give int64 inputs and targets, in windows of the same size, in random order, read from the page cache: this compares the cost of the
loaders themselves. Torch has one thread; seconds are processor time, the best of the rounds. nanoGPT's function is that of its train.py (a
new memory map each batch, a copy for each row, torch.stack); it draws windows with replacement and can't resume. datatrove's
and litdata's datasets are read through a DataLoader without workers. Opening is timed on a set of `--shards` shards that is made for it.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

# isort: off
import corpusmill.train  # noqa: F401 - before torch, so that threads wait as they do in a run

# isort: on
import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader

from corpusmill.pipeline.packing import plan
from corpusmill.pipeline.shards import publish
from corpusmill.pipeline.special_tokens import EOT_ID
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import (
    INDEX,
    SHARDS_FILE,
    PackingFile,
    ShardSet,
    TokenShard,
    TokenShards,
    plan_bytes,
    plan_name,
    shard_contents,
    shard_names,
)
from corpusmill.train.data import PackedLoader, TokenDataset, WindowLoader

LATE = 1_000_000  # the step at which a training is resumed
Batches = Callable[[int], Any]


def best(rounds: int, steps: int, work: Batches) -> float:
    """Returns the processor seconds for `steps` batches."""
    seconds = []
    for number in range(rounds):
        started = time.process_time()
        for step in range(steps):
            work(number * steps + step)
        seconds.append(time.process_time() - started)
    return min(seconds)


def ours(shards: TokenShards, given: argparse.Namespace) -> Iterator[tuple[str, Batches]]:
    shape = given.context, given.batch, 0
    yield "ours, windows", WindowLoader(shards, *shape, False).load
    yield "ours, windows and segments", WindowLoader(shards, *shape, True).load
    if shards.shards[0].plan(given.context):
        yield "ours, packed documents and segments", PackedLoader(shards, *shape, True).load
    batches = iter(TokenDataset(WindowLoader(shards, *shape, False)))
    yield "ours, windows by the dataset", lambda _: next(batches)


def nanogpt(file: Path, dtype: Any, given: argparse.Namespace) -> Batches:
    """Makes a batch as get_batch of nanoGPT's train.py does on a CPU, with its names and lines."""
    block_size, batch_size = given.context, given.batch

    def get_batch(_: int) -> Any:
        data = np.memmap(file, dtype=dtype, mode="r")
        ix = torch.randint(len(data) - block_size, (batch_size,))
        x = torch.stack([torch.from_numpy((data[i : i + block_size]).astype(np.int64)) for i in ix])
        y = torch.stack([torch.from_numpy((data[i + 1 : i + 1 + block_size]).astype(np.int64)) for i in ix])
        return x, y

    return get_batch


def from_loader(loader: DataLoader[Any], split: Callable[[Any], Any]) -> Batches:
    """Returns a function that gives batches of a DataLoader without end, epoch after epoch."""
    batches = chain.from_iterable(iter(loader) for _ in repeat(None))

    def take(_: int) -> Any:
        rows = split(next(batches))
        return rows[:, :-1], rows[:, 1:]

    return take


def datatrove(folder: str, dtype: Any, given: argparse.Namespace) -> Batches:
    from datatrove.utils.dataset import DatatroveFolderDataset

    dataset = DatatroveFolderDataset(folder, given.context, "*.bin", recursive=False, token_size=dtype.itemsize)
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=given.batch, shuffle=True, drop_last=True)
    return from_loader(loader, lambda batch: batch["input_ids"])


def litdata(shards: TokenShards, folder: Path, given: argparse.Namespace) -> Batches:
    from litdata import StreamingDataLoader, StreamingDataset, TokensLoader
    from litdata.streaming.writer import BinaryWriter

    block = given.context + 1
    folder.mkdir()
    writer = BinaryWriter(str(folder), chunk_size=block * 2048, item_loader=TokensLoader(block_size=block))
    for number in range(len(shards.shards)):
        ids = shards.tokens(number)
        writer[number] = torch.from_numpy(ids[: len(ids) // block * block].copy())
    writer.done()
    writer.merge(1)
    dataset = StreamingDataset(str(folder), item_loader=TokensLoader(block_size=block), shuffle=True)
    return from_loader(StreamingDataLoader(dataset, batch_size=given.batch, num_workers=0, drop_last=True), lambda rows: rows.long())


def check(shards: TokenShards, given: argparse.Namespace) -> None:
    """Checks that every window of corpusmill's loader stands at its place in the flat row of tokens."""
    loader, whole = WindowLoader(shards, given.context, given.batch, 0, False), shards.window(0, len(shards))
    for step in (0, LATE):
        ids, targets, _ = loader.load(step)
        for row, start in enumerate(loader.starts(step).tolist()):
            window = whole[start : start + given.context + 1].astype(np.int64)
            if not (np.array_equal(ids[row], window[:-1]) and np.array_equal(targets[row], window[1:])):
                raise SystemExit("a window does not hold its tokens: the comparison means nothing")


def throughput(shards: TokenShards, folder: Path, given: argparse.Namespace) -> None:
    check(shards, given)
    shards.window(0, len(shards)).tofile(folder / "train.bin")
    kinds = [
        *ours(shards, given),
        ("nanoGPT get_batch", nanogpt(folder / "train.bin", shards.dtype, given)),
        ("datatrove DatatroveFolderDataset", datatrove(shards.storage.root, shards.dtype, given)),
    ]
    try:
        kinds.append(("litdata StreamingDataset", litdata(shards, folder / "litdata", given)))
    except ImportError as error:
        print(f"litdata is not installed ({error})")
    steps = max(1, len(shards) // (given.context * given.batch))
    speeds = {}
    for name, work in kinds:
        some = steps if name.startswith(("ours", "nano")) else min(steps, 50)
        best(1, min(some, 20), work)
        speeds[name] = some * given.batch * given.context / best(given.rounds, some, work)
    mine = speeds["ours, windows"]
    for name, speed in speeds.items():
        print(f"{name:38} {speed / 1e6:8.1f} million tokens/s a thread   ours is {mine / speed:6.2f} times as fast")


def many_shards(folder: Path, shards: int, context: int) -> None:
    """Writes a set of small shards of random tokens, with index and plan as the tokens stage writes them."""
    storage, rng, described = Storage(str(folder)), np.random.default_rng(0), []
    for number in range(shards):
        counts = rng.integers(20, 3000, 40)
        ids = rng.integers(4, 8192, int(counts.sum()), dtype=np.uint16)
        ids[np.cumsum(counts) - 1] = 0
        names = {field.name: [f"{number}/{row}" for row in range(40)] for field in INDEX if field.type == pa.string()}
        numbers = {field.name: counts for field in INDEX if field.type == pa.int64()}
        numbers |= {"first": np.cumsum(counts) - counts, "copy": np.zeros(40, np.int32)}
        (file, index), (table, rows) = shard_names(number), plan(counts, context)
        contents = shard_contents(number, ids, pa.table({n: (names | numbers)[n] for n in INDEX.names}).cast(INDEX))
        contents[plan_name(file, context)] = plan_bytes(table)
        written = {name: publish(storage, name, content) for name, content in contents.items()}
        packed = written[plan_name(file, context)]
        plans = (PackingFile(context, packed.path, rows, packed.bytes, packed.sha256),)
        hashes = written[file].sha256, written[index].sha256
        described.append(TokenShard(file, index, len(ids), 40, 4 * len(ids), *hashes, plans=plans))
    storage.write_bytes(SHARDS_FILE, ShardSet("uint16", 8192, "0" * 64, "train", tuple(described), EOT_ID).to_json())


def starting(folder: Path, given: argparse.Namespace) -> None:
    """Times the opening of a loader up to the first batch, and up to that of a late step; kernels are already loaded."""
    many_shards(folder, given.shards, given.context)

    def seconds(make: Callable[[TokenShards], Any], step: int) -> list[float]:
        found = []
        for _ in range(20):
            started = time.process_time()
            shards = TokenShards(folder, "0" * 64)
            opened = time.process_time()
            loader = make(shards)
            loader.samples(step * given.batch, given.batch)
            found.append((opened - started, time.process_time() - opened))
        return [1e3 * min(values) for values in zip(*found)]

    for name, kind in (("windows", WindowLoader), ("packed documents", PackedLoader)):
        for step in (0, LATE):
            opening, first = seconds(lambda shards, kind=kind: kind(shards, given.context, given.batch, 0, True), step)  # type: ignore[misc]
            print(
                f"{given.shards:,} shards, {name}, step {step:,}: {opening:.1f} ms to open, {first:.1f} ms to the batch "
                f"(which maps up to {given.batch} shards)"
            )
    from datatrove.utils.dataset import DatatroveFolderDataset

    started = time.process_time()
    DatatroveFolderDataset(str(folder), given.context, "*.bin", recursive=False)
    print(f"{given.shards:,} shards, datatrove DatatroveFolderDataset: {1e3 * (time.process_time() - started):.1f} ms to open")


def resuming(shards: TokenShards, given: argparse.Namespace) -> None:
    """Times a batch at the beginning and at a late step, from a loader that is already open."""
    loader = WindowLoader(shards, given.context, given.batch, 0, False)
    for step in (0, LATE, 1000 * LATE):
        print(f"a batch at step {step:,}: {1e6 * min(best(1, 1, lambda _, step=step: loader.load(step)) for _ in range(50)):.0f} us")  # type: ignore[misc]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tokens", help="a folder of token shards")
    for name, value in (("context", 1024), ("batch", 64), ("rounds", 3), ("shards", 1000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--folder", help="where copies of the tokens may lie for a while")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shards = TokenShards(given.tokens)
    shards.map(range(len(shards.shards)))
    print(f"{len(shards):,} tokens in {len(shards.shards)} shards, T={given.context}, batches of {given.batch}")
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        throughput(shards, Path(name), given)
        resuming(shards, given)
        starting(Path(name) / "many", given)


if __name__ == "__main__":
    main()
