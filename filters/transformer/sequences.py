"""Texts as a model takes them: tokens by its own tokenizer, cut off at the longest input or cut into windows."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

#: Texts and bytes that are tokenised at once: a tokenizer's own record of a text takes a hundred times the text.
TEXTS_AT_ONCE = 256
BYTES_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Sequences:
    """What is computed, one after the other. A text may have several (windows), or none where it has no tokens at all."""

    inputs: dict[str, npt.NDArray[np.int32]]  # (tokens,): what the model is given for each token, by the argument's name
    offsets: npt.NDArray[np.int64]  # (sequences + 1,): where each begins in these
    document: npt.NDArray[np.int64]  # (sequences,), rising: whose it is

    @property
    def tokens(self) -> npt.NDArray[np.int64]:
        """(sequences,): tokens of each, special ones included."""
        return np.diff(self.offsets)


def encode(tokenizer: Any, text: pa.Array, longest: int, windows: bool, overlap: int = 0, head_characters: int | None = None) -> Sequences:
    """Sequences of at most `longest` tokens, special ones included: the first of each text, or with `windows` all of it."""
    if head_characters is not None:
        text = pc.utf8_slice_codeunits(text, 0, head_characters)
    names = [name for name in ("input_ids", "token_type_ids") if name in tokenizer.model_input_names or name == "input_ids"]
    options: dict[str, Any] = {"truncation": True, "max_length": longest, "return_attention_mask": False, "verbose": False}
    if windows:
        options |= {"return_overflowing_tokens": True, "stride": overlap}
    values: dict[str, list[npt.NDArray[np.int32]]] = {name: [np.zeros(0, np.int32)] for name in names}
    counts, documents = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start, end in _chunks(text):
        found = tokenizer(text[start:end].to_pylist(), **options)
        lengths = np.fromiter(map(len, found["input_ids"]), np.int64)
        whose = np.asarray(found["overflow_to_sample_mapping"], np.int64) if windows else np.arange(end - start)
        for name in names:
            values[name].append(np.fromiter(chain.from_iterable(found[name]), np.int32, int(lengths.sum())))
        counts.append(lengths[lengths > 0])
        documents.append(start + whose[lengths > 0])
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
    return Sequences({name: np.concatenate(parts) for name, parts in values.items()}, offsets, np.concatenate(documents))


def _chunks(text: pa.Array) -> Iterator[tuple[int, int]]:
    """Ranges of texts that are tokenised at once."""
    sizes = np.cumsum(pc.binary_length(text).to_numpy(zero_copy_only=False).astype(np.int64)) if len(text) else np.zeros(0, np.int64)
    start = 0
    while start < len(text):
        before = int(sizes[start - 1]) if start else 0
        end = int(np.searchsorted(sizes, before + BYTES_AT_ONCE, side="right"))
        end = min(max(end, start + 1), start + TEXTS_AT_ONCE)
        yield start, end
        start = end
