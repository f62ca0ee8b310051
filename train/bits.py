"""Bits per byte: what a model needs to write down a text, whatever its tokenizer is.

nats / (ln 2 * UTF-8 bytes), both over the same targets; special tokens count for neither.
"""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

#: (ids, targets, segments or None): int64 `[B, T]` each; targets of -100 don't count.
Batch = tuple[Tensor, Tensor, Tensor | None]


@dataclass(frozen=True)
class Bits:
    """Sums over a text. `nats` is float64 summed token by token, so it does not depend on how batches were cut."""

    nats: float = 0.0
    bytes: int = 0
    tokens: int = 0

    def __add__(self, other: "Bits") -> "Bits":
        return Bits(self.nats + other.nats, self.bytes + other.bytes, self.tokens + other.tokens)

    @property
    def per_byte(self) -> float:
        """Bits per byte; NaN where there was no text."""
        return self.nats / (math.log(2) * self.bytes) if self.bytes else math.nan

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.tokens if self.tokens else math.nan


def token_bytes(tokenizer_json: bytes) -> npt.NDArray[np.int64]:
    """UTF-8 bytes of each token by id, from a `tokenizer.json`; 0 for special tokens and unused ids.

    In a byte-level vocabulary every character of a token's name stands for one byte.
    """
    tokenizer = json.loads(tokenizer_json)
    vocab: dict[str, int] = tokenizer["model"]["vocab"]
    special = {token["id"] for token in tokenizer.get("added_tokens", []) if token.get("special")}
    byte_level = _mentions_byte_level(tokenizer.get("decoder")) or _mentions_byte_level(tokenizer.get("pre_tokenizer"))
    sizes = np.zeros(max([*vocab.values(), *special], default=-1) + 1, np.int64)
    for name, number in vocab.items():
        if number not in special:
            sizes[number] = len(name) if byte_level else len(name.encode())
    return sizes


def _mentions_byte_level(part: Any) -> bool:
    return part is not None and '"ByteLevel"' in json.dumps(part)


#: Negative log-likelihoods `[B, T]` of targets, given ids, targets and segments.
Nats = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@torch.no_grad()
def measure(nats_of: Nats, device: torch.device, batches: Iterable[Batch], sizes: npt.NDArray[np.int64]) -> Bits:
    """Sums nats and bytes over the targets that are text; `sizes` comes from `token_bytes`, for every id."""
    table, total = torch.from_numpy(sizes).to(device), Bits()
    for ids, targets, segments in batches:
        targets = targets.to(device)
        counted = torch.where(targets >= 0, table[targets.clamp_min(0)], 0)
        targets = torch.where(counted > 0, targets, -100)
        nats = nats_of(ids.to(device), targets, None if segments is None else segments.to(device))
        total += Bits(float(nats.double().sum()), int(counted.sum()), int((counted > 0).sum()))
    return total
