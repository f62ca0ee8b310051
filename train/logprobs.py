"""Log-probabilities of completions under a model: what preference losses are functions of."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from corpusmill.train.model import Llama
from corpusmill.train.packing import IGNORED, Packed, pack
from corpusmill.train.parallel.computation import ParallelModel
from corpusmill.train.template import Encoded

#: The owner of a place that is padding.
NOBODY = -1


@dataclass(frozen=True)
class LabelledRows:
    """Sequences in rows: ids and segments int64 `[rows, T]`, and labels int64 `[rows, T, 2]`, which are at every place the target (IGNORED
    where it does not count) and the number of the sequence that the place belongs to (NOBODY's where it is padding)."""

    ids: Tensor
    labels: Tensor
    segments: Tensor

    @property
    def targets(self) -> Tensor:
        return self.labels[..., 0]


@dataclass(frozen=True)
class SequenceLogps:
    """Of each sequence with a target, in the order of their numbers: its number, log p summed over its targets (fp32, or float64 as the
    nats were), and how many there are; `[sequences]` each."""

    numbers: Tensor
    sums: Tensor
    counts: Tensor

    @property
    def means(self) -> Tensor:
        return self.sums / self.counts


@dataclass(frozen=True)
class RowForm:
    """The shape of collated rows: `multiple` divides their length (tensor ranks share it out); `fixed` rows are all of the context's
    length with one sequence each, as the micro-batches of a pipeline have to be alike."""

    multiple: int = 1
    fixed: bool = False


def collate(
    sequences: Sequence[Encoded],
    context: int,
    device: torch.device | str = "cpu",
    numbers: Sequence[int] | None = None,
    form: RowForm = RowForm(),
) -> LabelledRows:
    """Sequences of 2 to `context` + 1 tokens as one batch, in rows that are no longer than they have to be. Their `numbers` are their
    places where none are given."""
    packed = pack(sequences, context, together=not form.fixed)
    owners = _owners(packed, np.arange(len(sequences)) if numbers is None else np.asarray(numbers))
    width = context
    if not form.fixed:
        used = int(np.flatnonzero((owners != NOBODY).any(0))[-1]) + 1
        width = min(used + -used % form.multiple, context)
    labels = np.stack([packed.targets, owners], axis=-1)
    ids, labels_, segments = (
        torch.from_numpy(np.ascontiguousarray(array[:, :width])).to(device) for array in (packed.ids, labels, packed.segments)
    )
    return LabelledRows(ids, labels_, segments)


def _owners(packed: Packed, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    owners = np.full(packed.ids.shape, NOBODY, np.int64)
    for row, members in enumerate(packed.members):
        known = np.append(numbers[members], NOBODY)  # the last segment of a row is its padding
        owners[row] = known[packed.segments[row]]
    return owners


def by_sequence(nats: Tensor, labels: Tensor) -> SequenceLogps:
    """Adds up the nats `[n]` of the targets that count, in the order of rows and places."""
    numbers, places = torch.unique(labels[..., 1][labels[..., 0] != IGNORED], return_inverse=True)
    sums = torch.zeros(len(numbers), dtype=nats.dtype, device=nats.device).index_add(0, places, -nats)
    return SequenceLogps(numbers, sums, torch.bincount(places, minlength=len(numbers)))


def sum_logps(model: Llama, batch: LabelledRows) -> SequenceLogps:
    """log p of each sequence's targets."""
    return by_sequence(model(batch.ids, batch.segments, targets=batch.targets), batch.labels)


def counted_nats(parallel_model: ParallelModel, batch: LabelledRows) -> Tensor:
    """The nats of the targets that count, without gradients, in the order of rows and places."""
    return parallel_model.nats(batch.ids, batch.targets, batch.segments)[batch.targets != IGNORED]
