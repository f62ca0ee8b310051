"""litdata (and LitGPT): chunks with an item a document, for its `TokensLoader`, as its `BinaryWriter` writes them.

Written here because the package would bring torchvision and four more with it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from corpusmill.tokenize.export.format import Format
from corpusmill.tokenize.export.source import Source, Stretch

#: Bytes of ids in a chunk. TokensLoader reads blocks within a chunk, so each chunk's last tokens (less than a block) are not read.
CHUNK_BYTES = 64_000_000
#: litdata's numbers for torch's types (`litdata.constants._TORCH_DTYPES_MAPPING`).
TYPE_NUMBERS = {"uint16": 20, "int32": 16}
#: A single tensor, as `litdata.utilities._pytree.treespec_dumps` writes it.
ONE_TENSOR = '[1, {"type": null, "context": null, "children_spec": []}]'


class LitData(Format):
    """`chunk-0-0.bin` and so on, and `index.json`."""

    def write(self, source: Source, folder: Path) -> None:
        (folder / source.split).mkdir()
        chunks: list[dict[str, Any]] = []
        for stretch in source.all_stretches(CHUNK_BYTES // source.dtype.itemsize):
            name = f"chunk-0-{len(chunks)}.bin"
            size = write_chunk(folder / source.split / name, stretch)
            chunks.append({"chunk_bytes": size, "chunk_size": len(stretch.counts), "dim": len(stretch.tokens), "filename": name})
        config = {
            "chunk_bytes": CHUNK_BYTES,
            "chunk_size": None,
            "compression": None,
            "compression_batch_size": None,
            "compression_level": None,
            "data_format": [f"no_header_tensor:{TYPE_NUMBERS[self.dtype(source.dtype).name]}"],
            "data_spec": ONE_TENSOR,
            "encryption": None,
            "ipc_compression": None,
            "item_loader": "TokensLoader",
            "types": "tensor",
        }
        content = {"chunks": chunks, "config": config, "updated_at": version_of(source)}
        (folder / source.split / "index.json").write_text(json.dumps(content, sort_keys=True))


def write_chunk(path: Path, stretch: Stretch) -> int:
    """The number of items, where each begins and the last ends (uint32), the ids; returns the size in bytes."""
    number = len(stretch.counts)
    offsets = 4 * (number + 2) + np.concatenate(([0], stretch.ends())) * stretch.tokens.itemsize
    with open(path, "wb") as file:
        file.write(np.concatenate(([number], offsets)).astype("<u4").data)
        file.write(stretch.tokens.data)
    return int(offsets[-1])


def version_of(source: Source) -> str:
    """litdata empties its cache of a remote set where this text differs; its own writer puts the time there."""
    return hashlib.sha256("".join(shard.sha256 for shard in source.description.shards).encode()).hexdigest()[:16]
