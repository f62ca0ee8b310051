"""Reports on a running training: logs with a line for each step, its speed, a bar on the terminal, TensorBoard and W&B.

No file that a task publishes depends on this module's output.
"""

import json
import math
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.engine import peak_memory_mb
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train.options import Architecture, LoopConfig
from corpusmill.train.parallel import ParallelDims

# ---- logs --------------------------------------------------------------------------------------------
#
# One JSON line for each step. Times are in a separate file, so the other logs of equal runs are equal.


def open_log(path: Path, begin: int) -> IO[bytes]:
    """Opens a log to append lines. Removes the lines of steps from `begin` on, which will be redone, and a line that was cut short."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file: IO[bytes] = open(path, "ab+")
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror}).") from error
    kept = 0
    file.seek(0)
    for line in file:
        try:
            if not line.endswith(b"\n") or parse_json(line)["step"] >= begin:
                break
        except (ValueError, KeyError, TypeError):
            break
        kept += len(line)
    file.truncate(kept)
    return file


def _finite(value: Any) -> Any:
    """Returns the value with NaN and infinity as text, as JSON has no such numbers."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


# ---- speed -------------------------------------------------------------------------------------------
#
# Tokens and arithmetic per second, the share of the hardware's peak (MFU), waiting, memory, time left.
#
# Floating point operations per token are 6 N + 12 L H d T, as in PaLM (arXiv 2204.02311, appendix B) and torchtitan: N parameters without
# the input embedding (with it where it is also the output head), L layers, H heads of width d, context T. Causal masks give no discount,
# and recomputation is not counted. MFU is this number times tokens per second, divided by the bf16 peak of all devices.

#: Peak bf16 FLOP/s without sparsity, from the vendors' data sheets, by a part of the device's name; the first match counts.
PEAKS = {
    "B200": 2250e12, "H200": 989e12, "H100 NVL": 835e12, "H100 PCIe": 756e12, "H100": 989e12, "H800": 989e12, "GH200": 989e12,
    "A100": 312e12, "A800": 312e12, "A40": 149.7e12, "A30": 165e12, "A10": 125e12, "L40S": 362e12, "L40": 181e12, "L4": 121e12,
    "RTX 5090": 209.5e12, "RTX 4090": 165.2e12, "RTX 3090": 71e12, "RTX A6000": 154.8e12, "RTX 6000 Ada": 364.2e12,
    "MI300X": 1307e12, "MI250": 362e12,
}  # fmt: skip


def flops_per_token(arch: Architecture, length: int | None = None, adapter: int = 0) -> float:
    """Returns the floating point operations of forward and backward per token, for rows of `length` (default: `arch.context`).

    `adapter` is the number of an adapter's parameters, where only these are trained: a frozen weight takes part in the forward pass and in
    the gradient of its input, 4 operations, but needs no gradient of its own.
    """
    parameters = arch.parameters() - (0 if arch.tied else arch.vocab_size * arch.width)
    products = 4.0 * parameters + 6.0 * adapter if adapter else 6.0 * parameters
    return products + 12.0 * arch.layers * arch.heads * arch.head_dim * (length or arch.context)


def peak_flops(device: torch.device) -> float | None:
    """Returns the device's peak in bf16; None for CPUs and unknown names."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if re.search(rf"\b{part}\b", name)), None)


# ---- the bar -----------------------------------------------------------------------------------------

#: The weight of earlier steps in the shown loss and speed, and the log's name of the shown score.
SMOOTHING, VALIDATION = 0.95, "validation_bits_per_byte"


@contextmanager
def loop_bar(
    progress: Progress | None, title: str, begin: int, steps: int
) -> Iterator[Callable[[Mapping[str, Any], Mapping[str, Any]], None]]:
    """Shows the bar of a training during the block, drawn twice a second. Yields a function that gives it a step: its line in the log, and
    its line of speed."""
    if progress is None or not progress.enabled:
        yield lambda line, speed: None
        return
    from rich import progress as rp
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    columns = (rp.TextColumn("{task.description}"), rp.BarColumn(None), rp.MofNCompleteColumn(), rp.TimeElapsedColumn(),
               rp.TimeRemainingColumn())  # fmt: skip
    bars, text = rp.Progress(*columns, expand=True), Text("", style="dim", overflow="ellipsis", no_wrap=True)
    task, loss, rate, skipped, score = bars.add_task(title, total=steps, completed=begin), math.nan, math.nan, 0, ""

    def smooth(before: float, value: float) -> float:
        return value if math.isnan(before) else SMOOTHING * before + (1 - SMOOTHING) * value

    def show(line: Mapping[str, Any], speed: Mapping[str, Any]) -> None:
        nonlocal loss, rate, skipped, score
        skipped += "skipped" in line
        loss, rate = loss if "skipped" in line else smooth(loss, line["loss"]), smooth(rate, speed["tokens_per_second"])
        if VALIDATION in line:
            score = f"val {line[VALIDATION]:.3f}"
        memory = speed.get("cuda_bytes", speed["memory_bytes"])
        parts = [
            f"loss {loss:.3f}", f"lr {line['lr']:.2g}", f"{rate:,.0f} tok/s",
            f"{speed['mfu']:.1%} MFU" if "mfu" in speed else "", f"{memory / 1e9:.1f} GB", f"{skipped} skipped" if skipped else "", score,
        ]  # fmt: skip
        text.plain = "  " + "  ".join(filter(None, parts))
        bars.update(task, completed=line["step"] + 1)

    with Live(Group(bars, text), console=progress.console, transient=True, refresh_per_second=2):
        yield show


# ---- TensorBoard and Weights & Biases ----------------------------------------------------------------

#: Prefixes of names that are sections in these programs; all other values are in the section `train`.
SECTIONS = ("validation", "speed")


@contextmanager
def tracker(kind: str, folder: Path, begin: int, title: str) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """Yields a function that gives a step's values to TensorBoard or W&B, which write below `folder`. They replace values that an earlier
    process wrote from step `begin` on. WANDB_MODE=offline sends nothing."""
    if kind == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(folder / "tensorboard"), purge_step=begin) as writer:

            def write(step: int, values: Mapping[str, float]) -> None:
                for name, value in values.items():
                    writer.add_scalar(name, value, step)

            yield write
        return
    import wandb

    known = folder / "wandb-id.txt"  # with the logs, so that a resumed training continues the same W&B run
    if not begin or not known.is_file():
        known.write_text(secrets.token_hex(8))
    project = os.environ.get("WANDB_PROJECT", "corpusmill")
    with wandb.init(project=project, id=known.read_text().strip(), resume="allow", dir=str(folder), name=title) as run:
        yield lambda step, values: run.log({name: value for name, value in values.items() if math.isfinite(value)}, step=step)


def numbers(line: Mapping[str, Any], section: str = "") -> dict[str, float]:
    """Flattens a log line into `section/name: number`, for example `validation_low` into `validation/low`."""
    found = {}
    for name, value in line.items():
        if isinstance(value, int | float) and name != "step":
            inside, _, rest = name.partition("_")
            found[f"{section}/{name}" if section else f"{inside}/{rest}" if inside in SECTIONS and rest else f"train/{name}"] = float(value)
    return found


# ---- all of it ---------------------------------------------------------------------------------------

#: Files beside the log: values that differ between equal runs, and texts that the model wrote.
SPEED, SAMPLES = "speed.jsonl", "samples.jsonl"


class Watch(ExitStack):
    """Reports on a training that begins at step `begin`; `flops`: operations per token. Only the first rank shows and writes anything."""

    def __init__(
        self, log: Path, begin: int, config: LoopConfig, dims: ParallelDims, flops: float, progress: Progress | None, title: str
    ):  # fmt: skip
        super().__init__()
        self.log, self.begin, self.config, self.dims, self.progress, self.title = log, begin, config, dims, progress, title
        self.flops, self.peak, self.started = flops, (peak_flops(dims.device) or 0.0) * dims.world, time.perf_counter()
        self.files: dict[str, IO[bytes]] = {}

    def __enter__(self) -> "Watch":
        if not self.dims.is_main:
            return self
        try:
            for name in (self.log.name, SPEED):
                self._open(name)
            self.trackers = [self.enter_context(tracker(kind, self.log.parent, self.begin, self.title)) for kind in self.config.log]
            self.show = self.enter_context(loop_bar(self.progress, self.title, self.begin, self.config.steps))
        except BaseException:  # a tracker can't be imported, say
            self.close()
            raise
        return self

    def step(self, line: dict[str, Any], tokens: int, seconds: float, waited: float) -> None:
        """Reports a finished step: its line, its `tokens`, the seconds it took (without evaluation) and waited for batches. The line's
        `samples`, if any, go into a separate file."""
        if not self.dims.is_main:
            return
        samples = line.pop("samples", None)
        speed = self.speed(line["step"], tokens, seconds, waited)
        self._write(self.log.name, line)
        self._write(SPEED, speed)
        if samples:
            self._write(SAMPLES, {"step": line["step"], "samples": samples})
        for track in self.trackers:
            track(line["step"], numbers(line) | numbers(speed, "speed"))
        self.show(line, speed)

    def speed(self, step: int, tokens: int, seconds: float, waited: float) -> dict[str, Any]:
        """Returns a step's line of `speed.jsonl`. `seconds` excludes evaluation and saving; `seconds_left` includes them."""
        speed, steps, device = tokens / max(seconds, 1e-9), self.config.steps, self.dims.device
        each = (time.perf_counter() - self.started) / (step + 1 - self.begin)
        line = {"step": step, "seconds": seconds, "waited": waited, "tokens_per_second": speed, "flops_per_second": speed * self.flops,
                "memory_bytes": peak_memory_mb() << 20, "seconds_left": each * (steps - step - 1), "steps": steps}  # fmt: skip
        if self.peak:
            line["mfu"] = line["flops_per_second"] / self.peak
        if device.type == "cuda":
            line["cuda_bytes"] = torch.cuda.max_memory_allocated(device)
        return line

    def _open(self, name: str) -> None:
        self.files[name] = self.enter_context(open_log(self.log.with_name(name), self.begin))

    def _write(self, name: str, line: dict[str, Any]) -> None:
        if name not in self.files:
            self._open(name)
        self.files[name].write(json.dumps(_finite(line)).encode() + b"\n")
        self.files[name].flush()

    def sync(self) -> None:
        """Makes the lines durable. Must be called before the state that follows them is saved."""
        for file in self.files.values():
            os.fsync(file.fileno())
