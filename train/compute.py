"""How torch computes: on which device, with how many threads, with deterministic kernels, in which number types."""

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from corpusmill.train.parallel import ParallelDims

# ---- memory of a CPU ---------------------------------------------------------------------------------
#
# glibc gives freed blocks above 128 KiB back to the system, so a step of a 0.8M model asks for some 4,000 pages again, and waits for each.
# Keeping blocks up to 32 MiB, and 1 GiB in all, saves a tenth of that step, and half of an evaluation. Other C libraries have no `mallopt`.

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
if hasattr(_libc := ctypes.CDLL(None), "mallopt"):
    _libc.mallopt(M_MMAP_THRESHOLD, 2**25)
    _libc.mallopt(M_TRIM_THRESHOLD, 2**30)

# ---- device and determinism --------------------------------------------------------------------------


def pick_device(name: str = "auto") -> torch.device:
    """Returns the named device; `auto` is the GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@contextmanager
def deterministic(threads: int = 0) -> Iterator[None]:
    """Makes equal work give equal bits inside the block: deterministic kernels and a fixed number of threads (0: unchanged).

    With a GPU, products of fp32 matrices are in TF32. Kernels without a deterministic form are allowed; see `passes`.
    """
    switches: Any = torch.utils.deterministic
    before = (torch.get_deterministic_debug_mode(), switches.fill_uninitialized_memory, torch.get_num_threads(),
              torch.get_float32_matmul_precision())  # fmt: skip
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with a workspace of its own
    _be_deterministic(1)
    switches.fill_uninitialized_memory = False  # costs time and changes no result that is read
    if threads:
        torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        _be_deterministic(before[0])
        switches.fill_uninitialized_memory = before[1]
        torch.set_num_threads(before[2])
        torch.set_float32_matmul_precision(before[3])


def _be_deterministic(mode: int) -> None:
    """Sets torch's mode: 0 any kernels, 1 deterministic ones where they exist. With a GPU also the compiler's, whose import takes two
    seconds; on a CPU the compiler has no other kernels to choose."""
    if torch.cuda.is_available():
        torch.use_deterministic_algorithms(mode > 0, warn_only=mode == 1)
    else:
        torch.set_deterministic_debug_mode(mode)


# ---- compiled code ------------------------------------------------------------------------------


def compiles(device: torch.device, option: bool | str) -> bool:
    """Returns whether `loop.compile` means that a model on this device is compiled; `auto` means on a GPU."""
    return device.type == "cuda" if option == "auto" else bool(option)


_compiled = cache(torch.compile)


def fused(function: Any) -> Any:
    """Returns a function of a module that is compiled at its first use: once for a fixed shape, once more for changing ones."""
    return function if torch.compiler.is_compiling() else _compiled(function)


# ---- precision ---------------------------------------------------------------------------------------
#
# Weights, gradients, moments and saved states are always fp32.
#
# `bf16` is torch's autocast: matrix products in 16 bits, sums and norms in 32. `bf16-params` computes with weights rounded to bf16, so all
# values between them are bf16, too. The fp32 weights stay as master weights. (`MixedPrecisionPolicy` of FSDP2 does the same with shards.)


#: A training in bf16 gets a warning where a product takes this many times as long as in fp32; a step then takes about twice as long.
SLOW = 3.0


@cache
def bf16_cost() -> float:
    """Returns the time of a matrix product in bf16 on this CPU, as a multiple of that in fp32, by processor time of one thread.

    Measured and not asked, as the answer depends on the processor, on how torch was built, and on limits in the environment
    (`ATEN_CPU_CAPABILITY`, `ONEDNN_MAX_CPU_ISA`): 0.3 with AMX, 4 to 5 with AVX-512 alone, 40 to 65 with AVX2. It takes 2 to 100 ms.
    """
    threads, best = torch.get_num_threads(), []
    torch.set_num_threads(1)
    for kind in (torch.float32, torch.bfloat16):
        matrix, times = torch.ones(256, 256, dtype=kind), [time.thread_time()]
        for _ in range(4):  # the first prepares kernels
            torch.mm(matrix, matrix)
            times.append(time.thread_time())
        best.append(min(end - begin for begin, end in pairwise(times)))
    torch.set_num_threads(threads)
    return best[1] / max(best[0], 1e-9)


def chosen(dims: "ParallelDims", precision: str) -> str:
    """Returns the precision that `auto` means on this process's device."""
    if precision != "auto":
        return precision
    if not (torch.cuda.is_bf16_supported(including_emulation=False) if dims.device.type == "cuda" else bf16_cost() < 1):
        return "fp32"
    # a zero-bubble schedule can't add up the gradients of weights in bf16
    return "bf16" if dims.config.pipeline > 1 and dims.config.schedule == "zero-bubble" else "bf16-params"


def slow_precision(device: torch.device, precision: str) -> str | None:
    """Returns a warning where this processor computes much more slowly in the precision than in fp32."""
    if precision == "fp32" or device.type != "cpu" or bf16_cost() < SLOW:
        return None
    return f"loop.precision: this processor emulates bf16, so {precision} is many times slower than fp32; auto takes what is fast."


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Returns a context for forward passes: matrix products in 16 bits where the precision is `bf16`."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


@contextmanager
def rounded(model: nn.Module, precision: str) -> Iterator[None]:
    """A context for forward and backward passes: with `bf16-params`, the model's weights are bf16 inside the block.

    Gradients arrive at the fp32 weights, where those of several micro-batches are added up.
    """
    if precision != "bf16-params":
        yield
        return
    places = [(module._parameters, name, p) for module in model.modules() for name, p in module._parameters.items() if p is not None]
    casts = {p: p.to(torch.bfloat16) for p in dict.fromkeys(p for _, _, p in places)}  # one for each weight, tied or not
    try:
        for parameters, name, p in places:
            parameters[name] = casts[p]  # type: ignore[assignment]
        yield
    finally:
        for parameters, name, p in places:
            parameters[name] = p


@contextmanager
def passes(model: nn.Module, device: torch.device, precision: str) -> Iterator[None]:
    """A context for the forward and backward passes of a step: `rounded`, and on a GPU no kernel that adds in any order. Attention has
    deterministic gradients only where others are an error."""
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    strict = device.type == "cuda" and torch.are_deterministic_algorithms_enabled()
    if strict:
        torch.use_deterministic_algorithms(True)
    try:
        with rounded(model, precision):
            yield
    finally:
        if strict:
            torch.use_deterministic_algorithms(True, warn_only=warn_only)
