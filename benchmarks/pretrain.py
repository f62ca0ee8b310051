"""Measures pre-training speed: a step next to a plain loop over `transformers`' Llama of the same shape.

    python benchmarks/pretrain.py [--preset 2m] [--batch 8] [--context 256] [--vocabulary 2048] [--steps 30] [--threads 2]

Both sides train on the same windows of random tokens, in turns, and the medians are compared. Prints one JSON object.
OMP_WAIT_POLICY=ACTIVE is faster where nothing else runs on the machine.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# isort: off
import corpusmill.train  # noqa: F401 - before torch, so that threads wait as they do in a run

# isort: on
import numpy as np
import torch
from loop_overhead import TokenArray, bare_step

from corpusmill.train.checkpoint import load_model, save_model
from corpusmill.train.data import WindowLoader
from corpusmill.train.model import Llama, initialise
from corpusmill.train.options import ModelConfig


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
            bare_step(unmasked, load_model(folder / "model"), "adamw"),
            bare_step(unmasked, load_model(folder / "model"), "muon"),
            bare_step(masked, load_model(folder / "model"), "muon"),
            transformers_step(unmasked, folder / "model"),
        )
    result = {
        "parameters": shape.parameters(), "tokens_a_step": given.batch * given.context, "threads": given.threads,
        "ms_adamw": 1e3 * adamw, "ms_muon": 1e3 * muon, "ms_muon_document_mask": 1e3 * mask, "ms_transformers_adamw": 1e3 * theirs,
    }  # fmt: skip
    print(json.dumps({key: round(value, 1) for key, value in result.items()}, indent=1))


if __name__ == "__main__":
    main()
