"""Describes the documents of a run: their files, crawl files, hosts, languages, and the dates of the crawl's records."""

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.shards import OutputFile
from corpusmill.pipeline.stage import load_object
from corpusmill.report import host
from corpusmill.report.queries.ask import columns
from corpusmill.report.queries.origins import read_rights
from corpusmill.report.query.run import Run
from corpusmill.report.query.sql import quoted
from corpusmill.report.read import DATA_STAGES, RunReader

_DAY = r"^\d{4}-\d{2}-\d{2}"
#: The header leaves out languages with a smaller share of the documents: there, classifier errors prevail.
LEAST_SHARE = 0.001


@dataclass
class Contents:
    """The documents that the last data stage keeps. `records`: records that ingest read, by crawl file. `first` and `last`: days."""

    stage: str
    finished: bool
    files: list[OutputFile]
    schema: pa.Schema
    documents: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    hosts: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)  # of the texts, by host
    languages: Counter[str] | None = None
    page_types: Counter[str] | None = None
    licences: Counter[str] | None = None  # those that pages name
    models: Counter[str] = field(default_factory=Counter)  # documents that a language model wrote, by its name
    reservations: Counter[str] | None = None  # kept documents by the signals of the step `rights`
    records: Counter[str] = field(default_factory=Counter)
    first: str | None = None
    last: str | None = None
    undated: int = 0


def read_contents(run: Run) -> Contents:
    """Reads the contents of a run. Memory grows with the crawl files and hosts. Raises InputError if the run has no documents."""
    reader = run.reader
    found = _last_stage(reader)
    schema = reader.schema(found, "data") if found else None
    if found is None or schema is None:
        raise InputError(f"{reader.storage.root}: the run has no documents yet, so there is nothing to write a card about.")
    outputs = {output.path: output for task in reader.stages[found].tasks for output in task.outputs}
    files = [outputs[path] for path in reader.stages[found].outputs("data/")]
    contents = Contents(found, reader.stages[found].status == "complete", files, schema)
    table = f"{found}_documents"
    day = f"nullif(regexp_extract(timestamp::VARCHAR, {quoted(_DAY)}), '')"
    ((contents.documents, contents.undated, contents.first, contents.last),) = run.rows(
        f"SELECT count(*), count(*) - count(day), min(day), max(day) FROM (SELECT {day} AS day FROM {table})"
    )
    if not contents.documents:
        raise InputError(f"{reader.storage.root}: {found} has kept no document, so there is nothing to write a card about.")
    contents.sources, contents.hosts = _counted(run, table, "source"), _counted(run, table, host.SQL)
    contents.characters = _counted(run, table, host.SQL, "sum(length(text))::BIGINT")
    contents.languages = _counted(run, table, "language") if "language" in schema.names else None
    contents.page_types = _counted(run, table, "page_type") if "page_type" in schema.names else None
    contents.licences = _counted(run, table, "license") if "license" in schema.names else None
    if "rewritten_by" in schema.names:
        contents.models = Counter(dict(run.rows(f"SELECT rewritten_by, count(*) FROM {table} WHERE rewritten_by IS NOT NULL GROUP BY 1")))
    if (rights := read_rights(run)) is not None:
        contents.reservations = Counter({row["signal"]: row["kept"] for row in rights.rows if row["kept"]})
    if "source" in columns(run, "ingest_report"):
        contents.records = _counted(run, "ingest_report", "source")
    return contents


def _counted(run: Run, table: str, value: str, count: str = "count(*)") -> Counter[str]:
    rows = run.rows(f"SELECT coalesce({value}::VARCHAR, {quoted(host.NONE)}), {count} FROM {table} GROUP BY 1")
    return Counter(dict(rows))


def _last_stage(reader: RunReader) -> str | None:
    """Returns the last complete data stage, else the last with any documents; None without any."""
    present = [stage for stage in DATA_STAGES if reader.stages[stage].outputs("data/")]
    complete = [stage for stage in present if reader.stages[stage].status == "complete"]
    return next(iter([*complete[::-1], *present[::-1]]), None)


def iso_codes(languages: Counter[str]) -> list[str]:
    """Returns the ISO 639-1 codes (639-3 where there is none) of languages that are not rare, most frequent first."""
    read = load_object("corpusmill.filters.language_codes:read_code")
    total = languages.total()
    codes: dict[str, None] = {}
    for name, count in sorted(languages.items(), key=lambda item: (-item[1], item[0])):
        code = read(name)
        if code and count >= LEAST_SHARE * total:
            codes[code.short] = None
    return list(codes)
