"""Measures pre-training speed: a step next to a plain loop over `transformers`' Llama of the same shape, loop overhead, loader.

    python benchmarks/pretrain.py [--preset 2m] [--batch 8] [--context 256] [--vocabulary 2048] [--steps 30] [--threads 2]

Both sides train on the same windows of random tokens, in turns, and the medians are compared. Prints one JSON object.
OMP_WAIT_POLICY=ACTIVE is faster where nothing else runs on the machine.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# isort: off
import corpusmill.train  # noqa: F401 - before torch, so that threads wait as they do in a run

# isort: on
import numpy as np
import torch

from corpusmill.train.data import Batch, DataShare, TokenArray, WindowLoader
from corpusmill.train.loop import fit
from corpusmill.train.losses import TokenObjective, token_nats
from corpusmill.train.model import Llama, initialise
from corpusmill.train.model_folder import load_model, save_model
from corpusmill.train.optim import Optimizer
from corpusmill.train.options import LoopConfig, ModelConfig, OptimizerConfig


def random_tokens(tokens: int, vocabulary: int) -> TokenArray:
    """Makes random ids as in shards: documents of about 500 tokens."""
    rng = np.random.default_rng(0)
    ids = rng.integers(4, vocabulary, tokens, dtype=np.uint16)
    ids[rng.random(tokens) < 1 / 500] = 0
    return TokenArray(ids)


def in_turns(steps: int, *work: Callable[[int], None]) -> list[float]:
    """Returns the median seconds of each of several kinds of step, taken in turns; the first three rounds are warm-up."""
    seconds: list[list[float]] = [[] for _ in work]
    for step in range(steps + 3):
        for kind, one in enumerate(work):
            started = time.perf_counter()
            one(step)
            seconds[kind].append(time.perf_counter() - started)
    return [statistics.median(s[3:]) for s in seconds]


def plain_step(loader: WindowLoader, model: Llama, kind: str) -> Callable[[int], None]:
    """Returns a step of corpusmill's model and optimiser in three lines, without the loop around them."""
    optimizer = Optimizer(dict(model.named_parameters()), OptimizerConfig(kind=kind))  # type: ignore[arg-type]

    def step(number: int) -> None:
        ids, targets, segments = loader.load(number)
        (token_nats(model(ids, segments), targets).sum() / targets.numel()).backward()
        optimizer.step(1.0)
        optimizer.zero_grad()

    return step


def transformers_step(loader: WindowLoader, folder: Path) -> Callable[[int], None]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, fused=True)

    def step(number: int) -> None:
        ids, targets, _ = loader.load(number)
        logits = model(ids, use_cache=False).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


class _Windows(TokenObjective):
    """The windows of a loader, one batch for each step."""

    def __init__(self, loader: WindowLoader):
        self.loader = loader

    def batches(self, step: int, share: DataShare) -> Iterator[Batch]:
        yield self.loader.load(step)


def loop_seconds(loader: WindowLoader, model: Llama, folder: Path, steps: int, kind: str) -> float:
    """Returns the seconds a step in the whole loop: guards, clipping, log and the final save included."""

    config = LoopConfig(steps=steps, optimizer=OptimizerConfig(kind=kind), save_every=steps + 1)  # type: ignore[arg-type]
    return fit(model, _Windows(loader), config, state=folder / "state", log=folder / "log.jsonl").seconds / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="2m")
    for name, value in (("batch", 8), ("context", 256), ("vocabulary", 2048), ("steps", 30), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    shape = ModelConfig.model_validate({"preset": given.preset, "context": given.context}).architecture(given.vocabulary)
    tokens = random_tokens(20_000_000, given.vocabulary)
    masked, unmasked = (WindowLoader(tokens, given.context, given.batch, 0, mask) for mask in (True, False))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = Llama(shape)
        initialise(model, 0)
        save_model(model, folder / "model")
        adamw, muon, mask, theirs = in_turns(
            given.steps,
            plain_step(unmasked, load_model(folder / "model"), "adamw"),
            plain_step(unmasked, load_model(folder / "model"), "muon"),
            plain_step(masked, load_model(folder / "model"), "muon"),
            transformers_step(unmasked, folder / "model"),
        )
        loop = loop_seconds(masked, load_model(folder / "model"), folder, given.steps, "muon")
    many = WindowLoader(tokens, given.context, 512, 0, True)
    started = time.perf_counter()
    for step in range(20):
        many.load(step)
    loader = 20 * 512 * given.context / (time.perf_counter() - started)
    result = {
        "parameters": shape.parameters(), "tokens_a_step": given.batch * given.context, "threads": given.threads,
        "ms_adamw": 1e3 * adamw, "ms_muon": 1e3 * muon, "ms_muon_document_mask": 1e3 * mask, "ms_transformers_adamw": 1e3 * theirs,
        "ms_whole_loop": 1e3 * loop, "tokens_per_second": given.batch * given.context / loop, "loader_tokens_per_second": loader,
    }  # fmt: skip
    print(json.dumps({key: round(value, 1) for key, value in result.items()}, indent=1))


if __name__ == "__main__":
    main()
