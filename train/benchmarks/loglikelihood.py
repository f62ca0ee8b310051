"""Log-likelihoods of continuations, many at a time. What the choices of an item begin with is computed once for all of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from corpusmill.train.benchmarks.encode import ScoredSequence
from corpusmill.train.kv_cache import KVCache
from corpusmill.train.model import Llama

#: Places whose logits are there at a time: they stay in a processor's cache.
HEAD_ROWS = 512
#: Rows are filled up to the longest by an eighth of it at most, where a batch has enough tokens to be worth its calls.
FILLED, LEAST = 8, 256

Advance = Callable[[int], None]
Values = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stem:
    """The choices of one item (their numbers among all), whose first `shared` ids and all that these predict are the same."""

    numbers: range
    choices: Sequence[ScoredSequence]
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
    model: Llama, items: Sequence[Sequence[ScoredSequence]], batch_tokens: int, advance: Advance = lambda done: None
) -> tuple[Values, npt.NDArray[np.bool_]]:
    """The log-probability (nats) of the scored ids of each choice, and whether each of these ids was the most likely one; item by item.

    Items that share equally many ids are computed together, some `batch_tokens` at a time, the longest first.
    """
    total = sum(map(len, items))
    sums, missed = np.zeros(total), np.zeros(total)
    for batch in _batches(_stems(items), batch_tokens):
        numbers = [number for stem in batch for number in stem.numbers]
        for nats, misses in _parts(model, batch):
            sums[numbers] -= nats
            missed[numbers] += misses
        advance(len(batch))
    return sums, missed == 0


def _stems(items: Sequence[Sequence[ScoredSequence]]) -> Iterator[Stem]:
    begin = 0
    for choices in items:
        yield Stem(range(begin, begin + len(choices)), choices, shared_inputs(choices) if len(choices) > 1 else 0)
        begin += len(choices)


def shared_inputs(choices: Sequence[ScoredSequence]) -> int:
    """How many ids all choices begin with, of which each also predicts the same id, scored in all of them or in none. An input is left
    for every choice."""
    shortest = min(len(choice.ids) for choice in choices) - 1
    first = choices[0].ids[:shortest]
    same = np.logical_and.reduce([choice.ids[:shortest] == first for choice in choices[1:]])
    shared = max(0, (shortest if same.all() else int(same.argmin())) - 1)
    scored = [_first(choice) for choice in choices]
    return shared if min(scored) == max(scored) else min(shared, *scored)


def _batches(stems: Iterator[Stem], batch_tokens: int) -> Iterator[list[Stem]]:
    """Stems with equally many shared ids, and not much to fill up."""
    batch: list[Stem] = []
    for stem in sorted(stems, key=lambda stem: (-stem.shared, -stem.longest, stem.numbers[0])):
        if batch:
            first, tokens = batch[0], len(batch) * batch[0].tokens
            uneven = first.longest - stem.longest > first.longest // FILLED and tokens >= LEAST
            if stem.shared != first.shared or tokens + first.tokens > batch_tokens or uneven:
                yield batch
                batch = []
        batch.append(stem)
    if batch:
        yield batch


def _parts(model: Llama, batch: list[Stem]) -> Iterator[tuple[Values, Values]]:
    """For every choice the nats of its scored ids, and how many were not the most likely: of the shared ones, then of the others."""
    shared, cache = batch[0].shared, None
    if shared:
        ids = np.stack([stem.choices[0].ids[: shared + 1] for stem in batch])
        cache = model.new_cache(shared)
        hidden = model.model(torch.from_numpy(ids[:, :-1]).to(model.device), None, cache)
        yield from _shared_part(model, batch, hidden, ids)
        cache = _repeated(cache, [len(stem.choices) for stem in batch], shared + max(stem.longest for stem in batch))
    choices = [choice for stem in batch for choice in stem.choices]
    ids = np.zeros((len(choices), max(stem.longest for stem in batch) + 1), np.int64)
    for row, choice in enumerate(choices):
        ids[row, : len(choice.ids) - shared] = choice.ids[shared:]
    hidden = model.model(torch.from_numpy(ids[:, :-1]).to(model.device), None, cache)
    first = np.array([max(_first(choice) - shared, 0) for choice in choices])
    yield _scores(model, hidden, ids, first, np.array([len(choice.ids) - 1 - shared for choice in choices]))


def _shared_part(model: Llama, batch: list[Stem], hidden: Tensor, ids: Integers) -> Iterator[tuple[Values, Values]]:
    """What choices share is computed once and counts for all of them."""
    shared = hidden.size(1)
    first = np.array([min(shared, *map(_first, stem.choices)) for stem in batch])
    if first.min() < shared:
        times = [len(stem.choices) for stem in batch]
        nats, misses = _scores(model, hidden, ids, first, np.full(len(batch), shared))
        yield np.repeat(nats, times), np.repeat(misses, times)


def _scores(model: Llama, hidden: Tensor, ids: Integers, first: Integers, end: Integers) -> tuple[Values, Values]:
    """For each row of `hidden` `[B, T, width]` the nats of the ids `[B, T + 1]` that its places from `first` to `end` predict, and how many
    of these ids are not the most likely ones."""
    columns = np.arange(hidden.size(1))
    rows, places = np.nonzero((columns >= first[:, None]) & (columns < end[:, None]))
    device = hidden.device
    states = hidden[torch.from_numpy(rows).to(device), torch.from_numpy(places).to(device)]
    found = []
    for some, wanted in zip(states.split(HEAD_ROWS), torch.from_numpy(ids[rows, places + 1]).to(device).split(HEAD_ROWS), strict=True):
        logits = model.lm_head(some).float()
        found.append(torch.stack([F.cross_entropy(logits, wanted, reduction="none"), (logits.argmax(1) != wanted).float()]))
    nats, missed = torch.cat(found, 1).double().cpu().numpy()
    totals = [np.zeros(len(ids)), np.zeros(len(ids))]
    for total, values in zip(totals, (nats, missed), strict=True):
        np.add.at(total, rows, values)
    return totals[0], totals[1]


def _first(choice: ScoredSequence) -> int:
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
