"""An array of token ids where a loader expects shards."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.token_shards import address_of


class TokenArray:
    """Ids in memory (uint16 or uint32) as one shard (`corpusmill.train.loader.Tokens`)."""

    def __init__(self, ids: npt.NDArray[Any]):
        self.ids = np.ascontiguousarray(ids)
        self.dtype = self.ids.dtype
        self.starts = np.array([0, len(ids)], np.int64)
        self.addresses = np.array([address_of(self.ids)], np.uint64)

    def __len__(self) -> int:
        return len(self.ids)

    def map(self, numbers: Iterable[int]) -> None:
        """It is there already."""

    def window(self, start: int, length: int) -> npt.NDArray[Any]:
        return self.ids[start : start + length]
