"""Sequences known by their numbers: laid in rows, and found again by what owns the rows' places."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from corpusmill.train.logprobs import LabelledRows, RowForm, SequenceLogps, collate
from corpusmill.train.template import Encoded


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
