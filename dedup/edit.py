"""What may still happen to a document that stays: passages are cut, or it is dropped for what it holds.

An editor sees the texts that no copy replaced, while the last phase writes them (`removal.py`): no editor reads or
writes shards of its own there. What it has to know of the whole corpus, earlier phases have put into files.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.dedup.config import DedupConfig
from corpusmill.pipeline.stage import Piece
from corpusmill.pipeline.storage import Storage


@dataclass(frozen=True)
class Edit:
    """What became of n texts: the texts (`large_string`), what was measured (one value a text, under the names of the editor's
    `fields`), and for each rule which of the n documents it drops."""

    texts: pa.Array
    columns: dict[str, pa.Array] = field(default_factory=dict)
    dropped: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)  # for the manifest


class Editor(ABC):
    """Works in one process on one shard after another. The constructor has no side effects."""

    #: What it adds to the report; null for documents that an earlier rule dropped. Nullable.
    fields: ClassVar[tuple[pa.Field, ...]] = ()

    def __init__(self, config: DedupConfig, run: Storage):
        self.config = config
        self.run = run

    def open(self, piece: Piece) -> None:  # noqa: B027 - most editors need nothing of the shard
        """Called before the texts of a shard: `piece.inputs` are it, the list of cluster tables, and what the editor's phases made."""

    @abstractmethod
    def edit(self, texts: pa.Array, rows: npt.NDArray[np.int64]) -> Edit:
        """`texts` are n documents (one `large_string` array), `rows` (ascending) their rows in the shard. Pure."""
