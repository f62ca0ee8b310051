"""Measures pre-training on one GPU beside nanochat's code: MFU, tokens per second, peak memory, and the time to a fixed loss.

    corpusmill tokens export RUN --format nanogpt --output exports/demo
    python benchmarks/gpu.py exports/demo/train.bin --nanochat CHECKOUT [--size 124m] [--loss 4.0] [--rows 32] [--steps 2000]

Both train on the same rows of the same tokens, each with its own model, optimiser and default rates: `124m` is our `85m` with a head and
an embedding beside nanochat's d12, `1b` our `llama3.2-1b` beside d18. Time to the loss is that of all steps until the mean of 20 training
losses is below it, without the first three, which compile. MFU counts as docs/stages/pretrain.md says, for both. Without a GPU it
prints one sentence.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# isort: off
import corpusmill.train  # noqa: F401 - before torch

# isort: on
import numpy as np
import torch
from loop_overhead import TokenArray

from corpusmill.train.compute import deterministic
from corpusmill.train.data import DataShare, WindowLoader, to_device
from corpusmill.train.model import Objective, blank_model
from corpusmill.train.options import LoopConfig, ModelConfig
from corpusmill.train.parallel import ParallelDims
from corpusmill.train.parallel.model import optimizer_of, prepare
from corpusmill.train.watch import flops_per_token, peak_flops

CONTEXT, WARM, RECENT = 1024, 3, 20
#: Our preset, and nanochat's layers, width and heads.
SIZES = {"124m": ("85m", 12, 768, 6), "1b": ("llama3.2-1b", 18, 1152, 9)}
#: A step takes a batch's number and returns its mean loss, still on the device.
Step = Callable[[int], torch.Tensor]


class Windows(Objective):
    def __init__(self, loader: WindowLoader, device: torch.device):
        self.loader, self.device = loader, device

    def batches(self, step: int, share: DataShare) -> Any:
        yield to_device(self.loader.load(step), self.device)


def ours(preset: str, loader: WindowLoader, vocabulary: int, device: torch.device) -> tuple[Step, float]:
    """Returns our step, and its operations per token."""
    shape = ModelConfig.model_validate({"preset": preset, "context": CONTEXT, "qk_norm": True}).architecture(vocabulary)
    config, dims = LoopConfig(), ParallelDims.single(device)
    model = prepare(blank_model(shape), dims, config, start=1)
    optimizer, objective = optimizer_of(model, config.optimizer, bf16=True), Windows(loader, device)

    def step(number: int) -> torch.Tensor:
        optimizer.zero_grad()
        (part,) = model.backward(objective, number)
        grads = [p.grad for p in model.parameters.values() if p.grad is not None]
        torch._foreach_mul_(grads, 1 / (loader.batch * CONTEXT))
        torch.nn.utils.clip_grad_norm_(list(model.parameters.values()), config.clip)
        optimizer.step(1.0)
        return part.total.detach() / (loader.batch * CONTEXT)

    return step, flops_per_token(shape)


def theirs(checkout: Path, size: tuple[int, int, int], loader: WindowLoader, vocabulary: int, device: torch.device) -> tuple[Step, float]:
    """Returns nanochat's step, and its operations per token."""
    sys.path.insert(0, str(checkout))
    from nanochat.gpt import GPT, GPTConfig  # type: ignore[import-not-found]

    layers, width, heads = size
    with torch.device("meta"):
        model = GPT(GPTConfig(CONTEXT, vocabulary, n_layer=layers, n_head=heads, n_kv_head=heads, n_embd=width))
    model.to_empty(device=device)
    model.init_weights()
    found = model.setup_optimizers() if hasattr(model, "setup_optimizers") else model.setup_optimizer()
    optimizers = found if isinstance(found, list | tuple) else [found]
    compiled: Any = torch.compile(model, dynamic=False)
    weights = sum(p.numel() for p in model.parameters()) - model.transformer.wte.weight.numel()

    def step(number: int) -> torch.Tensor:
        ids, targets, _ = to_device(loader.load(number), device)
        with torch.autocast(device.type, torch.bfloat16):
            loss: torch.Tensor = compiled(ids, targets)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        return loss.detach()

    return step, 6.0 * weights + 12.0 * layers * width * CONTEXT


def measure(name: str, step: Step, flops: float, tokens: int, wanted: float, steps: int, device: torch.device) -> dict[str, Any]:
    """Takes steps until the loss is reached, or `steps`."""
    torch.cuda.reset_peak_memory_stats()
    losses, seconds = list[float](), list[float]()
    while len(losses) < steps and (len(losses) < RECENT + WARM or statistics.mean(losses[-RECENT:]) > wanted):
        started = time.perf_counter()
        losses.append(step(len(losses)).item())
        seconds.append(time.perf_counter() - started)
    speed = tokens / statistics.median(seconds[WARM:])
    peak, reached = peak_flops(device), statistics.mean(losses[-RECENT:])
    return {
        "code": name, "card": torch.cuda.get_device_name(device), "mfu": round(speed * flops / peak, 4) if peak else None,
        "tokens_per_second": round(speed), "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2), "steps": len(losses),
        "loss": round(reached, 4), "seconds_to_loss": round(sum(seconds[WARM:]), 1) if reached <= wanted else None,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tokens", type=Path, help="ids in uint16, as nanoGPT's train.bin")
    parser.add_argument("--nanochat", type=Path, metavar="CHECKOUT")
    parser.add_argument("--size", choices=SIZES, default="124m")
    parser.add_argument("--loss", type=float, default=4.0)
    for name, value in (("rows", 32), ("steps", 2000), ("vocabulary", 32768)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("This machine has no GPU that torch can use, so nothing is measured.")
        return
    device, (preset, *size) = torch.device("cuda"), SIZES[given.size]
    loader = WindowLoader(TokenArray(np.fromfile(given.tokens, np.uint16)), CONTEXT, given.rows, 0, document_mask=False)
    made: dict[str, Callable[[], tuple[Step, float]]] = {"corpusmill": lambda: ours(preset, loader, given.vocabulary, device)}
    if given.nanochat:
        made["nanochat"] = lambda: theirs(given.nanochat, tuple(size), loader, given.vocabulary, device)  # type: ignore[arg-type]
    for name, make in made.items():
        with deterministic() if name == "corpusmill" else torch.enable_grad():
            result = measure(name, *make(), given.rows * CONTEXT, given.loss, given.steps, device)
        print(json.dumps(result))
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
