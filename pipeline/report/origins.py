"""Languages, crawl files and hosts: how many documents of each came in, and how many each stage let through."""

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.report.read import DATA_STAGES, RunReader

#: Rows of a table that a page shows; the rest is summed up in one row.
SHOWN = 25
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
    return [origin for origin in columns.values() if origin.before]


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
