"""Compares Tiny Shakespeare by characters: corpusmill's recipe and nanoGPT's train_shakespeare_char with its README's CPU flags.

    python benchmarks/shakespeare.py tinyshakespeare.txt [--nanogpt CHECKOUT] [--long-steps 900] [--rounds 60] [--threads 2]

Shows three things. corpusmill reaches nanoGPT's loss in a fraction of its time (`corpusmill run recipes/shakespeare-char.yaml`
unchanged); in nanoGPT's own time it ends lower (`--long-steps`); and with nanoGPT's sizes and optimiser settings its step takes no longer.

Losses are nats a character over the whole validation text, the last 10% of the file, in windows of 64 one after the other. nanoGPT's
windows predict each character from the 1 to 64 before it, and leave out the text's first character and its last 51. corpusmill predicts
all 111,540 from as many, except the very first, which has none before it. Training times are of all steps, without start-up, evaluation
and saving. A command's time is of all its work: nanoGPT's `python train.py`, corpusmill's from the file to the report.

Without `--nanogpt`, recorded results (2 cores of an EPYC) and a plain PyTorch loop over the GPT-2 of `transformers`, with the
same sizes, settings and text, replace it. The recipe's settings were chosen by the loss on this validation text.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# isort: off
import corpusmill.train  # noqa: F401 - before torch, so that threads wait as they do in a run

# isort: on
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from corpusmill.train.data import Batch, DataShare
from corpusmill.train.loop import fit
from corpusmill.train.model import Llama, Objective, StepLoss, initialise, target_nats
from corpusmill.train.options import Architecture, LoopConfig, ModelConfig, OptimizerConfig

RECIPE = Path(__file__).parent.parent / "recipes" / "shakespeare-char.yaml"
BATCH, CONTEXT, STEPS, EVALUATED = 12, 64, 2000, 250
#: nanoGPT's README, "I only have a macbook": the flags for a CPU.
FLAGS = {
    "device": "cpu", "compile": False, "eval_iters": 20, "log_interval": 1, "block_size": CONTEXT, "batch_size": BATCH, "n_layer": 4,
    "n_head": 4, "n_embd": 128, "max_iters": STEPS, "lr_decay_iters": STEPS, "dropout": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class Figures:
    """Results of one training; `command` is None where only a loop was timed."""

    name: str
    parameters: int
    steps: int
    nats: float
    training: float
    command: float | None


RECORDED = Figures("nanoGPT (recorded)", 804_096, STEPS, 1.898, 65.0, 70.0)


def timed(command: list[str], folder: Path | None = None) -> tuple[float, str]:
    """Returns a command's seconds and its output."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-2000:]}")
    return seconds, done.stdout


def ours(name: str, text: Path, folder: Path, *sets: str) -> Figures:
    options = [part for one in sets for part in ("--set", one)]
    seconds, _ = timed([sys.executable, "-m", "corpusmill", "run", str(RECIPE), str(text), "--output", str(folder), *options])
    metrics = json.loads((folder / "pretrain" / "metrics.json").read_bytes())
    training = sum(json.loads(line)["seconds"] for line in (folder / "pretrain" / "logs" / "speed.jsonl").read_text().splitlines())
    return Figures(name, metrics["parameters"], metrics["steps"], metrics["validation"]["nats_per_token"], training, seconds)


def nanogpt(checkout: Path, text: Path, work: Path) -> Figures:
    """Runs nanoGPT itself, in a copy of its checkout."""
    folder = work / "nanoGPT"
    shutil.copytree(checkout, folder, ignore=shutil.ignore_patterns(".git", "out*"))
    data = folder / "data" / "shakespeare_char"
    shutil.copy(text, data / "input.txt")
    timed([sys.executable, "prepare.py"], data)
    flags = [f"--{name}={value}" for name, value in FLAGS.items()]
    seconds, printed = timed([sys.executable, "train.py", "config/train_shakespeare_char.py", *flags], folder)
    took = {int(number): float(ms) for number, ms in re.findall(r"^iter (\d+): loss [\d.]+, time ([\d.]+)ms", printed, re.MULTILINE)}
    plain = [ms for number, ms in took.items() if number % EVALUATED and number]
    training = len(took) * statistics.mean(plain) / 1e3
    measured = timed([sys.executable, "-c", MEASURE], folder)[1].splitlines()[-1]
    parameters, nats = json.loads(measured)
    return Figures("nanoGPT", parameters, STEPS, nats, training, seconds)


#: Run in nanoGPT's folder: evaluates its saved model on the whole validation text.
MEASURE = """
import json, numpy as np, torch, torch.nn.functional as F
from model import GPT, GPTConfig
kept = torch.load("out-shakespeare-char/ckpt.pt", map_location="cpu", weights_only=False)
model = GPT(GPTConfig(**kept["model_args"])).eval()
model.load_state_dict({name.removeprefix("_orig_mod."): weight for name, weight in kept["model"].items()})
text = torch.from_numpy(np.fromfile("data/shakespeare_char/val.bin", np.uint16).astype(np.int64))
size = model.config.block_size
windows = (len(text) - 1) // size
ids, targets = text[: windows * size].view(-1, size), text[1 : windows * size + 1].view(-1, size)
with torch.no_grad():
    total = sum(F.cross_entropy(model(x, y)[0].flatten(0, 1), y.flatten(), reduction="sum").item()
                for x, y in zip(ids.split(128), targets.split(128)))
print(json.dumps([sum(p.numel() for p in model.parameters()), total / targets.numel()]))
"""


class Text:
    """The file as nanoGPT sees it: characters by number, the first 90% for training."""

    def __init__(self, path: Path):
        text = path.read_text()
        numbers = {character: number for number, character in enumerate(sorted(set(text)))}
        ids = torch.tensor([numbers[character] for character in text])
        border = int(0.9 * len(ids))
        self.train, self.validation, self.vocabulary = ids[:border], ids[border:], len(numbers)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields batches without end, at random but reproducible places."""
        generator = torch.Generator().manual_seed(1337)
        while True:
            starts = torch.randint(len(self.train) - CONTEXT, (BATCH,), generator=generator)
            rows = self.train[starts[:, None] + torch.arange(CONTEXT + 1)]
            yield rows[:, :-1], rows[:, 1:]

    def windows(self) -> Iterator[tuple[Tensor, Tensor]]:
        count = (len(self.validation) - 1) // CONTEXT * CONTEXT
        ids, targets = (self.validation[begin : begin + count].view(-1, CONTEXT) for begin in (0, 1))
        return zip(ids.split(128), targets.split(128), strict=True)


def make_gpt2(vocabulary: int) -> Any:
    """Returns `transformers`' GPT-2 with nanoGPT's sizes and initial weights: without dropout, biases at zero and never trained."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(1337)
    none = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary, n_positions=CONTEXT, n_embd=128, n_layer=4, n_head=4, bos_token_id=None, eos_token_id=None, **none
        )
    )
    for name, weight in model.named_parameters():
        weight.requires_grad_(not name.endswith("bias"))
    return model


def adamw(model: Any) -> torch.optim.Optimizer:
    """Returns AdamW with nanoGPT's settings for this text; decay on matrices only."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=False)


def gpt2_step(model: Any, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor]) -> None:
    ids, targets = batch
    logits = model(ids, use_cache=False).logits
    F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def gpt2(text: Text) -> Figures:
    """Runs a plain loop over GPT-2, at nanoGPT's learning rates: 100 steps of warm-up, then a cosine to a tenth."""
    model = make_gpt2(text.vocabulary)
    optimizer, batches = adamw(model), text.batches()
    started = time.perf_counter()
    for step in range(STEPS + 1):
        rate = (step + 1) / 101 if step < 100 else 0.1 + 0.45 * (1 + np.cos(np.pi * (step - 100) / (STEPS - 100)))
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * rate
        gpt2_step(model, optimizer, next(batches))
    seconds = time.perf_counter() - started
    total = count = 0.0
    with torch.no_grad():
        for ids, targets in text.windows():
            total += F.cross_entropy(model(ids).logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
            count += targets.numel()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Figures("GPT-2 of transformers, plain loop", trained, STEPS, total / count, seconds, None)


class Driven(torch.nn.Module):
    """GPT-2 with the interface of corpusmill's model, so that corpusmill's loop can train it."""

    def __init__(self, gpt2: Any, arch: Architecture):
        super().__init__()
        self.gpt2, self.device = gpt2, gpt2.device
        self.arch = arch  # the log's FLOP/s are computed from it

    @property
    def model(self) -> "Driven":
        return self

    def switch(self, **_: bool) -> None:
        """Does nothing: this model is neither compiled nor recomputed."""

    def forward(self, ids: Tensor, segments: Tensor | None, targets: Tensor, summed: bool) -> Tensor:
        return target_nats(self.gpt2.lm_head, self.gpt2.transformer(ids, use_cache=False).last_hidden_state, targets, summed=summed)


class Turns(Objective):
    """Batches of the text for corpusmill's loop; between any two of its steps the plain loop takes one, and both are timed.

    corpusmill's steps are timed from one forward pass to the next: a thread makes batches ahead, so batches do not mark its steps.
    """

    def __init__(self, text: Text, other: Callable[[], None]):
        self.text, self.other, self.began = text.batches(), other, 0.0
        self.ours: list[float] = []
        self.theirs: list[float] = []

    def batches(self, step: int, share: DataShare) -> Iterator[Batch]:
        yield *next(self.text), None

    def loss(self, model: Any, batch: Batch) -> StepLoss:
        now = time.perf_counter()
        self.ours += [now - self.began] if self.began else []
        self.other()
        self.began = time.perf_counter()
        self.theirs.append(self.began - now)
        return super().loss(model, batch)

    def medians(self) -> tuple[float, float]:
        """Returns milliseconds of a step of corpusmill's and of the plain loop; the first three are warm-up."""
        return 1e3 * statistics.median(self.ours[3:]), 1e3 * statistics.median(self.theirs[3:])


def beside(text: Text, model: Any, rounds: int, work: Path, **changes: Any) -> tuple[float, float]:
    """Runs corpusmill's whole loop (clipping, guards, log) on `model` with nanoGPT's optimiser, in turns with the plain loop over GPT-2."""
    gpt2 = make_gpt2(text.vocabulary)
    optimizer, batches = adamw(gpt2), text.batches()
    turns = Turns(text, lambda: gpt2_step(gpt2, optimizer, next(batches)))
    settings = OptimizerConfig(kind="adamw", lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)
    config = LoopConfig(steps=rounds + 4, optimizer=settings, schedule="cosine", warmup=100, min_lr=0.1, save_every=1 << 30,
                        **{"precision": "fp32", **changes})  # fmt: skip
    with tempfile.TemporaryDirectory(dir=work) as folder:
        fit(model, turns, config, state=Path(folder) / "state", log=Path(folder) / "log.jsonl")
    return turns.medians()


def compare_steps(text: Text, rounds: int, work: Path) -> None:
    shape = ModelConfig.model_validate({"preset": "0.8m", "context": CONTEXT}).architecture(text.vocabulary)
    print(f"\nmilliseconds a step of {BATCH} x {CONTEXT} characters with AdamW, medians of {rounds} in turns with a plain loop over GPT-2")
    for name, make, changes in (
        (f"our Llama ({shape.parameters():,} parameters)", lambda: Llama(shape), {}),
        ("our Llama, bf16 autocast", lambda: Llama(shape), {"precision": "bf16"}),
        ("GPT-2 in our loop", lambda: Driven(make_gpt2(text.vocabulary), shape), {}),
    ):
        model = make()
        if isinstance(model, Llama):
            initialise(model, 1)
        mine, plain = beside(text, model, rounds, work, **changes)
        print(f"  {name:40} {mine:7.1f}   plain loop {plain:7.1f}   ratio {mine / plain:.2f}")


def show(rows: list[Figures]) -> None:
    first = rows[0]
    print(f"{'':42}{'parameters':>11}{'steps':>7}{'nats/char':>11}{'training s':>12}{'of its':>8}{'command s':>11}{'of its':>8}")
    for row in rows:
        command = "" if row.command is None else f"{row.command:11.1f}{row.command / first.command if first.command else 0:8.2f}"
        share = f"{row.training / first.training:8.2f}"
        print(f"{row.name:42}{row.parameters:11,}{row.steps:7,}{row.nats:11.4f}{row.training:12.1f}{share}{command}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--nanogpt", type=Path, metavar="CHECKOUT")
    for name, value in (("long-steps", 900), ("rounds", 60), ("threads", os.cpu_count() or 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    text = Text(given.text)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        rows = [nanogpt(given.nanogpt, given.text, work)] if given.nanogpt else [RECORDED, gpt2(text)]
        rows.append(ours("corpusmill, the recipe", given.text, work / "recipe"))
        rows.append(ours("corpusmill, nanoGPT's time", given.text, work / "long", f"pretrain.loop.steps={given.long_steps}"))
        show(rows)
        compare_steps(text, given.rounds, work)


if __name__ == "__main__":
    main()
