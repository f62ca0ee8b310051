"""What one format has to know: how to write a split, and what else lies in the folder."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from corpusmill.tokenize.export.source import Source


class Format:
    """One format. `write` is called once for each split that holds documents, `finish` once after all of them.

    Formats write below `folder` and nowhere else; equal sources give equal bytes.
    """

    #: The largest vocabulary that the format's readers can take; None where there is no limit.
    largest_vocabulary: ClassVar[int | None] = None
    #: Whether it has rows, which can be documents or sequences of one length; the others are read as one row of tokens.
    has_rows: ClassVar[bool] = False
    #: The type in which ids of a vocabulary above 65,535 are written: many libraries know no uint32.
    wide: ClassVar[str] = "int32"

    def __init__(self, sequence_length: int | None = None):
        """`sequence_length`: write sequences of so many tokens instead of documents (formats that have rows)."""
        self.sequence_length = sequence_length

    def dtype(self, source: np.dtype[Any]) -> np.dtype[Any]:
        """The type of the ids in the format's files. Ids are below 2**31, so their bytes are the same in int32 as in uint32."""
        return source if source.itemsize == 2 else np.dtype(self.wide).newbyteorder("<")

    def write(self, source: Source, folder: Path) -> None:
        raise NotImplementedError

    def finish(self, folder: Path, splits: list[str], tokenizer_json: bytes) -> None:
        """Files that belong to no split."""
