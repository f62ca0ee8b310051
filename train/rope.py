"""Rotary position embedding in the half-split layout of Hugging Face: the pairs are (i, i + head_dim / 2).

Angles are computed in fp32 whatever the model's type is: bf16 can represent only 769 of the positions 0 to 4095.
Frequencies are, to the bit, those that `transformers` computes (modeling_rope_utils.py).
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from corpusmill.train.architecture import Architecture, RopeScaling


def frequencies(arch: Architecture) -> tuple[Tensor, float]:
    """Radians a token, fp32 `[head_dim / 2]`, and what cosines and sines are multiplied by."""
    dim, theta, scaling = arch.head_dim, arch.rope_theta, arch.rope_scaling
    periods = theta ** (torch.arange(0, dim, 2, dtype=torch.int64, device="cpu").float() / dim)
    if scaling is None:
        return 1.0 / periods, 1.0
    if scaling.rope_type == "llama3":
        return _llama3(1.0 / periods, scaling), 1.0
    return _yarn(periods, theta, scaling), _attention_factor(scaling)


def _llama3(plain: Tensor, scaling: RopeScaling) -> Tensor:
    """Llama 3.1: what turns less than `low_freq_factor` times in the old context turns `factor` times slower, what turns more
    than `high_freq_factor` times stays, and between them it is mixed (llama-models, apply_scaling)."""
    old, low, high = scaling.original_max_position_embeddings, scaling.low_freq_factor, scaling.high_freq_factor
    wavelength = 2 * math.pi / plain
    slowed = torch.where(wavelength > old / low, plain / scaling.factor, plain)
    smooth = (old / wavelength - low) / (high - low)
    between = (wavelength >= old / high) & (wavelength <= old / low)
    return torch.where(between, (1 - smooth) * slowed / scaling.factor + smooth * slowed, slowed)


def _yarn(periods: Tensor, theta: float, scaling: RopeScaling) -> Tensor:
    """YaRN: from the dimension that turns `beta_fast` times in the old context to the one that turns `beta_slow` times a linear
    ramp from the plain frequency to the one that is `factor` times slower."""
    dim = 2 * len(periods)

    def dimension(turns: float) -> float:
        return dim * math.log(scaling.original_max_position_embeddings / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = (torch.arange(dim // 2, dtype=torch.float32, device="cpu") - low) / ((high - low) or 0.001)
    plain_share = 1 - ramp.clamp(0, 1)
    return 1.0 / (scaling.factor * periods) * (1 - plain_share) + 1.0 / periods * plain_share


def _attention_factor(scaling: RopeScaling) -> float:
    if scaling.attention_factor is not None:
        return scaling.attention_factor

    def temperature(weight: float) -> float:
        return 0.1 * weight * math.log(scaling.factor) + 1.0

    if scaling.mscale and scaling.mscale_all_dim:
        return temperature(scaling.mscale) / temperature(scaling.mscale_all_dim)
    return temperature(1.0)


@lru_cache(maxsize=16)
def _table(arch: Architecture, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False), torch.no_grad():  # training uses what generation has made
        rates, factor = frequencies(arch)
        angles = torch.arange(arch.context, device="cpu").float().unsqueeze(-1) * rates
        cos, sin = angles.cos() * factor, angles.sin() * factor
        tables = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
        cos, sin = (table.to(dtype).to(device) for table in tables)
    return cos, sin


def rotary_table(arch: Architecture, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """For the positions 0 to `context` - 1, `[context, head_dim]` each in `dtype`: cos | cos, and -sin | sin.

    Computed on the CPU, so the same on every device, and kept: a step only looks up its positions.
    """
    return _table(arch, device, dtype)


# To the compiler the tables are constants: nothing is traced or computed again. `torch.compiler.assume_constant_result` does
# just this, but imports the compiler, which takes 1.5 seconds.
rotary_table._dynamo_marked_constant = True  # type: ignore[attr-defined]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`x` `[B, heads, T, head_dim]` turned by the angles of its positions, tables `[T, head_dim]` or `[B, 1, T, head_dim]`."""
    return torch.addcmul(x * cos, x.roll(x.size(-1) // 2, -1), sin)
