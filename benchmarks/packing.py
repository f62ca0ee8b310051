"""Compares packing of documents into rows with TRL's pack_dataset and the greedy way: empty places, lost tokens, and time.

    python benchmarks/packing.py RUN/tokens/train [--length 2048] [--rounds 3]

All pack the documents of each shard separately. corpusmill plans from the lengths and copies tokens when a batch is loaded, so both are
timed: planning, and the loading of every row once, in which every token has to be a target exactly once. TRL's strategies `bfd`, which
crops documents longer than a row, and `bfd_split` make a new data set. The greedy way puts a document into the current row if it fits, or
begins a new one, and cuts long documents as corpusmill does. Seconds are processor time, the best of the rounds.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

# isort: off
import corpusmill.train  # noqa: F401 - before torch, so that threads wait as they do in a run

# isort: on
import numpy as np
import pyarrow as pa
import torch

from corpusmill.pipeline.packing import cut, plan
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.train.data import IGNORED, PackedLoader

LOADED_AT_A_TIME = 64


def best(rounds: int, work: Callable[[], Any]) -> tuple[float, Any]:
    """Returns processor seconds, and the result of the last round."""
    seconds, found = [], None
    for _ in range(rounds):
        started = time.process_time()
        found = work()
        seconds.append(time.process_time() - started)
    return min(seconds), found


def next_fit(documents: np.ndarray[Any, Any], length: int) -> int:
    """Returns the rows of the greedy way."""
    rows, free = 0, 0
    for size in cut(documents, length)[1].tolist():
        if size > free:
            rows, free = rows + 1, length
        free -= size
    return rows


def load_all(loader: PackedLoader, places: np.ndarray[Any, Any]) -> None:
    """Loads every row once; adds to `places` how often each token value is a target."""
    for first in range(0, loader.rows, LOADED_AT_A_TIME):
        _, targets, _ = loader.samples(first, min(LOADED_AT_A_TIME, loader.rows - first))
        values = targets.numpy()
        np.add.at(places, values[values != IGNORED], 1)


def lost_by_ours(shards: TokenShards, length: int) -> int:
    """Counts corpusmill's tokens that are not a target exactly once: by place in the plans, and by value in the loaded rows."""
    wrong = 0
    for number, shard in enumerate(shards.shards):
        found = np.zeros(shard.tokens + 1, np.int64)
        packed = shards.plan(number, length)
        np.add.at(found, packed.first, 1)
        np.add.at(found, packed.first + packed.tokens, -1)
        wrong += int((np.cumsum(found)[:-1] != 1).sum())
    size = shards.description.vocabulary_size
    loaded = np.zeros(size, np.int64)
    load_all(PackedLoader(shards, length, 1, 0, True), loaded)
    wanted = np.sum([np.bincount(shards.tokens(number), minlength=size) for number in range(len(shards.shards))], axis=0)
    return wrong + int(np.abs(loaded - wanted).sum())


def trl(shards: TokenShards, length: int, strategy: str) -> tuple[float, int, int]:
    """Returns seconds, rows and tokens of TRL's packing of all shards."""
    from datasets import Dataset, disable_progress_bars
    from trl import pack_dataset

    disable_progress_bars()
    seconds, rows, tokens = 0.0, 0, 0
    for number in range(len(shards.shards)):
        documents = shards.index(number)["tokens"].to_numpy()
        ids = pa.array(shards.tokens(number).astype(np.int64))
        lists = pa.LargeListArray.from_arrays(np.concatenate(([0], np.cumsum(documents))), ids)
        given = Dataset(pa.table({"input_ids": lists}))
        options = {"batch_size": len(documents), "keep_in_memory": True, "load_from_cache_file": False}
        started = time.process_time()
        packed = pack_dataset(given, length, strategy, options)
        seconds += time.process_time() - started
        rows += len(packed)
        tokens += sum(pa.compute.list_value_length(chunk).to_numpy().sum() for chunk in packed.data["input_ids"].chunks)
    return seconds, rows, int(tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tokens", help="a folder of token shards with a plan for rows of this length")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    length = given.length
    shards = TokenShards(given.tokens)
    documents = [shards.index(number)["tokens"].to_numpy() for number in range(len(shards.shards))]
    print(f"{len(shards):,} tokens of {sum(map(len, documents)):,} documents in {len(documents)} shards, rows of {length:,}")

    def line(name: str, seconds: float, rows: int, lost: int) -> None:
        empty = 1 - (len(shards) - lost) / (rows * length)
        print(f"{name:34} {rows:9,} rows, {empty:8.3%} empty, {lost:10,} tokens lost, {seconds:8.3f} s")

    plan(documents[0], length)
    seconds, rows = best(given.rounds, lambda: sum(plan(counts, length)[1] for counts in documents))
    line("ours, plan", seconds, rows, lost_by_ours(shards, length))
    loader = PackedLoader(shards, length, 1, 0, True)
    seconds, _ = best(given.rounds, lambda: [loader.samples(n, min(64, loader.rows - n)) for n in range(0, loader.rows, 64)])
    line("ours, loading all rows", seconds, loader.rows, 0)
    seconds, rows = best(1, lambda: sum(next_fit(counts, length) for counts in documents))
    line("greedy (next fit)", seconds, rows, 0)
    try:
        for strategy in ("bfd_split", "bfd"):
            seconds, rows, tokens = trl(shards, length, strategy)
            line(f"TRL pack_dataset, {strategy}", seconds, rows, len(shards) - tokens)
    except ImportError as error:
        print(f"trl or datasets is not installed ({error})")


if __name__ == "__main__":
    main()
