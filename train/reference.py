"""The reference model's log-probabilities, measured once and kept under a key of everything they depend on."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from corpusmill.pipeline.cache import local_model
from corpusmill.pipeline.config import digest
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.train.checkpoint import load_model
from corpusmill.train.logprobs import by_sequence, counted_nats
from corpusmill.train.model import Llama
from corpusmill.train.numbered import Numbered
from corpusmill.train.parallel.computation import Computation
from corpusmill.train.parallel.layout import Layout
from corpusmill.train.parallel.sums import total
from corpusmill.train.template import ChatEncoder, Encoded, load_chat

#: Numbers of sequences that are computed together, and how many of the first of them are to be known.
Batches = Iterable[tuple[Sequence[int], int]]


@dataclass(frozen=True)
class Reference:
    """Sums over the targets of numbered sequences, float32 [sequences], on the CPU."""

    sums: Tensor

    def of(self, numbers: Tensor) -> Tensor:
        """Of some sequences, on the device of their numbers."""
        return self.sums[numbers.cpu()].to(numbers.device)

    @classmethod
    def load(cls, folder: str, key: str) -> "Reference | None":
        """What the cache has under `key`. Raises InputError where that is not a whole file."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        storage, name = Storage(folder), _name(key)
        if not storage.exists(name):
            return None
        try:
            return cls(load(storage.read_bytes(name))["sums"])
        except (SafetensorError, KeyError) as error:
            raise InputError(f"{storage.path(name)}: not a whole file; remove it to measure anew ({error}).") from error

    def require_finite(self) -> None:
        """Raises CorpusmillError where a log-probability is not."""
        if not self.sums.isfinite().all():
            raise CorpusmillError("align: the reference model gives log-probabilities that are not finite; its weights are damaged.")

    def save(self, folder: str, key: str) -> None:
        from safetensors.torch import save

        Storage(folder).write_bytes(_name(key), save({"sums": self.sums}))


@dataclass(frozen=True)
class References:
    """Gives log-probabilities of the reference, from `cache` where they are there, else from `model`, whole on each process.

    `key` is what they depend on beside the sequences: the model, its tokenizer and template, the context, the batches and how
    many processes share them out, the device's kind, the precision, the rows' form.
    """

    cache: str  # a folder's path or URL
    key: Sequence[Any]
    model: Computation
    layout: Layout

    def of(self, what: str, sequences: Numbered, batches: Batches) -> Reference:
        """Of all `sequences`, each in one of the `batches` of some process. Equal batches later give equal sums to the bit."""
        key = reference_key(what, self.key, sequences.sequences)
        found = Reference.load(self.cache, key)
        self.layout.barrier()  # all have looked before one writes
        if found is None:
            found = measured(self.model, sequences, batches, self.layout)
            found.require_finite()
            if self.layout.is_main:
                found.save(self.cache, key)
        return found


def measured(model: Computation, sequences: Numbered, batches: Batches, layout: Layout) -> Reference:
    """A model's log-probabilities now; the batches are those of this process's share."""
    sums = torch.zeros(len(sequences), dtype=torch.float64)
    first = layout.index("tensor") == layout.index("pipeline") == 0  # of the processes with this share
    for numbers, count in batches if first else ():
        batch = sequences.collate(numbers)
        sums[list(numbers[:count])] = by_sequence(counted_nats(model, batch), batch.labels).sums.double().cpu()[:count]
    return Reference(total(sums, layout).float())


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


def _name(key: str) -> str:
    return f"reference-{key[:16]}.safetensors"


def reference_key(what: str, model: Sequence[Any], sequences: Sequence[Encoded]) -> str:
    """A digest of what `References.key` says and of every token of the sequences."""
    sha = hashlib.sha256()
    for sequence in sequences:
        sha.update(len(sequence.ids).to_bytes(8, "little") + sequence.ids.tobytes() + sequence.mask.tobytes())
    return digest([what, list(model), sha.hexdigest()])
