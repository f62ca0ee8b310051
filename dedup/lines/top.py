"""The most frequent units that are cut, with their text: what a person looks at."""

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from corpusmill.dedup.corpus import read_rows
from corpusmill.dedup.lines.config import LinesConfig
from corpusmill.dedup.lines.hosts import COLUMNS, host_keys
from corpusmill.dedup.lines.phases import TOP_FILE
from corpusmill.dedup.lines.units import unit_keys
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
    found = {}
    places = [(row["shard"], row["row"]) for row in table.to_pylist()]
    for shard in sorted({shard for shard, _ in places}):
        rows = np.array(sorted({row for number, row in places if number == shard}))
        documents = pa.concat_tables(read_rows(run, shards[shard], rows, ["id", "text", *COLUMNS]))
        found.update({(shard, row): documents.slice(i, 1) for i, row in enumerate(rows.tolist())})
    lines = []
    for row in table.to_pylist():
        document = found[row["shard"], row["row"]]
        lines.append(
            {
                **{name: row[name] for name in ("documents", "times", "sources")},
                "text": unit_text(document, row["key"], config)[:TEXT],
                "example_id": document["id"][0].as_py(),
                "example_url": document["url"][0].as_py(),
            }
        )
    return Output({TOP_FILE: pa.Table.from_pylist(lines, schema=TOP_LINES)}, counts={"listed": len(lines)})


def unit_text(document: pa.Table, key: int, config: LinesConfig) -> str:
    """The first unit of a document (a table of one row) with this key."""
    units = re.split("\n{2,}" if config.unit == "paragraph" else "\n", document["text"][0].as_py())
    host = host_keys(document) if config.scope == "host" else np.zeros(1, np.uint64)
    data, offsets = text_buffers(pa.array(units, pa.large_string()))
    hosts = np.repeat(host, len(units))
    keys, texts, _ = unit_keys(data, offsets, hosts, config.normalisation, config.unit == "paragraph", config.min_chars)
    return str(units[texts[int(np.flatnonzero(keys == np.uint64(key))[0])]]).strip()
