"""Measures what the loop around a training step costs: guards, clipping, totals, logs, the thread that makes batches.

    python benchmarks/loop_overhead.py [--preset 10m] [--batch 8] [--context 512] [--vocabulary 8192] [--steps 10] [--threads 2] [--bar]

Steps of `fit` (its log on, evaluation off) and bare steps (forward, backward, optimiser) take turns in one process, on the same batches,
each side with its own copy of the model. A second bare side shows how much equal steps differ. Prints processor and wall seconds a step,
what the loop adds to the median step in percent, and the share of a step spent waiting for the loader. Both sides clip gradients: the bare
one calls torch's `clip_grad_norm_`.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

# isort: off
import corpusmill.train  # noqa: F401 - before torch, so that threads wait as they do in a run

# isort: on
import numpy as np
import torch

from corpusmill.pipeline.special_tokens import EOT_ID
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train import loop
from corpusmill.train.data import Batch, DataShare, WindowLoader
from corpusmill.train.model import Llama, Objective, initialise, token_nats
from corpusmill.train.optim import Optimizer
from corpusmill.train.options import LoopConfig, ModelConfig, OptimizerConfig

WARM = 2


class TokenArray:
    """Ids in memory (uint16 or uint32), with what a loader of windows reads of token shards."""

    end_of_text_id = EOT_ID

    def __init__(self, ids: np.ndarray):
        self.ids, self.starts = np.ascontiguousarray(ids), np.array([0, len(ids)], np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def map(self, numbers: Iterable[int]) -> None:
        """Does nothing, as the array is in memory."""

    def window(self, start: int, length: int) -> np.ndarray:
        return self.ids[start : start + length]


class Clock:
    """Wall and processor seconds of each kind of step."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[tuple[float, float]]] = {}
        self.begin()

    def begin(self) -> None:
        self.started = time.perf_counter(), time.process_time()

    def end(self, kind: str) -> None:
        now = time.perf_counter(), time.process_time()
        self.seconds.setdefault(kind, []).append((now[0] - self.started[0], now[1] - self.started[1]))
        self.begin()

    def median(self, kind: str, which: int) -> float:
        return statistics.median(seconds[which] for seconds in self.seconds[kind][WARM:])


class Windows(Objective):
    """The windows of a loader, one batch for each step."""

    def __init__(self, loader: WindowLoader):
        self.loader = loader

    def batches(self, step: int, share: DataShare) -> Iterator[Batch]:
        yield self.loader.load(step)


def bare_step(loader: WindowLoader, model: Llama, kind: str) -> Callable[[int], None]:
    """Returns a step of forward, backward, clipping and update, and nothing else."""
    optimizer = Optimizer(dict(model.named_parameters()), OptimizerConfig(kind=kind))  # type: ignore[arg-type]
    parameters = list(model.parameters())

    def step(number: int) -> None:
        ids, targets, segments = loader.load(number)
        optimizer.zero_grad()
        (token_nats(model(ids, segments), targets).sum() / targets.numel()).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimizer.step(1.0)

    return step


def looped(clock: Clock, others: dict[str, Callable[[int], None]], loader: WindowLoader, model: Llama, config: LoopConfig, folder: Path,
           bar: bool) -> None:  # fmt: skip
    """Runs the whole loop, and after each of its steps one step of each of the `others`, whose time is not counted for the loop."""

    class Turning(loop.Watch):
        def __enter__(self) -> "Turning":
            super().__enter__()
            clock.begin()
            return self

        def step(self, line: dict[str, Any], tokens: int, seconds: float, waited: float) -> None:
            number = line["step"]
            super().step(line, tokens, seconds, waited)
            clock.end("loop")
            for kind, other in others.items():
                other(number)
                clock.end(kind)

    loop.Watch = Turning  # type: ignore[misc]
    progress = Progress(True) if bar else None
    loop.fit(model, Windows(loader), config, state=folder / "state", log=folder / "log.jsonl", progress=progress)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="10m")
    parser.add_argument("--optimizer", default="adamw", choices=("adamw", "muon"))
    parser.add_argument("--bar", action="store_true", help="draw the bar, too")
    for option, value in (("batch", 8), ("context", 512), ("vocabulary", 8192), ("steps", 10), ("threads", 2)):
        parser.add_argument(f"--{option}", type=int, default=value)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    shape = ModelConfig.model_validate({"preset": given.preset, "context": given.context}).architecture(given.vocabulary)
    ids = np.random.default_rng(0).integers(4, given.vocabulary, 5_000_000, dtype=np.uint16)
    loader = WindowLoader(TokenArray(ids), given.context, given.batch, 0, document_mask=False)
    steps = given.steps + WARM
    models = [Llama(shape) for _ in range(3)]
    for model in models:
        initialise(model, 0)
    clock = Clock()
    others = {name: bare_step(loader, model, given.optimizer) for name, model in zip(("bare", "bare again"), models)}
    kind = OptimizerConfig(kind=given.optimizer)
    config = LoopConfig(steps=steps, optimizer=kind, save_every=steps + 1, threads=given.threads, precision="fp32")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        looped(clock, others, loader, models[2], config, folder, given.bar)
        lines = [json.loads(line) for line in (folder / "speed.jsonl").read_text().splitlines()][WARM:]
    found: dict[str, float] = {"parameters": shape.parameters(), "tokens_a_step": given.batch * given.context, "threads": given.threads}
    for which, time_of in enumerate(("wall", "processor")):
        middle = {kind: clock.median(kind, which) for kind in ("loop", "bare", "bare again")}
        found |= {f"{time_of} seconds a step, {kind}": round(seconds, 4) for kind, seconds in middle.items()}
        found[f"{time_of}: the loop adds, percent"] = round(100 * (middle["loop"] / middle["bare"] - 1), 2)
        found[f"{time_of}: two bare steps differ by, percent"] = round(100 * (middle["bare again"] / middle["bare"] - 1), 2)
    found["share of a step waiting for the loader, percent"] = round(
        100 * sum(line["waited"] for line in lines) / sum(line["seconds"] for line in lines), 4
    )
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
