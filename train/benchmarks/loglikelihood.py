"""Log-likelihoods of continuations, many at a time. What the choices of an item begin with is computed once for all of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from corpusmill.train.benchmarks.encode import Scored
from corpusmill.train.kv_cache import KVCache
from corpusmill.train.model import Llama

#: Places whose logits are there at a time: they stay in a processor's cache.
HEAD_ROWS = 512

Advance = Callable[[int], None]
Values = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stem:
    """The choices of one item (their numbers among all), whose first `shared` ids and all that these predict are the same."""

    numbers: range
    choices: Sequence[Scored]
    shared: int

    @property
    def longest(self) -> int:
        """Inputs of the longest choice behind what is shared."""
        return max(len(choice.ids) for choice in self.choices) - 1 - self.shared

    @property
    def tokens(self) -> int:
        return self.shared + len(self.choices) * self.longest


@torch.inference_mode()
def loglikelihoods(
    model: Llama, items: Sequence[Sequence[Scored]], batch_tokens: int, advance: Advance = lambda done: None
) -> tuple[Values, npt.NDArray[np.bool_]]:
    """The log-probability (nats) of the scored ids of each choice, and whether each of these ids was the most likely one; item by item.

    Items that share equally many ids are computed together, some `batch_tokens` at a time, the longest first.
    """
    total = sum(map(len, items))
    sums, greedy = np.zeros(total), np.ones(total, bool)
    for batch in _batches(_stems(items), batch_tokens):
        for owners, nats, likeliest in _parts(model, batch):
            np.subtract.at(sums, owners, nats)
            np.logical_and.at(greedy, owners, likeliest)
        advance(len(batch))
    return sums, greedy


def _stems(items: Sequence[Sequence[Scored]]) -> Iterator[Stem]:
    begin = 0
    for choices in items:
        yield Stem(range(begin, begin + len(choices)), choices, shared_inputs(choices) if len(choices) > 1 else 0)
        begin += len(choices)


def shared_inputs(choices: Sequence[Scored]) -> int:
    """How many ids all choices begin with, of which each also predicts the same id. An input is left for every choice."""
    shortest = min(len(choice.ids) for choice in choices) - 1
    first = choices[0].ids[:shortest]
    same = np.logical_and.reduce([choice.ids[:shortest] == first for choice in choices[1:]])
    return max(0, (shortest if same.all() else int(same.argmin())) - 1)


def _batches(stems: Iterator[Stem], batch_tokens: int) -> Iterator[list[Stem]]:
    batch: list[Stem] = []
    for stem in sorted(stems, key=lambda stem: (-stem.shared, -stem.longest, stem.numbers[0])):
        if batch and (stem.shared != batch[0].shared or (len(batch) + 1) * batch[0].tokens > batch_tokens):
            yield batch
            batch = []
        batch.append(stem)
    if batch:
        yield batch


def _parts(model: Llama, batch: list[Stem]) -> Iterator[tuple[Integers, Values, Values]]:
    """(number of the choice, nats, whether it is the most likely one) of each scored id: of the shared ones, then of the others."""
    shared, cache = batch[0].shared, None
    if shared:
        ids = np.stack([stem.choices[0].ids[:shared] for stem in batch])
        cache = model.new_cache(shared)
        hidden = model.model(torch.from_numpy(ids).to(model.device), None, cache)
        scored = [np.arange(min(_first(choice) for choice in stem.choices), shared) for stem in batch]
        if sum(map(len, scored)):
            yield from _shared_parts(model, batch, hidden, scored)
        cache = _repeated(cache, [len(stem.choices) for stem in batch], shared + max(stem.longest for stem in batch))
    choices = [choice for stem in batch for choice in stem.choices]
    numbers = [number for stem in batch for number in stem.numbers]
    ids = np.zeros((len(choices), max(stem.longest for stem in batch)), np.int64)
    places = []
    for row, choice in enumerate(choices):
        ids[row, : len(choice.ids) - 1 - shared] = choice.ids[shared:-1]
        places.append(np.arange(max(_first(choice), shared), len(choice.ids) - 1))
    hidden = model.model(torch.from_numpy(ids).to(model.device), None, cache)
    flat = np.concatenate([row * ids.shape[1] + at - shared for row, at in enumerate(places)])
    targets = np.concatenate([choice.ids[at + 1] for choice, at in zip(choices, places, strict=True)])
    yield (np.repeat(numbers, list(map(len, places))), *_nats(model, hidden, flat, targets))


def _shared_parts(model: Llama, batch: list[Stem], hidden: Tensor, scored: list[Integers]) -> Iterator[tuple[Integers, Values, Values]]:
    """What is shared is computed once and counts for every choice."""
    flat = np.concatenate([row * hidden.size(1) + at for row, at in enumerate(scored)])
    targets = np.concatenate([stem.choices[0].ids[at + 1] for stem, at in zip(batch, scored, strict=True)])
    nats, likeliest = _nats(model, hidden, flat, targets)
    bounds = np.cumsum([0, *map(len, scored)])
    for n, stem in enumerate(batch):
        for number, choice in zip(stem.numbers, stem.choices, strict=True):
            own = slice(bounds[n] + _first(choice) - scored[n][0] if len(scored[n]) else bounds[n], bounds[n + 1])
            yield np.full(len(nats[own]), number), nats[own], likeliest[own]


def _first(choice: Scored) -> int:
    """The place whose output predicts the first scored id."""
    return len(choice.ids) - 1 - choice.count


def _repeated(cache: KVCache, times: list[int], longest: int) -> KVCache:
    """A cache with each row as many times as it has choices, and room for them."""
    rows = torch.repeat_interleave(torch.tensor(times))
    grown = KVCache(longest, cache.window)
    grown.length = cache.length
    for layer, pair in cache.layers.items():
        grown.layers[layer] = tuple(F.pad(kept[rows.to(kept.device)], (0, 0, 0, longest - cache.length)) for kept in pair)  # type: ignore[assignment]
    return grown


def _nats(model: Llama, hidden: Tensor, places: Integers, targets: Integers) -> tuple[Values, Values]:
    """-log p of `targets` at the flat `places` of hidden states `[B, T, width]`, and whether they are the most likely ids there."""
    device = hidden.device
    states, wanted = hidden.flatten(0, 1)[torch.from_numpy(places).to(device)], torch.from_numpy(targets).to(device)
    found = []
    for some, ids in zip(states.split(HEAD_ROWS), wanted.split(HEAD_ROWS), strict=True):
        logits = model.lm_head(some).float()
        found.append(torch.stack([F.cross_entropy(logits, ids, reduction="none"), (logits.argmax(1) == ids).float()]))
    nats, likeliest = torch.cat(found, 1).double().cpu().numpy()
    return nats, likeliest
