"""What deduplication cut inside the documents that stay, repeated lines and repeated passages, and the lines that it cut most often."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.shards import read_table
from corpusmill.report.facts.histogram import as_floats
from corpusmill.report.read import RunReader

LINES, PASSAGES = "lines", "passages"
#: By kind: the report's columns of pieces cut, of their characters and of all pieces, and the rules of documents with nothing (or too
#: little) beside them.
COLUMNS = {LINES: ("lines_cut", "line_chars_cut", "lines_in"), PASSAGES: ("substring_spans", "substring_chars_cut", None)}
RULES = {LINES: ("only_repeated_lines", "mostly_repeated_lines"), PASSAGES: ("only_repeated_substrings",)}
TOP_FILE = "lines/top.parquet"
NEEDED = {"text", "documents", "times", "sources", "example_id", "example_url"}


@dataclass
class Cuts:
    """Documents that stay, `seen`; of these `documents` lost `cut` pieces of `characters` characters. `pieces` and `before` are the pieces
    and the characters that the `seen` had (pieces: 0 where the report does not count them); `dropped` are documents that went for it."""

    kind: str
    seen: int = 0
    documents: int = 0
    cut: int = 0
    characters: int = 0
    pieces: int = 0
    before: int = 0
    dropped: int = 0


@dataclass(frozen=True)
class TopLines:
    """The most frequent lines that are cut: the first rows of the stage's table, of `listed`. `about` says what is cut, in words."""

    rows: list[dict[str, Any]]
    listed: int
    unit: str
    about: str
    file: str


def read_cuts(reader: RunReader) -> list[Cuts]:
    """The totals of each kind that the stage's report has columns for. One row group is in memory at a time."""
    schema = reader.schema("dedup", "report") if reader.is_report("dedup") else None
    present = [kind for kind, columns in COLUMNS.items() if schema is not None and columns[0] in schema.names]
    found = {kind: Cuts(kind) for kind in present}
    wanted = ["kept", "failed", "chars_in", *(name for kind in present for name in COLUMNS[kind] if name)]
    for table in reader.tables("dedup", "report", wanted) if present else ():
        for cuts in found.values():
            _add(cuts, table)
    return list(found.values())


def _add(cuts: Cuts, table: pa.Table) -> None:
    pieces_cut, characters, pieces = (np.nan_to_num(as_floats(table, name or "")) for name in COLUMNS[cuts.kind])
    kept = table["kept"].to_numpy()
    some = kept & (pieces_cut > 0)
    cuts.seen += int(kept.sum())
    cuts.documents += int(some.sum())
    cuts.cut += int(pieces_cut[some].sum())
    cuts.characters += int(characters[some].sum())
    cuts.pieces += int(pieces[kept].sum())
    cuts.before += int(np.nansum(as_floats(table, "chars_in")[kept]))
    cuts.dropped += failed_any(table, RULES[cuts.kind])


def failed_any(table: pa.Table, rules: Collection[str]) -> int:
    """How many rows of a report failed one of these rules, of which a document never fails two."""
    return int(pc.sum(pc.is_in(pc.list_flatten(table["failed"]), pa.array(sorted(rules), pa.string()))).as_py() or 0)


def read_top_lines(reader: RunReader, limit: int) -> TopLines | None:
    """The stage's list of the most frequent lines that are cut; None where it has none."""
    files = reader.stages["dedup"].outputs(TOP_FILE)
    if not files:
        return None
    try:
        table = read_table(reader.storage.child("dedup"), files[0])
    except (CorpusmillError, OSError, pa.ArrowException) as error:
        reader.warn(f"dedup: its list of repeated lines can't be read: {error}")
        return None
    if not set(table.column_names) >= NEEDED:
        return None
    settings = reader.settings("dedup").get("lines")
    settings = settings if isinstance(settings, dict) else {}
    unit = str(settings.get("unit", "line"))
    return TopLines(table.slice(0, limit).to_pylist(), table.num_rows, unit, _about(unit, settings), f"dedup/{files[0]}")


def _about(unit: str, settings: dict[str, Any]) -> str:
    """Which lines are cut, by the recipe."""
    within = " of a host" if settings.get("scope") == "host" else ""
    if settings.get("keep") == "first":
        return f"Of each repeated {unit}{within} the first one stays"
    if settings.get("keep") == "none":
        least = settings.get("min_count") or 10
        share = settings.get("min_share")
        also = f" and {share:.0%} of its documents" if within and isinstance(share, int | float) and share else ""
        return f"{unit.capitalize()}s of {least} documents{within}{also} or more are cut from all of them"
    return f"The most frequent {unit}s"
