"""Which copy stays: a total order of documents, the best first, that depends on nothing but the documents."""

from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.dedup.config import KeepPolicy

#: The column by which each policy orders, and how; documents without a value come last.
POLICIES: dict[KeepPolicy, list[tuple[str, str]]] = {
    "longest": [("chars", "descending")],
    "quality": [("quality", "descending")],
    "newest": [("time", "descending")],
    "oldest": [("time", "ascending")],
    "first": [("source", "ascending"), ("offset", "ascending")],
}
TIES = [("id", "ascending"), ("source", "ascending"), ("offset", "ascending"), ("exact", "ascending"), ("index", "ascending")]
#: The columns that `ranks` needs.
RANKED = ("id", "source", "offset", "timestamp", "quality", "chars", "exact")


def microseconds(timestamp: str | None) -> int | None:
    """Microseconds since 1970 of an ISO 8601 time (UTC where it names no zone); None where it is none."""
    if timestamp is None:
        return None
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def ranks(table: pa.Table, keep: KeepPolicy) -> npt.NDArray[np.int64]:
    """The place of each row of `table` (columns `RANKED`) in the policy's order; 0 is the best.

    Ties go by id, crawl file, place in it and text; rows equal in all of that are the same document, and by their row.
    """
    columns = {name: table[name] for name in RANKED if name not in ("timestamp", "exact")}
    columns["exact"] = table["exact"].cast(pa.binary())
    columns["index"] = pa.array(np.arange(table.num_rows))
    if keep == "quality":
        columns["quality"] = pc.if_else(pc.is_nan(table["quality"]), None, table["quality"])
    if keep in ("newest", "oldest"):
        columns["time"] = pa.array([microseconds(t) for t in table["timestamp"].to_pylist()], pa.int64())
    keys = POLICIES[keep] + [tie for tie in TIES if tie not in POLICIES[keep]]
    order = pc.sort_indices(pa.table(columns), sort_keys=keys).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank
