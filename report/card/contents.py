"""What the documents are that a run leaves: their files, crawl files, hosts, languages, and the dates of the crawl's records."""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.shards import OutputFile
from corpusmill.pipeline.stage import load_object
from corpusmill.report.host import NONE, hosts
from corpusmill.report.read import DATA_STAGES, RunReader

_DAY = r"^(?P<day>\d{4}-\d{2}-\d{2})"
#: Languages with a smaller share of the documents are not named in the header: a few documents are where a classifier errs.
LEAST_SHARE = 0.001
#: Labels of lid.176 that are another language's code in ISO 639-3, and two codes that ISO has given up.
_WIKIPEDIA = {"als": "gsw", "sh": "hbs", "bh": "bih"}


@dataclass
class Contents:
    """The documents that the last data stage lets through. `records` are what ingest read, by crawl file; `first` and `last` are days.
    `distinct`: whether no two documents have one id, as copies of a page were removed."""

    stage: str
    finished: bool
    files: list[OutputFile]
    schema: pa.Schema
    distinct: bool = False
    documents: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    hosts: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] | None = None
    records: Counter[str] = field(default_factory=Counter)
    first: str | None = None
    last: str | None = None
    undated: int = 0


def read_contents(reader: RunReader) -> Contents:
    """One pass over some columns. Memory grows with the crawl files and hosts. Raises InputError where the run has no documents."""
    found = _last_stage(reader)
    schema = reader.schema(found, "data") if found else None
    if found is None or schema is None:
        raise InputError(f"{reader.storage.root}: the run has no documents yet, so there is nothing to write a card about.")
    outputs = {output.path: output for task in reader.stages[found].tasks for output in task.outputs}
    files = [outputs[path] for path in reader.stages[found].outputs("data/")]
    contents = Contents(found, reader.stages[found].status == "complete", files, schema)
    exact = reader.settings("dedup").get("exact")
    contents.distinct = found == "dedup" and contents.finished and (not isinstance(exact, dict) or bool(exact.get("enabled", True)))
    if "language" in schema.names:
        contents.languages = Counter()
    for table in reader.tables(found, "data", ["source", "url", "timestamp", "language"]):
        _add(contents, table)
    if not contents.documents:
        raise InputError(f"{reader.storage.root}: {found} has kept no document, so there is nothing to write a card about.")
    for table in reader.tables("ingest", "report", ["source"]):
        if "source" in table.column_names:
            contents.records.update(_counted(table["source"]))
    return contents


def _last_stage(reader: RunReader) -> str | None:
    """The last data stage that is complete, else the last of which anything is there."""
    present = [stage for stage in DATA_STAGES if reader.stages[stage].outputs("data/")]
    complete = [stage for stage in present if reader.stages[stage].status == "complete"]
    return next(iter([*complete[::-1], *present[::-1]]), None)


def _add(contents: Contents, table: pa.Table) -> None:
    contents.documents += table.num_rows
    contents.sources.update(_counted(table["source"]))
    contents.hosts.update(_counted(hosts(table["url"])))
    if contents.languages is not None and "language" in table.column_names:
        contents.languages.update(_counted(table["language"]))
    days = pc.struct_field(pc.extract_regex(table["timestamp"].cast(pa.string()), _DAY), "day")
    contents.undated += days.null_count
    ends = pc.min_max(days).as_py()
    if ends["min"] is not None:
        contents.first = min(contents.first or ends["min"], ends["min"])
        contents.last = max(contents.last or ends["max"], ends["max"])


def _counted(column: Any) -> dict[str, int]:
    pairs = pc.value_counts(column.cast(pa.string())).to_pylist()
    return {pair["values"] if pair["values"] is not None else NONE: pair["counts"] for pair in pairs}


def iso_codes(languages: Counter[str], lid_176: bool) -> list[str]:
    """ISO 639-1 codes, or 639-3 where there is none, of the languages that are no rarity, most frequent first.

    `lid_176`: whether the names are those of that model, which are codes of Wikipedias.
    """
    short = {long: code for code, long in load_object("corpusmill.filters.language_codes:ISO_639_3").items()}
    total = languages.total()
    codes: dict[str, None] = {}
    for name, count in sorted(languages.items(), key=lambda item: (-item[1], item[0])):
        code = re.sub(r"[_-][A-Z][a-z]{3}$", "", name)
        code = _WIKIPEDIA.get(code, code) if lid_176 else code
        code = short.get(code, code)
        if re.fullmatch(r"[a-z]{2,3}", code) and code != "und" and count >= LEAST_SHARE * total:
            codes[code] = None
    return list(codes)
