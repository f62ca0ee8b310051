"""Personal data and secrets in a run's documents, by kind, for a card: the report's own counts, with words for each kind."""

from dataclasses import dataclass

from corpusmill.pipeline.stage import load_object
from corpusmill.report.facts import pii
from corpusmill.report.facts.scan import scan
from corpusmill.report.read import RunReader

#: The table of kinds, which belongs to another room.
KINDS = "corpusmill.filters.pii:KINDS"


@dataclass(frozen=True)
class Row:
    """A kind, and what it is in words."""

    what: str
    found: pii.Found


def read_pii(reader: RunReader) -> list[Row]:
    """The kinds that were looked for, as the report counts them; none where the filter stage did not look."""
    measure = pii.personal_data(reader)
    if measure is None:
        return []
    scan(reader, "filter", [measure])
    words = {kind.column: kind.description for kind in load_object(KINDS)}
    return [Row(words.get(found.column, found.kind), found) for found in measure.kinds]
