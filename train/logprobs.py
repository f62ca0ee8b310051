"""Log-probabilities of completions under a model: what preference losses are functions of."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from corpusmill.pipeline.special_tokens import PAD_ID
from corpusmill.train.model import Llama
from corpusmill.train.packing import IGNORED, shift
from corpusmill.train.template import Encoded


@dataclass(frozen=True)
class Sequences:
    """Sequences padded on the right: `ids` and `targets` int64 [B, T]; a target is IGNORED where it does not count."""

    ids: Tensor
    targets: Tensor

    @property
    def counts(self) -> Tensor:
        """Targets a sequence, [B]."""
        return (self.targets != IGNORED).sum(1)

    @property
    def n_tokens(self) -> int:
        return int((self.ids != PAD_ID).sum())


def collate(sequences: Sequence[Encoded], device: torch.device | str = "cpu") -> Sequences:
    """Sequences of at least two tokens as one batch, as wide as the longest needs."""
    shifted = [shift(sequence) for sequence in sequences]
    shape = (len(shifted), max(len(inputs) for inputs, _ in shifted))
    ids, targets = np.full(shape, PAD_ID, np.int64), np.full(shape, IGNORED, np.int64)
    for row, (inputs, following) in enumerate(shifted):
        ids[row, : len(inputs)], targets[row, : len(inputs)] = inputs, following
    return Sequences(torch.from_numpy(ids).to(device), torch.from_numpy(targets).to(device))


def target_nats(model: Llama, ids: Tensor, targets: Tensor, segments: Tensor | None = None) -> Tensor:
    """-log p of every target that counts, fp32 [targets], in the order of rows and places.

    The head works only where a target is: most of a prompt's logits are never needed.
    """
    counted = targets != IGNORED
    logits = model.lm_head(model.model(ids, segments)[counted])
    return F.cross_entropy(logits if logits.dtype == torch.float64 else logits.float(), targets[counted], reduction="none")


def sum_logps(model: Llama, batch: Sequences) -> Tensor:
    """log p of each sequence's targets, summed in fp32, [B]."""
    nats = target_nats(model, batch.ids, batch.targets)
    by_place = torch.zeros(batch.targets.shape, dtype=nats.dtype, device=nats.device)
    return -by_place.masked_scatter(batch.targets != IGNORED, nats).sum(1)
