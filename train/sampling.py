"""Choosing the next token: options, what each of them does to logits, and the choice. All of it pure functions.

Options and their order are those of `transformers` (logits_process.py): repetition penalty, then temperature, top-k, top-p, min-p. Each
function gives value for value what the class there gives (tests/train/test_sampling.py).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.train.options import COLDEST


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. Raises InputError with the option that is out of its range."""

    temperature: float = 0.8  # logits are divided by it; 0 takes the most likely token, and then only the penalty matters
    top_k: int = 50  # among the k most likely tokens; 0: all
    top_p: float = 1.0  # among the fewest most likely tokens that together have this probability; 1: all
    min_p: float = 0.0  # among tokens with at least this share of the most likely one's probability; 0: all
    repetition_penalty: float = 1.0  # logits of tokens that were there already are divided by it (multiplied below 0); 1: as they are
    seed: int = 0

    def __post_init__(self) -> None:
        self._check(self.temperature == 0 or COLDEST <= self.temperature < float("inf"), f"temperature: 0, or at least {COLDEST}")
        self._check(self.top_k >= 0, "top_k: 0 or more")
        self._check(0 <= self.top_p <= 1, "top_p: from 0 to 1")
        self._check(0 <= self.min_p <= 1, "min_p: from 0 to 1")
        self._check(0 < self.repetition_penalty < float("inf"), "repetition_penalty: above 0")
        self._check(self.seed >= 0, "seed: 0 or more")

    def _check(self, holds: bool, expected: str) -> None:
        if not holds:
            name = expected.partition(":")[0]
            raise InputError(f"{expected.replace(':', ' has to be', 1)}, not {getattr(self, name)}.")


DEFAULT, GREEDY = Sampling(), Sampling(temperature=0)


def penalise(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """`logits` `[..., vocab]` with those of the tokens that `seen` (bool, the same shape) marks made less likely (CTRL,
    https://arxiv.org/abs/1909.05858)."""
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """`logits` `[..., vocab]` with -inf for all that are less than the k-th; what equals it stays."""
    return logits.masked_fill(logits < logits.topk(min(k, logits.size(-1))).values[..., -1:], -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """`logits` `[..., vocab]` with -inf for the least likely that together have no more than 1 - p (https://arxiv.org/abs/1904.09751)."""
    ascending, order = logits.sort(dim=-1)
    removed = ascending.softmax(-1).cumsum(-1) <= 1 - p
    removed[..., -1] = False
    return logits.masked_fill(removed.scatter(-1, order, removed), -torch.inf)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """`logits` `[..., vocab]` with -inf for all less likely than p times the most likely one (https://arxiv.org/abs/2407.01082)."""
    probabilities = logits.softmax(-1)
    return logits.masked_fill(probabilities < p * probabilities.amax(-1, keepdim=True), -torch.inf)


def warp(logits: Tensor, sampling: Sampling) -> Tensor:
    """`logits` `[..., vocab]` from which a token is drawn: divided by the temperature, -inf where a limit removes one."""
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
    if sampling.top_k:
        logits = keep_top_k(logits, sampling.top_k)
    return _limit(logits, sampling)


def _limit(logits: Tensor, sampling: Sampling) -> Tensor:
    if sampling.top_p < 1:
        logits = keep_top_p(logits, sampling.top_p)
    return keep_min_p(logits, sampling.min_p) if sampling.min_p else logits


def choose(logits: Tensor, sampling: Sampling, uniform: Tensor) -> Tensor:
    """One token a row, `[B]`, for `logits` `[B, vocab]`: the most likely one at temperature 0, else the one in whose share of the warped
    probabilities the row's `uniform` number (`[B]`, from 0 to 1) falls, in the order of ids.

    So a row's choice depends on its own logits and number alone. (Of equals at the border of `top_p` another may stay than in `warp`, as
    a sort decides that.) Raises CorpusmillError where logits are NaN.
    """
    if sampling.temperature == 0:
        highest, chosen = logits.max(-1)
        return _checked(chosen, highest)
    ids = None
    if 0 < sampling.top_k < logits.size(-1):  # in k numbers a row, not in all of the vocabulary
        if sampling.temperature != 1:
            logits = logits / sampling.temperature
        values, places = logits.topk(sampling.top_k)
        if int((logits >= values[:, -1:]).sum()) == values.numel():
            ids = places.sort().values
            warped = _limit(logits.gather(-1, ids), sampling)
        else:  # more than k, as some equal the k-th
            warped = _limit(keep_top_k(logits, sampling.top_k), sampling)
    else:
        warped = warp(logits, sampling)
    shares = warped.double().softmax(-1).cumsum(-1)
    place = (shares <= uniform.unsqueeze(-1) * shares[:, -1:]).sum(-1)
    chosen = place if ids is None else ids.gather(-1, place.clamp_max(ids.size(-1) - 1).unsqueeze(-1)).squeeze(-1)
    return _checked(chosen, shares[:, -1])


def _checked(chosen: Tensor, sums: Tensor) -> Tensor:
    if bool(sums.isnan().any()):
        raise CorpusmillError("the model's logits are not numbers (NaN): its weights are damaged, or too large for their type.")
    return chosen
