"""The reference model's log-probabilities, measured once and kept under a key of everything they depend on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

    def of(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Of some pairs, on the device of their numbers."""
        places = numbers.cpu()
        return self.chosen[places].to(numbers.device), self.rejected[places].to(numbers.device)

    @classmethod
    def load(cls, folder: Path, key: str) -> "Reference | None":
        """What the cache has under `key`. Raises InputError where that is not a whole file."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        storage, name = Storage(str(folder)), _name(key)
        if not storage.exists(name):
            return None
        try:
            tensors = load(storage.read_bytes(name))
            return cls(tensors["chosen"], tensors["rejected"])
        except (SafetensorError, KeyError) as error:
            raise InputError(f"{storage.path(name)}: not a whole file; remove it to measure anew ({error}).") from error

    def require_finite(self) -> None:
        """Raises CorpusmillError where a log-probability is not."""
        if not (self.chosen.isfinite().all() and self.rejected.isfinite().all()):
            raise CorpusmillError("align: the reference model gives log-probabilities that are not finite; its weights are damaged.")

    def save(self, folder: Path, key: str) -> None:
        from safetensors.torch import save

        Storage(str(folder)).write_bytes(_name(key), save({"chosen": self.chosen, "rejected": self.rejected}))


def _name(key: str) -> str:
    return f"reference-{key[:16]}.safetensors"


def reference_key(what: str, model: Sequence[Any], pairs: Sequence[PreparedPair]) -> str:
    """A digest of the model (weights, tokenizer, template, lengths, batches) and of every token of the pairs."""
    sha = hashlib.sha256()
    for pair in pairs:
        for side in (pair.chosen, pair.rejected):
            sha.update(len(side.ids).to_bytes(8, "little") + side.ids.tobytes() + side.mask.tobytes())
    return digest([what, list(model), sha.hexdigest()])
