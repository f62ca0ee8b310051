"""The most frequent units that are cut, with their text: what a person looks at."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.dedup.corpus import read_rows
from corpusmill.dedup.lines.config import LinesConfig
from corpusmill.dedup.lines.hosts import COLUMNS, host_keys
from corpusmill.dedup.lines.phases import TOP_FILE
from corpusmill.dedup.lines.units import first_units
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.stage import Output
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.text.buffers import text_buffers

#: Characters of a unit's text.
TEXT = 300
TOP_LINES = pa.schema(
    [
        pa.field("text", pa.string(), nullable=False),  # of its first occurrence, at most TEXT characters
        pa.field("documents", pa.int64(), nullable=False),  # that have it, of those that stay
        pa.field("times", pa.int64(), nullable=False),
        pa.field("sources", pa.int64(), nullable=False),  # crawl files whose shards have it
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("example_url", pa.string()),
    ]
)


def top_output(run: Storage, config: LinesConfig, shards: Sequence[str], tops: Sequence[str]) -> Output:
    """The table of the whole corpus from those of the ranges (`tops`); `shards` are the document shards."""
    table = pa.concat_tables([read_table(run, path) for path in tops])
    table = table.sort_by([("documents", "descending"), ("times", "descending"), ("key", "ascending")]).slice(0, config.top)
    table = table.append_column("place", pa.array(range(table.num_rows), pa.int64()))
    lines = []
    for shard in sorted(set(table["shard"].to_pylist())):
        wanted = table.filter(pc.equal(table["shard"], shard))
        lines += _with_texts(run, config, shards[shard], wanted)
    found = pa.Table.from_pylist(sorted(lines, key=lambda line: line.pop("place")), schema=TOP_LINES)
    return Output({TOP_FILE: found}, counts={"listed": len(lines)})


def _with_texts(run: Storage, config: LinesConfig, shard: str, wanted: pa.Table) -> list[dict[str, Any]]:
    """The rows of TOP_LINES, with their `place` in the list, for units (TOP) that come first in one shard."""
    rows = np.unique(wanted["row"].to_numpy())
    documents = pa.concat_tables(read_rows(run, shard, rows, ["id", "text", *COLUMNS]))
    hosts = host_keys(documents) if config.scope == "host" else np.zeros(len(rows), np.uint64)
    data, offsets = text_buffers(documents["text"])
    keys = wanted["key"].to_numpy()
    spans = first_units(data, offsets, hosts, config.normalisation, config.unit == "paragraph", config.min_chars, keys)
    lines = []
    for row, (begin, end) in zip(wanted.to_pylist(), spans.tolist(), strict=True):
        document = int(np.searchsorted(rows, row["row"]))
        lines.append(
            {
                **{name: row[name] for name in ("place", "documents", "times", "sources")},
                "text": bytes(data[begin : min(end, begin + 4 * TEXT)]).decode(errors="ignore")[:TEXT],
                "example_id": documents["id"][document].as_py(),
                "example_url": documents["url"][document].as_py(),
            }
        )
    return lines
