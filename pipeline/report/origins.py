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
    languages, sources, hosts = Origin("Language"), Origin("Crawl file"), Origin("Host")
    for stage in stages:
        schema = reader.schema(stage, "report")
        if not languages.before and schema is not None and "language" in schema.names:
            languages.before = _counted(reader, stage, "report", "language")
    if stages:
        sources.before = _counted(reader, stages[0], "report", "source")
        hosts.before = _counted(reader, stages[0], "report", "url")
    for stage in stages:
        schema = reader.schema(stage, "data")
        if schema is None:
            continue
        for origin, column in ((languages, "language"), (sources, "source"), (hosts, "url")):
            if column in schema.names and origin.before:
                origin.after[stage] = _counted(reader, stage, "data", column)
    return [origin for origin in (languages, sources, hosts) if origin.before]


def _counted(reader: RunReader, stage: str, kind: str, column: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for table in reader.tables(stage, kind, [column]):
        if column in table.column_names:
            values = table[column].cast(pa.string())
            if column == "url":
                values = pc.struct_field(pc.extract_regex(values, _HOST), "host")
            for pair in pc.value_counts(values).to_pylist():
                counts[pair["values"] if pair["values"] is not None else "(none)"] += pair["counts"]
    return counts
