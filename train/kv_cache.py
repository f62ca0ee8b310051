"""Keys and values of what a model has read, so that a new token costs one step and not the whole text."""

import torch
from torch import Tensor

from corpusmill.train.visibility import first_key


class KVCache:
    """Keys and values of the places so far, `[B, kv_heads, longest, head_dim]` each, by layer.

    All rows of a batch end at the same place, and `starts` says where each begins (empty: all at 0): its positions count from there, and
    it sees nothing before. So one step adds a token to every row, whatever their lengths. What lies before a row's start is finite, as a
    weight of 0 times a NaN would be NaN.
    """

    def __init__(self, longest: int, window: int = 0):
        self.longest, self.window, self.length = longest, window, 0
        self.starts: list[int] = []
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def first(self) -> int:
        """The earliest place that the next token of any row sees: attention gets the keys from there on."""
        return max(first_key(self.length, self.window), min(self.starts, default=0))

    @property
    def ragged(self) -> bool:
        """Whether some row begins after `first`, so that attention needs a mask."""
        return max(self.starts, default=0) > self.first

    @property
    def longest_row(self) -> int:
        """Tokens of the row that begins first."""
        return self.length - min(self.starts, default=0)

    def row_starts(self, device: torch.device) -> Tensor | None:
        """`[B, 1]`; None where all rows begin at 0."""
        return torch.tensor(self.starts, device=device).unsqueeze(1) if any(self.starts) else None

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores `[B, kv_heads, T, head_dim]` after the first `length` places; returns all that the new ones see, from `first` on."""
        first, new, seen = self.first, keys.size(2), []
        for kept, given in zip(self._layer(layer, len(keys), keys), (keys, values)):
            kept = kept[: len(keys)]
            kept.narrow(2, self.length, new).copy_(given)
            seen.append(kept.narrow(2, first, self.length + new - first))
        return seen[0], seen[1]

    def put(self, row: int, other: "KVCache", its_row: int, rows: int) -> None:
        """Row `row` (of at most `rows` that there will ever be) becomes what a row of `other` holds, ending where all rows end."""
        for layer, (keys, values) in other.layers.items():
            for mine, theirs in zip(self._layer(layer, rows, keys), (keys, values)):
                mine[row, :, self.length - other.length : self.length] = theirs[its_row, :, : other.length]
        self.starts[row : row + 1] = [self.length - other.length]

    def drop(self, row: int) -> None:
        """One row less; the last one takes its place."""
        last = len(self.starts) - 1
        for pair in self.layers.values():
            for mine in pair if row < last else ():
                mine[row] = mine[last]
        self.starts[row] = self.starts[last]
        self.starts.pop()

    def shift(self, places: int) -> None:
        """Forgets the first places, which no row needs, to make room at the end."""
        for pair in self.layers.values():
            for mine in pair:
                mine[:, :, : self.length - places] = mine[:, :, places : self.length].clone()
        self.length -= places
        self.starts = [start - places for start in self.starts]

    def _layer(self, layer: int, rows: int, like: Tensor) -> tuple[Tensor, Tensor]:
        if layer not in self.layers:  # shape, type and device are those of what comes: half the heads, say, or bf16
            shape = (rows, like.size(1), self.longest, like.size(3))
            self.layers[layer] = like.new_zeros(shape), like.new_zeros(shape)
        return self.layers[layer]
