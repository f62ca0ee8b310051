"""Log-probabilities of completions under the model and under the reference: what preference losses are functions of."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from corpusmill.pipeline.cache import local_model
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.train.data import IGNORED, Packed, pack
from corpusmill.train.model import Llama
from corpusmill.train.model_folder import load_model
from corpusmill.train.parallel.dims import ParallelDims, total
from corpusmill.train.parallel.model import ParallelModel
from corpusmill.train.template import ChatEncoder, Encoded, load_chat

# ---- rows and sums -----------------------------------------------------------------------------------

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


# ---- numbered sequences ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Numbered:
    """Sequences of 2 to `context` + 1 tokens with a target each, and how they become batches."""

    sequences: Sequence[Encoded]
    context: int
    device: torch.device
    form: RowForm

    def __len__(self) -> int:
        return len(self.sequences)

    def collate(self, numbers: Sequence[int]) -> LabelledRows:
        """Some of them as a batch, from which `by_sequence` gives them in this order. One that is there twice, as at the border of two
        epochs, counts twice: to the batch a sequence is its place there, times how many there are, plus its number."""
        owners = [place * len(self) + number for place, number in enumerate(numbers)]
        return collate([self.sequences[number] for number in numbers], self.context, self.device, owners, self.form)

    def numbers(self, logps: SequenceLogps) -> Tensor:
        """Which ones of a batch these are the log-probabilities of."""
        return logps.numbers % len(self)


# ---- the reference model -----------------------------------------------------------------------------
#
# Its log-probabilities are measured before the first step: it never changes.

#: Numbers of sequences that are computed together, and how many of the first of them are to be known.
Batches = Iterable[tuple[Sequence[int], int]]


@dataclass(frozen=True)
class Reference:
    """Sums over the targets of numbered sequences, float32 [sequences], on the CPU."""

    sums: Tensor

    def of(self, numbers: Tensor) -> Tensor:
        """Of some sequences, on the device of their numbers."""
        return self.sums[numbers.cpu()].to(numbers.device)


def measured(model: ParallelModel, sequences: Numbered, batches: Batches, dims: ParallelDims) -> Reference:
    """A model's log-probabilities now; the batches are those of this process's share. Equal batches later give equal sums to the bit.
    Raises CorpusmillError where one is not finite."""
    sums = torch.zeros(len(sequences), dtype=torch.float64)
    first = dims.index("tensor") == dims.index("pipeline") == 0  # of the processes with this share
    for numbers, count in batches if first else ():
        batch = sequences.collate(numbers)
        sums[list(numbers[:count])] = by_sequence(counted_nats(model, batch), batch.labels).sums.double().cpu()[:count]
    found = Reference(total(sums, dims).float())
    if not found.sums.isfinite().all():
        raise CorpusmillError("align: the reference model gives log-probabilities that are not finite; its weights are damaged.")
    return found


def other_model(folder: str, encoder: ChatEncoder, context: int, device: torch.device) -> Llama:
    """A reference model from a folder of its own. Raises InputError where its tokens are others than those of `encoder`, or its context
    is shorter than that of the model which is aligned."""
    model = load_model(folder, device)
    own = encoder.tokenizer.get_vocab()
    here = Storage(str(local_model(folder)))
    if here.exists("tokenizer.json"):
        same = load_chat(here).tokenizer.get_vocab() == own
    else:
        same = model.arch.vocab_size > max(own.values())
    if not same:
        raise InputError(
            f"align.reference: {folder} has another vocabulary than the model that is aligned, so its tokens are not comparable."
        )
    if model.arch.context < context:
        raise InputError(
            f"align.reference: {folder} has a context of {model.arch.context} tokens, the model that is aligned one of {context}."
        )
    return model
