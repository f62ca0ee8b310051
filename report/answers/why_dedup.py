"""What `why` says of deduplication: of which document a removed one is a copy, and what was cut out of or found in one that stays."""

from collections.abc import Iterator
from typing import Any

from corpusmill.pipeline.safe import safe_line
from corpusmill.report.facts.contamination import RULE, SET, action, stayed
from corpusmill.report.facts.cuts import COLUMNS
from corpusmill.report.facts.histogram import number
from corpusmill.report.read import RunReader

#: Columns that are told here in words.
TOLD = {"cluster_size", "kept_id", "kept_in", "similarity", "verified", "full_cluster"}
TOLD |= {column for columns in COLUMNS.values() for column in columns if column}
TOLD |= {f"contaminated_{name}" for name in ("set", "item", "field")} | {f"contamination{name}" for name in ("", "_passage", "_matches")}
PASSAGE = 600


def dedup_facts(reader: RunReader, row: dict[str, Any]) -> Iterator[str]:
    """Sentences about a row of the stage's report; none for rows of other stages."""
    if row.get("cluster_size") and row["cluster_size"] > 1:
        yield f"in a cluster of {row['cluster_size']:,} documents"
    if row.get("kept_id") and row["kept_id"] != row["id"]:
        yield from _copy(reader, row)
    if row.get("full_cluster"):
        yield from _left(reader, row)
    yield from _cuts(row)
    if row.get(SET) is not None:
        yield from _contamination(reader, row)


def _copy(reader: RunReader, row: dict[str, Any]) -> Iterator[str]:
    """Of which document a removed one is a copy, and how that is known."""
    earlier = row.get("kept_in")
    where = f"in the earlier run {safe_line(str(earlier), 120)}" if earlier else _url(reader, row["kept_id"])
    yield f"a copy of {safe_line(row['kept_id'], 40)}, which was kept{f': {where}' if where else ''}"
    known = _known(row)
    if known:
        yield known


def _left(reader: RunReader, row: dict[str, Any]) -> Iterator[str]:
    """The full cluster that had no room for a document, and how like its kept one the document is."""
    full, limit, known = row["full_cluster"], reader.settings("dedup").get("max_cluster"), _known(row)
    where = _url(reader, full)
    yield f"like {safe_line(full, 40)}{f' ({where})' if where else ''}{f': {known}' if known else ''}"
    yield f"that one's cluster was full{f' (max_cluster {limit:,})' if isinstance(limit, int) else ''}, so this one stays"


def _known(row: dict[str, Any]) -> str:
    """How a document is known to be like another."""
    known = [f"similarity {number(row['similarity'])}"] if row.get("similarity") is not None else []
    known += [f"verified: {safe_line(str(row['verified']), 40)}"] if row.get("verified") is not None else []
    return ", ".join(known)


def _cuts(row: dict[str, Any]) -> Iterator[str]:
    for kind, (cut, characters, pieces) in COLUMNS.items():
        count = row.get(cut)
        if count is not None:
            whole = f" of {number(row[pieces])}" if pieces and row.get(pieces) is not None else ""
            yield f"repeated {kind} cut: {count:,}{whole}{f', {row[characters]:,} characters' if count and row.get(characters) else ''}"


def _contamination(reader: RunReader, row: dict[str, Any]) -> Iterator[str]:
    """The item that was found, what was done about it, and the passage."""
    item = f"item {row.get('contaminated_item')} of {safe_line(str(row[SET]), 80)}"
    field, share, items = row.get("contaminated_field"), row.get("contamination"), row.get("contamination_matches") or 1
    done = "dropped for it" if RULE in (row.get("failed") or []) else stayed(action(reader))
    found = f", {share:.1%} of its words" if share is not None else ""
    yield f"holds {item}{f' ({safe_line(field, 40)})' if field else ''}{found}: {done}"
    if items > 1:
        yield f"and {items - 1:,} more {'item' if items == 2 else 'items'} of evaluation sets"
    if row.get("contamination_passage"):
        yield f"the passage: {safe_line(row['contamination_passage'], PASSAGE)}"


def _url(reader: RunReader, id_: str) -> str:
    """The URL of a document that came into the dedup stage; empty where it has none."""
    return safe_line(reader.urls("dedup", [id_]).get(id_, ""), 300)
