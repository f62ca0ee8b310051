"""The reference model's log-probabilities, measured once and kept under a key of everything they depend on."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from corpusmill.pipeline.config import digest
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.train.preference_data import PreparedPair


@dataclass(frozen=True)
class Reference:
    """Sums over completions, float32 [pairs] each, on the CPU."""

    chosen: Tensor
    rejected: Tensor

    def of(self, numbers: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Of some pairs, on a device."""
        return self.chosen[list(numbers)].to(device), self.rejected[list(numbers)].to(device)

    @classmethod
    def cached(cls, folder: Path, key: str, count: int, measured: Iterable[tuple[list[int], Tensor, Tensor]]) -> "Reference":
        """The log-probabilities of `count` pairs that the cache has under `key`, else what is `measured`, batch by
        batch. Of a pair that is measured twice the first value counts. Raises CorpusmillError where one is not finite.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load, save

        storage, name = Storage(str(folder)), f"reference-{key[:16]}.safetensors"
        if storage.exists(name):
            try:
                tensors = load(storage.read_bytes(name))
                return cls(tensors["chosen"], tensors["rejected"])
            except (SafetensorError, KeyError) as error:
                raise InputError(f"{storage.path(name)}: not a whole file; remove it to measure anew ({error}).") from error
        reference = cls(torch.full((count,), torch.nan), torch.full((count,), torch.nan))
        for numbers, chosen, rejected in measured:
            for place, number in enumerate(numbers):
                if reference.chosen[number].isnan():
                    reference.chosen[number], reference.rejected[number] = chosen[place], rejected[place]
        if not (reference.chosen.isfinite().all() and reference.rejected.isfinite().all()):
            raise CorpusmillError("align: the reference model gives log-probabilities that are not finite; its weights are damaged.")
        storage.write_bytes(name, save({"chosen": reference.chosen, "rejected": reference.rejected}))
        return reference


def reference_key(what: str, model: Sequence[Any], pairs: Sequence[PreparedPair]) -> str:
    """A digest of the model (weights, tokenizer, template, lengths, batches) and of every token of the pairs."""
    sha = hashlib.sha256()
    for pair in pairs:
        for side in (pair.chosen, pair.rejected):
            sha.update(len(side.ids).to_bytes(8, "little") + side.ids.tobytes() + side.mask.tobytes())
    return digest([what, list(model), sha.hexdigest()])
