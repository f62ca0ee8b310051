"""Which copy stays: a total order of documents, the best first, that depends on nothing but the documents."""

from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.dedup.expression import columns_of, evaluate

#: Criteria by name; any other is an expression over columns of which the highest value wins.
NAMED = ("longest", "quality", "newest", "oldest", "first", "sources")
#: Columns that every document has for the order; a policy may need more (`needed_columns`).
ALWAYS = ("id", "source", "offset", "timestamp", "chars")
#: Columns of working files that mean something else there than in documents.
TAKEN_NAMES = ("exact", "url", "signature", "shingles", "by", "row", "near", "text")
TIES = [("id", "ascending"), ("source", "ascending"), ("offset", "ascending"), ("exact", "ascending"), ("index", "ascending")]


def criteria(keep: str | Sequence[str]) -> list[str]:
    return [keep] if isinstance(keep, str) else list(keep)


def check_policy(keep: str | Sequence[str], sources: Sequence[str]) -> None:
    """Raises ValueError with one sentence where a policy makes no sense."""
    if not criteria(keep):
        raise ValueError("keep names no criterion")
    for criterion in criteria(keep):
        taken = [] if criterion in NAMED else [name for name in columns_of(criterion) if name in TAKEN_NAMES]
        if taken:
            raise ValueError(f"keep can't use the column {taken[0]!r}")
        if criterion == "sources" and not sources:
            raise ValueError("keep: sources needs the list `sources`")


def needed_columns(keep: str | Sequence[str]) -> list[str]:
    """The columns of documents that a policy compares beside `ALWAYS`, sorted."""
    found = {"quality"} if "quality" in criteria(keep) else set()
    found.update(name for criterion in criteria(keep) if criterion not in NAMED for name in columns_of(criterion))
    return sorted(found - set(ALWAYS))


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


def ranks(table: pa.Table, keep: str | Sequence[str], sources: Sequence[str] = ()) -> npt.NDArray[np.int64]:
    """The place of each row of `table` in the policy's order; 0 is the best.

    `table` has `ALWAYS`, `exact` and `needed_columns(keep)`. Rows without a value come last. Ties go by id, crawl file, place in it
    and text; rows equal in all of that are the same document, and by their row.
    """
    columns = {name: table[name] for name in ("id", "source", "offset")}
    columns["exact"] = table["exact"].cast(pa.binary())
    columns["index"] = pa.array(np.arange(table.num_rows))
    keys: list[tuple[str, str]] = []
    for number, criterion in enumerate(criteria(keep)):
        if criterion == "first":
            keys += [key for key in (("source", "ascending"), ("offset", "ascending")) if key not in keys]
        else:
            columns[f"by{number}"] = _values(table, criterion, sources)
            keys.append((f"by{number}", "ascending" if criterion in ("oldest", "sources") else "descending"))
    keys += [tie for tie in TIES if tie not in keys]
    order = pc.sort_indices(pa.table(columns), sort_keys=keys).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


def _values(table: pa.Table, criterion: str, sources: Sequence[str]) -> pa.Array | pa.ChunkedArray:
    match criterion:
        case "longest":
            return table["chars"]
        case "newest" | "oldest":
            return pa.array([microseconds(t) for t in table["timestamp"].to_pylist()], pa.int64())
        case "sources":
            names = pc.unique(table["source"])
            trust = pa.array([_trust(name, sources) for name in names.to_pylist()], pa.int64())
            return trust.take(pc.index_in(table["source"], names))
        case _:
            return evaluate(criterion, table)


def _trust(source: str, patterns: Sequence[str]) -> int | None:
    return next((number for number, pattern in enumerate(patterns) if fnmatchcase(source, pattern)), None)
