"""Compares log-likelihoods of benchmark items with lm-evaluation-harness's, on the same model and contexts.

    python benchmarks/harness.py RUN/pretrain/model blimp=blimp.zip hellaswag lambada=lambada_test.jsonl --limit 1000

Both get the same contexts and continuations as text: time includes tokenizing, but not reading the files. Seconds are processor time on
one thread, the best of the rounds; the two sides take turns.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# isort: off
import corpusmill.train  # noqa: F401 - before torch, so that threads wait as they do in a run

# isort: on
import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from corpusmill.train.benchmarks import ItemSet, ModelUnderTest, read_task
from corpusmill.train.evaluate import TaskConfig


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    found = work()
    return time.process_time() - started, found


def choices(ours: ModelUnderTest, theirs: HFLM, sets: list[ItemSet], rounds: int) -> tuple[float, float, str]:
    """Returns the seconds of both, and the difference of their results."""
    pairs = [pair for of in sets for item in of.items for pair in zip(item.contexts, item.continuations, strict=True)]
    requests = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
    seconds: list[tuple[float, float]] = []
    for _ in range(rounds):
        mine, table = timed(lambda: ours.score(sets))
        other, answers = timed(lambda: theirs.loglikelihood(requests, disable_tqdm=True))
        seconds.append((mine, other))
    values = np.concatenate(table["log_likelihoods"].to_numpy())
    greedy = np.concatenate(table["greedy"].to_numpy())
    apart = np.abs(values - [value for value, _ in answers]).max()
    differ = int((greedy != [likeliest for _, likeliest in answers]).sum())
    return (*map(min, zip(*seconds, strict=True)), f"{apart:.1e} nats apart at most, {differ} differ in what is most likely")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("task", nargs="+", help="NAME or NAME=PATH")
    parser.add_argument("--limit", type=int, default=1000, help="items of each task")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64, help="requests that lm-evaluation-harness computes at a time")
    given = parser.parse_args()
    torch.set_num_threads(1)
    ours = ModelUnderTest(given.model, "cpu")
    theirs = HFLM(pretrained=str(given.model), device="cpu", dtype="float32", batch_size=given.batch)
    for task in given.task:
        name, _, path = task.partition("=")
        sets = read_task(TaskConfig(task=name, path=path or None, limit=given.limit))  # type: ignore[arg-type]
        mine, other, found = choices(ours, theirs, sets, given.rounds)
        count = len(sets[0].items)
        speeds = f"{count / mine:,.0f} items/s, lm-evaluation-harness {count / other:,.0f}: {other / mine:.2f} times"
        print(f"{name}: {speeds}; {found}", flush=True)


if __name__ == "__main__":
    main()
