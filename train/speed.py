"""How fast a training is: tokens and arithmetic a second, the share of the hardware's peak (MFU), waiting, memory, time left.

Floating point operations a token are 6 N + 12 L H d T, as PaLM (arXiv 2204.02311, appendix B) and torchtitan count them: N parameters
without the input embedding (with it where it is the output head, too), L layers, H heads of width d, T the context; no discount for
causal masks, nothing for what is computed again. MFU is that times tokens a second, divided by the peak of all devices in bf16.
"""

import re
import resource
import sys
import time
from collections import deque
from typing import Any

import torch

from corpusmill.train.architecture import Architecture

#: Peak bf16 FLOP/s without sparsity, from the vendors' data sheets, by a part of the device's name; the first that fits counts.
PEAKS = {
    "B200": 2250e12, "H200": 989e12, "H100 NVL": 835e12, "H100 PCIe": 756e12, "H100": 989e12, "H800": 989e12, "GH200": 989e12,
    "A100": 312e12, "A800": 312e12, "A40": 149.7e12, "A30": 165e12, "A10": 125e12, "L40S": 362e12, "L40": 181e12, "L4": 121e12,
    "RTX 5090": 209.5e12, "RTX 4090": 165.2e12, "RTX 3090": 71e12, "RTX A6000": 154.8e12, "RTX 6000 Ada": 364.2e12,
    "MI300X": 1307e12, "MI250": 362e12,
}  # fmt: skip
#: Steps over which the bar's speed is a mean.
RECENT = 20


def flops_per_token(arch: Architecture) -> float:
    """Floating point operations of forward and backward for each token of rows of `arch.context`."""
    parameters = arch.parameters() - (0 if arch.tied else arch.vocab_size * arch.width)
    return 6.0 * parameters + 12.0 * arch.layers * arch.heads * arch.head_dim * arch.context


def peak_flops(device: torch.device) -> float | None:
    """The device's peak in bf16; None for CPUs and for names that are not in the table."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if re.search(rf"\b{part}\b", name)), None)


class Meter:
    """Turns what steps took into lines for `speed.jsonl`; `flops` are those of a token, `devices` compute together."""

    def __init__(self, begin: int, steps: int, device: torch.device, flops: float, devices: int):
        self.begin, self.steps, self.device, self.flops = begin, steps, device, flops
        peak = peak_flops(device)
        self.peak = peak * devices if peak else None
        self.started = time.perf_counter()
        self.recent: deque[tuple[int, float]] = deque(maxlen=RECENT)

    def line(self, step: int, tokens: int, seconds: float, waited: float) -> dict[str, Any]:
        """What one step of `tokens` was like; `seconds` without evaluation and saving, which `seconds_left` takes into account."""
        speed = tokens / max(seconds, 1e-9)
        self.recent.append((tokens, seconds))
        each = (time.perf_counter() - self.started) / (step + 1 - self.begin)
        line = {"step": step, "seconds": seconds, "waited": waited, "tokens_per_second": speed, "flops_per_second": speed * self.flops,
                "memory_bytes": peak_memory(), "seconds_left": each * (self.steps - step - 1), "steps": self.steps}  # fmt: skip
        if self.peak:
            line["mfu"] = line["flops_per_second"] / self.peak
        if self.device.type == "cuda":
            line["cuda_bytes"] = torch.cuda.max_memory_allocated(self.device)
        return line

    def tokens_per_second(self) -> float:
        """Over the latest steps."""
        return sum(tokens for tokens, _ in self.recent) / max(sum(seconds for _, seconds in self.recent), 1e-9)


def peak_memory() -> int:
    """The most bytes that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
