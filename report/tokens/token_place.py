"""Where a document's tokens begin in a shard."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.shards import iter_tables
from corpusmill.pipeline.token_shards import shard_names
from corpusmill.report.read import RunReader


def first_token(reader: RunReader, row: dict[str, Any]) -> int | None:
    """The number of a document's first token in the first shard that has it; None where the index can't say. `row` is of the report."""
    index = f"{row.get('split')}/{shard_names(row['shards'][0])[1]}"
    try:
        for table in iter_tables(reader.storage.child("tokens"), index, ["id", "first"]):
            found = table.filter(pc.equal(table["id"], row["id"]))["first"]
            if len(found):
                return int(found[0].as_py())
    except (CorpusmillError, OSError, pa.ArrowException) as error:
        reader.warn(f"tokens: an index can't be read: {error}")
    return None
