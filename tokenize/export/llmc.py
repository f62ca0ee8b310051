"""llm.c and modded-nanogpt: files of a header of 256 int32 and the ids, each document behind an END_OF_TEXT."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from corpusmill.tokenize.export.format import Format
from corpusmill.tokenize.export.source import Source

HEADER_INTS = 256
#: By bytes of an id: the number by which a file is known, and the version. llm.c calls them gpt-2 and llama-3.
KINDS = {2: (20240520, 1), 4: (20240801, 7)}
NAMES = {"train": "train", "validation": "val"}


class LLMC(Format):
    """A file a token shard. These readers expect END_OF_TEXT at a document's beginning, ours ends with it: so it is
    written before the first document and left out behind the last, which leaves as many tokens in the same order."""

    wide: ClassVar[str] = "uint32"

    def write(self, source: Source, folder: Path) -> None:
        magic, version = KINDS[source.dtype.itemsize]
        for number, shard in enumerate(source.description.shards):
            header = np.zeros(HEADER_INTS, "<i4")
            header[:3] = magic, version, shard.tokens
            with open(folder / f"tokens_{NAMES[source.split]}_{number:06d}.bin", "wb") as file:
                file.write(header.data)
                file.write(np.array([source.description.end_of_text_id], source.dtype).data)
                for stretch in source.stretches(number):
                    file.write(stretch.tokens.data)
                file.truncate(header.nbytes + shard.tokens * source.dtype.itemsize)
