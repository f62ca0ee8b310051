"""Documents in which the dedup stage found items of evaluation sets: how many by set, and those that it is least sure of."""

from dataclasses import dataclass, field
from heapq import nsmallest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.report.facts.cuts import failed_any
from corpusmill.report.facts.histogram import as_floats
from corpusmill.report.read import Place, RunReader

SET, SHARE = "contaminated_set", "contamination"
RULE = "contaminated"
#: Documents shown of each set, and sets of which documents are shown.
EACH, SETS = 3, 10
#: What was done with a document that stayed, by `dedup.contamination.action`.
STAYED = {"cut": "cut out", "report": "only reported"}


@dataclass(frozen=True)
class Found:
    """A document and its best match: of `item` (from 0) of a set `share` of the words were found, in `passage`. It holds `items` in all."""

    set: str
    item: int
    field: str
    share: float
    passage: str
    items: int
    id: str
    url: str
    kept: bool


@dataclass
class SetCount:
    documents: int = 0
    dropped: int = 0


@dataclass
class Contamination:
    """`seen` documents were looked at. A document counts for the set of its best match. `characters` were cut out of documents that
    stay; `examples` are the documents of each set of whose match the least was found."""

    action: str
    seen: int = 0
    sets: dict[str, SetCount] = field(default_factory=dict)
    items: int = 0
    characters: int = 0
    examples: list[Found] = field(default_factory=list)

    @property
    def documents(self) -> int:
        return sum(count.documents for count in self.sets.values())

    @property
    def dropped(self) -> int:
        return sum(count.dropped for count in self.sets.values())

    def by_documents(self) -> list[tuple[str, SetCount]]:
        return sorted(self.sets.items(), key=lambda pair: (-pair[1].documents, pair[0]))

    def done(self) -> str:
        """What was done with these documents, in words: with counts where it was not the same with all."""
        stay = self.documents - self.dropped
        dropped = "dropped, since too little was left" if self.action == "cut" else "dropped"
        parts = [(self.dropped, dropped), (stay, stayed(self.action))]
        some = [(count, what) for count, what in parts if count]
        return some[0][1] if len(some) == 1 else "; ".join(f"{count:,} {what}" for count, what in some)


def stayed(action: str) -> str:
    """What was done with a document that holds an item and stays."""
    return STAYED.get(action, "kept")


def action(reader: RunReader) -> str:
    section = reader.settings("dedup").get("contamination")
    return str(section.get("action", "")) if isinstance(section, dict) else ""


def read_contamination(reader: RunReader, examples: bool = True) -> Contamination | None:
    """What the report says; None where the stage did not look. Memory grows with the number of sets."""
    schema = reader.schema("dedup", "report") if reader.is_report("dedup") else None
    if schema is None or SET not in schema.names:
        return None
    found = Contamination(action(reader))
    best: dict[str, list[tuple[float, int, Place]]] = {}
    columns = ["kept", "failed", "chars_in", "chars_out", "line_chars_cut", "substring_chars_cut", SET, SHARE, "contamination_matches"]
    begin = 0
    for place, table in reader.groups("dedup", "report", columns):
        found.seen += int(pc.sum(table["kept"]).as_py() or 0) + failed_any(table, [RULE])
        table = table.append_column("row", pa.array(np.arange(table.num_rows)))
        begin += table.num_rows
        table = table.filter(table[SET].is_valid()) if SET in table.column_names else table.slice(0, 0)
        _count(found, table)
        if examples and table.num_rows:
            _choose(best, table, place, begin)
    if examples:
        for name, _ in found.by_documents()[:SETS]:
            found.examples += [_found(row) for row in reader.rows([choice[2] for choice in best[name]])]
    return found


def _count(found: Contamination, table: pa.Table) -> None:
    kept = table["kept"].to_numpy()
    for name, stays in zip(table[SET].to_pylist(), kept.tolist(), strict=True):
        count = found.sets.setdefault(name, SetCount())
        count.documents += 1
        count.dropped += not stays
    found.items += int(np.nansum(as_floats(table, "contamination_matches")))
    gone, by_others = as_floats(table, "chars_in") - as_floats(table, "chars_out"), ("line_chars_cut", "substring_chars_cut")
    gone -= sum(np.nan_to_num(as_floats(table, name)) for name in by_others)
    found.characters += int(gone[kept].sum())


def _choose(best: dict[str, list[tuple[float, int, Place]]], table: pa.Table, place: Place, begin: int) -> None:
    """Merges a row group's rows into the `EACH` of each set with the least share; ties go by place in the report."""
    for name in pc.unique(table[SET]).to_pylist():
        rows = table.filter(pc.equal(table[SET], name)).select([SHARE, "row"]).sort_by([(SHARE, "ascending"), ("row", "ascending")])
        some = [
            (share, begin + row, Place(place.stage, place.shard, place.group, row))
            for share, row in zip(*(column.to_pylist() for column in rows.slice(0, EACH).columns), strict=True)
        ]
        best[name] = nsmallest(EACH, [*best.get(name, []), *some], key=lambda choice: choice[:2])


def _found(row: dict[str, Any]) -> Found:
    return Found(
        row[SET], row["contaminated_item"], row["contaminated_field"] or "", row[SHARE], row["contamination_passage"] or "",
        row["contamination_matches"], row["id"], row["url"] or "", row["kept"],
    )  # fmt: skip
