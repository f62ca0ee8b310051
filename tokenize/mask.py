"""Masks documents in token shards: their tokens become `<|endoftext|>`, and all others keep their places."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from corpusmill.pipeline.lease import holding
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.shards import OutputFile, publish, read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import DTYPES, SHARDS_FILE, ShardSet, TokenShard, map_tokens, split_folders


def mask_tokens(folder: str, listed: Callable[[pa.Table], Sequence[object]], on_message: Callable[[str], None] = lambda _: None) -> int:
    """Masks documents in the token shards of a run or a set, and returns the number of their tokens. `listed` gets a shard's index (columns
    `id` and `url`), and returns None for each row that stays.

    A process that is killed leaves a shard whose sha256 is not yet in `shards.json`; masking again mends that. Raises InputError where
    there are no shards.
    """
    root = Storage(folder)
    total, changed = 0, dict[str, OutputFile]()
    with holding(root, on_message) as lease:
        for path in split_folders(root).values():
            storage = root.child(path)
            described = ShardSet.read(storage)
            shards = []
            for shard in described.shards:
                lease.check()
                count, new = _masked(storage, described, shard, listed)
                total += count
                shards.append(new)
                if new is not shard:
                    file = OutputFile(new.file, storage.size(new.file), new.sha256, storage.xxh3(new.file))
                    changed[f"{path}/{new.file}".removeprefix("tokens/")] = file
            if shards != [*described.shards]:
                content = replace(described, shards=tuple(shards)).to_json()
                changed[f"{path}/{SHARDS_FILE}".removeprefix("tokens/")] = publish(storage, SHARDS_FILE, content)
        manifest = Manifest(root.child("tokens")) if changed and root.exists("run.json") else None
        if manifest:
            manifest.guard(lease.check)
            for row in list(manifest.tasks.values()):
                outputs = [replace(changed[output.path], path=output.path) if output.path in changed else output for output in row.outputs]
                if outputs != row.outputs:
                    manifest.append(replace(row, outputs=outputs))
    return total


def _masked(
    storage: Storage, described: ShardSet, shard: TokenShard, listed: Callable[[pa.Table], Sequence[object]]
) -> tuple[int, TokenShard]:
    index = read_table(storage, shard.index, ["id", "url", "first", "tokens"])
    rows = [number for number, ticket in enumerate(listed(index)) if ticket is not None]
    if not rows:
        return 0, shard
    tokens = np.array(map_tokens(storage, shard.file, DTYPES[described.dtype]))
    for first, count in zip(index["first"].take(rows).to_pylist(), index["tokens"].take(rows).to_pylist(), strict=True):
        tokens[first : first + count] = described.end_of_text_id
    written = publish(storage, shard.file, np.ascontiguousarray(tokens).view(np.uint8).data)
    return sum(index["tokens"].take(rows).to_pylist()), replace(shard, sha256=written.sha256)
