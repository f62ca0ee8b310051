"""Log-likelihoods of continuations, many at a time."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from corpusmill.train.benchmarks.encode import Scored
from corpusmill.train.model import Llama

#: Places whose logits are there at a time: they stay in a processor's cache.
HEAD_ROWS = 512

Advance = Callable[[int], None]
Values = npt.NDArray[np.float64]


@torch.no_grad()
def loglikelihoods(
    model: Llama, sequences: Sequence[Scored], batch_tokens: int, advance: Advance = lambda done: None
) -> tuple[Values, npt.NDArray[np.bool_]]:
    """The log-probability (nats) of the scored ids of each sequence, and whether each of them was the most likely one.

    Sequences of one length are computed together, `batch_tokens` at a time, the longest first; those that differ in their last id
    alone are computed once.
    """
    totals, greedy = np.zeros(len(sequences)), np.ones(len(sequences), bool)
    for batch in _batches(sequences, batch_tokens):
        rows = [numbers[0] for numbers in batch]
        ids = np.zeros((len(rows), max(len(sequences[row].ids) - 1 for row in rows)), np.int64)
        owners, places, targets = [], [], []
        for n, numbers in enumerate(batch):
            length = len(sequences[numbers[0]].ids) - 1
            ids[n, :length] = sequences[numbers[0]].ids[:-1]
            for number in numbers:
                count = sequences[number].count
                owners.append(np.full(count, number))
                places.append(n * ids.shape[1] + np.arange(length - count, length))
                targets.append(sequences[number].ids[-count:])
        owner = np.concatenate(owners)
        nats, likeliest = _nats(model, ids, np.concatenate(places), np.concatenate(targets))
        np.subtract.at(totals, owner, nats)
        np.logical_and.at(greedy, owner, likeliest)
        advance(sum(map(len, batch)))
    return totals, greedy


def _nats(model: Llama, ids: npt.NDArray[np.int64], places: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]) -> tuple[Values, Values]:
    """-log p of `targets` at the flat `places` of `ids` `[B, T]`, and whether they are the most likely ids there."""
    device = model.device
    hidden = model.model(torch.from_numpy(ids).to(device)).flatten(0, 1)[torch.from_numpy(places).to(device)]
    found = []
    for states, wanted in zip(hidden.split(HEAD_ROWS), torch.from_numpy(targets).to(device).split(HEAD_ROWS), strict=True):
        logits = model.lm_head(states).float()
        found.append(torch.stack([F.cross_entropy(logits, wanted, reduction="none"), (logits.argmax(1) == wanted).float()]))
    nats, likeliest = torch.cat(found, 1).double().cpu().numpy()
    return nats, likeliest


def _batches(sequences: Sequence[Scored], batch_tokens: int) -> Iterator[list[list[int]]]:
    """Batches of rows, each the numbers of the sequences that it serves."""
    rows: dict[bytes, list[int]] = {}
    for number, sequence in enumerate(sequences):
        rows.setdefault(sequence.ids[:-1].tobytes(), []).append(number)
    ordered = sorted(rows.items(), key=lambda row: (-len(row[0]), row[0]))
    begin = 0
    while begin < len(ordered):
        length = len(ordered[begin][0]) // 8
        end = begin + max(1, batch_tokens // length)
        yield [numbers for _, numbers in ordered[begin:end]]
        begin = end
