"""Languages, crawl files, hosts and encodings: how many documents of each came in, and how many each stage let through."""

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.ingest.charset import canonical
from corpusmill.pipeline.report.read import DATA_STAGES, RunReader

#: Rows of a table that a page shows; the rest is summed up in one row.
SHOWN = 25
#: Types of records that are UTF-8 by their format and claim nothing.
TEXTS = ("line", "row", "conversion")
_HOST = r"^[A-Za-z][A-Za-z0-9+.\-]*://(?:[^/?#@]*@)?(?P<host>[^/?#:]+)"


@dataclass
class Origin:
    """Documents by one property: those that came in, and those after each stage."""

    title: str
    before: Counter[str] = field(default_factory=Counter)
    after: dict[str, Counter[str]] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, list[int]]]:
        """(name, [before, after each stage]) of the most frequent names, then of all others together."""
        counters = [self.before, *self.after.values()]
        names = sorted({*self.before, *(n for c in self.after.values() for n in c)}, key=lambda n: (-self.before[n], n))
        rows = [(name, [counter[name] for counter in counters]) for name in names[:SHOWN]]
        if names[SHOWN:]:
            rest = [sum(counter[name] for name in names[SHOWN:]) for counter in counters]
            rows.append((f"{len(names) - SHOWN:,} others", rest))
        return rows


def read_origins(reader: RunReader) -> list[Origin]:
    """The origins for which the run has columns. Memory grows with the number of crawl files and hosts, not of documents."""
    stages = reader.present(DATA_STAGES)
    columns = {"language": Origin("Language"), "source": Origin("Crawl file"), "url": Origin("Host")}
    for stage in stages:  # the first report that has a column tells what came in
        missing = [column for column, origin in columns.items() if not origin.before]
        for column, counts in _counted(reader, stage, "report", missing).items():
            columns[column].before = counts
    for stage in stages:
        for column, counts in _counted(reader, stage, "data", list(columns)).items():
            columns[column].after[stage] = counts
    return [origin for origin in (*columns.values(), _encodings(reader)) if origin.before]


def _encodings(reader: RunReader) -> Origin:
    """In what encodings the pages were read, and what they had claimed where that was another one or nothing."""
    origin = Origin("Encoding", after={"ingest": Counter()})
    for table in reader.tables("ingest", "report", ["encoding_claimed", "encoding", "record_type", "kept"]):
        if "encoding_claimed" in table.column_names:
            counted = table.group_by(table.column_names).aggregate([([], "count_all")])
            for row in counted.to_pylist():
                if row["encoding"] is not None:
                    name = _encoding(row["encoding"], row["encoding_claimed"], row["record_type"])
                    origin.before[name] += row["count_all"]
                    origin.after["ingest"][name] += row["count_all"] * row["kept"]
    return origin


def _encoding(used: str, claimed: str | None, kind: str) -> str:
    if claimed is None:
        return used if kind in TEXTS else f"{used}, nothing claimed"
    return used if canonical(claimed) == used else f"{used}, claimed {claimed}"


def _counted(reader: RunReader, stage: str, kind: str, columns: list[str]) -> dict[str, Counter[str]]:
    """How often each value (of `url`: each host) stands in those of `columns` that the stage's table has."""
    schema = reader.schema(stage, kind)
    counts: dict[str, Counter[str]] = {column: Counter() for column in columns if schema is not None and column in schema.names}
    for table in reader.tables(stage, kind, counts) if counts else ():
        for column in table.column_names:
            values = table[column].cast(pa.string())
            if column == "url":
                values = pc.struct_field(pc.extract_regex(values, _HOST), "host")
            for pair in pc.value_counts(values).to_pylist():
                counts[column][pair["values"] if pair["values"] is not None else "(none)"] += pair["counts"]
    return counts
