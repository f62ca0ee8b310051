"""Personal data and secrets in a run's documents, by kind: what the step `pii` found and replaced."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from corpusmill.pipeline.engine import load_object
from corpusmill.pipeline.report.read import RunReader

#: The table of kinds, which belongs to another room.
KINDS = "corpusmill.filters.pii.kinds:KINDS"


@dataclass(frozen=True)
class Found:
    """`found` in all documents that came into the filter stage, `kept` of these in those that it kept; in them `placeholder` stands for
    each (None: they were left as they are). `documents` are those that it kept and that had any."""

    kind: str
    what: str
    found: int
    kept: int
    documents: int
    placeholder: str | None


def pii_options(reader: RunReader) -> dict[str, Any] | None:
    """The options of the recipe's step `pii`; None where it has none."""
    steps = reader.settings("filter").get("steps")
    for step in steps if isinstance(steps, list) else ():
        if isinstance(step, dict) and isinstance(step.get("pii"), dict):
            return dict(step["pii"])
    return None


def read_pii(reader: RunReader) -> list[Found]:
    """The kinds that were looked for, in the order in which they take text; none where the filter stage did not look."""
    options, schema = pii_options(reader), reader.schema("filter", "report")
    if options is None or schema is None:
        return []
    kinds = [kind for kind in load_object(KINDS) if kind.column in schema.names]
    found, kept, documents = Counter[str](), Counter[str](), Counter[str]()
    for table in reader.tables("filter", "report", ["kept", *(kind.column for kind in kinds)]):
        stays = table.filter(table["kept"])
        for kind in kinds:
            found[kind.column] += pc.sum(table[kind.column]).as_py() or 0
            kept[kind.column] += pc.sum(stays[kind.column]).as_py() or 0
            documents[kind.column] += pc.sum(pc.greater(stays[kind.column], 0)).as_py() or 0
    return [
        Found(k.name, k.description, found[k.column], kept[k.column], documents[k.column], options.get(k.name, k.placeholder))
        for k in kinds
    ]
