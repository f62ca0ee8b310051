"""Log-probabilities of completions under a model: what preference losses are functions of."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from corpusmill.pipeline.special_tokens import PAD_ID
from corpusmill.train.model import Llama
from corpusmill.train.packing import IGNORED, pack
from corpusmill.train.template import Encoded


@dataclass(frozen=True)
class Sequences:
    """Sequences packed into rows: int64 [rows, T] each. `targets` are IGNORED where they do not count, `segments` keep
    the sequences of a row apart, and `owners` say which sequence a place belongs to."""

    ids: Tensor
    targets: Tensor
    segments: Tensor
    owners: Tensor
    n_sequences: int

    @property
    def counts(self) -> Tensor:
        """Targets of each sequence, int64 [sequences]."""
        return torch.bincount(self.owners[self.targets != IGNORED].cpu(), minlength=self.n_sequences).to(self.ids.device)

    @property
    def n_tokens(self) -> int:
        return int((self.ids != PAD_ID).sum())


def collate(sequences: Sequence[Encoded], context: int, device: torch.device | str = "cpu") -> Sequences:
    """Sequences of 2 to `context` + 1 tokens as one batch, in rows that are no longer than they have to be."""
    packed = pack(sequences, context)
    owners = np.zeros(packed.ids.shape, np.int64)
    for row, numbers in enumerate(packed.members):
        for segment, number in enumerate(numbers):
            owners[row][packed.segments[row] == segment] = number
    width = int(np.flatnonzero((packed.ids != PAD_ID).any(0))[-1]) + 1
    ids, targets, segments, owned = (
        torch.from_numpy(np.ascontiguousarray(array[:, :width])).to(device)
        for array in (packed.ids, packed.targets, packed.segments, owners)
    )
    return Sequences(ids, targets, segments, owned, len(sequences))


def target_nats(model: Llama, ids: Tensor, targets: Tensor, segments: Tensor | None = None) -> Tensor:
    """-log p of every target that counts, fp32 [targets], in the order of rows and places.

    The head works only where a target is: most of a prompt's logits are never needed.
    """
    counted = targets != IGNORED
    logits = model.lm_head(model.model(ids, segments)[counted])
    return F.cross_entropy(logits if logits.dtype == torch.float64 else logits.float(), targets[counted], reduction="none")


def sum_logps(model: Llama, batch: Sequences) -> Tensor:
    """log p of each sequence's targets, summed in fp32, [sequences]."""
    nats = target_nats(model, batch.ids, batch.targets, batch.segments)
    owners = batch.owners[batch.targets != IGNORED]
    return torch.zeros(batch.n_sequences, dtype=nats.dtype, device=nats.device).index_add(0, owners, -nats)
