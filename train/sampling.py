"""Choosing the next token, and what of a model's output may reach a terminal."""

import re

import torch
from torch import Tensor

# C0 but tab and line feed, DEL, C1, and the marks that reorder text: with them a model could drive the terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """`text` without anything that a terminal would obey."""
    return _CONTROL.sub("", text)


def choose(logits: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator) -> int:
    """The next token for `logits` `[vocab]` on CPU: the most likely one at temperature 0, else drawn among the `top_k` most
    likely (0: all) that are needed to reach the probability `top_p`."""
    if temperature <= 0:
        return int(logits.argmax())
    order = logits.double().sort(descending=True, stable=True)
    values = order.values[:top_k] if top_k else order.values
    probabilities = torch.softmax(values / temperature, dim=0)
    before = probabilities.cumsum(0) - probabilities
    probabilities = torch.where(before < max(top_p, 1e-9), probabilities, 0.0)
    drawn = torch.multinomial(probabilities, 1, generator=generator)
    return int(order.indices[drawn])
