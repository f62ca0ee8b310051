"""Languages, crawl files, hosts and encodings: how many documents and characters of each came in, and how many each stage let through.

Memory grows with the number of crawl files and hosts (about 100 bytes for each), not of documents.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.ingest.charset import canonical
from corpusmill.report.facts.origin_counts import NONE, Encodings, Tallies, Tally, count_shards
from corpusmill.report.read import RunReader

#: Rows of a table that a page shows; the rest is summed up in one row.
SHOWN = 25
#: Of those that lose most: rows, and how many documents must have come in to be one.
LOSERS, FEWEST = 10, 20
#: One that keeps less than this of what it would keep by the average has lost far more than the others.
FAR = 0.5
#: Types of records that are UTF-8 by their format and claim nothing.
TEXTS = ("line", "row", "conversion")
TITLES = {"language": "Language", "source": "Crawl file", "url": "Host"}

Ints = npt.NDArray[np.int64]


@dataclass
class Origin:
    """Documents and characters by one property: those that came in, then those after each of `stages`.

    `names` (n,) are sorted by documents that came in, the most frequent first; `documents` and `characters` are (n, 1 + stages).
    `first` is the stage whose report told what came in.
    """

    title: str
    column: str = ""
    first: str = ""
    stages: tuple[str, ...] = ()
    by_report: tuple[str, ...] = ()  # those of the stages whose report has the property; of the others their documents do
    names: pa.Array = field(default_factory=lambda: pa.array([], pa.string()))
    documents: Ints = field(default_factory=lambda: np.zeros((0, 1), np.int64))
    characters: Ints = field(default_factory=lambda: np.zeros((0, 1), np.int64))

    @cached_property
    def before(self) -> Counter[str]:
        """Documents that came in, by name."""
        return Counter(dict(zip(self.names.to_pylist(), self.documents[:, 0].tolist(), strict=True)))

    @cached_property
    def after(self) -> dict[str, Counter[str]]:
        """Documents after each stage, by name."""
        names = self.names.to_pylist()
        return {
            stage: Counter(dict(zip(names, self.documents[:, place + 1].tolist(), strict=True))) for place, stage in enumerate(self.stages)
        }

    def kept_most(self) -> str | None:
        """The name with the most documents after the last stage; None where that has none with a name."""
        left = self.after[self.stages[-1]] if self.stages else Counter[str]()
        named = [(-count, name) for name, count in left.items() if count and name != NONE]
        return min(named)[1] if named else None

    def rows(self) -> list[tuple[str, list[int]]]:
        """(name, documents before and after each stage) of the most frequent names, then of all others together."""
        return [(name, documents) for name, documents, _ in self.shown()]

    def shown(self) -> list[tuple[str, list[int], list[int]]]:
        """`rows` with the characters."""
        every = zip(self.names[:SHOWN].to_pylist(), self.documents[:SHOWN].tolist(), self.characters[:SHOWN].tolist(), strict=True)
        rows = [(name, documents, characters) for name, documents, characters in every]
        if len(self.names) > SHOWN:
            rest = (counts[SHOWN:].sum(axis=0).tolist() for counts in (self.documents, self.characters))
            rows.append((f"{len(self.names) - SHOWN:,} others", *rest))
        return rows

    @property
    def kept_share(self) -> float:
        """Of all documents that came in, the share that the last stage keeps."""
        total = self.documents.sum(axis=0)
        return float(total[-1] / total[0]) if len(total) and total[0] else 0.0

    def losers(self) -> list[tuple[str, int, int]]:
        """(name, documents before, documents left) of those that keep less than half of what they would by the average: first those that
        miss most documents by that."""
        before, left = self.documents[:, 0], self.documents[:, -1]
        missing = before * self.kept_share - left
        rows = np.flatnonzero((before >= FEWEST) & (left < FAR * self.kept_share * before))
        rows = rows[np.lexsort((rows, -missing[rows]))][:LOSERS]
        return [(self.names[int(row)].as_py(), int(before[row]), int(left[row])) for row in rows]


def biggest_loss(documents: Sequence[int]) -> int | None:
    """The place (from 1) of the stage after which most are gone; None where nothing is lost."""
    losses = [a - b for a, b in pairwise(documents)]
    return 1 + losses.index(max(losses)) if losses and max(losses) > 0 else None


class OriginMeasures:
    """What one pass over each stage's report tells of the origins; `read` adds what only the documents themselves have."""

    def __init__(self) -> None:
        self.tallies: dict[str, Tallies] = {}
        self.documents: dict[str, dict[str, Tally]] = {}
        self.encodings = Encodings()

    def of(self, reader: RunReader, stage: str) -> list[Tallies | Encodings]:
        """The measures of a stage."""
        schema = reader.schema(stage, "report")
        if schema is None or not reader.is_report(stage):
            return []
        names = set(schema.names)
        self.tallies[stage] = Tallies([column for column in TITLES if column in names])
        return [self.tallies[stage], *([self.encodings] if stage == "ingest" and self.encodings.fits(names) else [])]

    def read(self, reader: RunReader) -> list[Origin]:
        """The origins for which the run has columns."""
        for place, (stage, tallies) in enumerate(self.tallies.items()):
            missing = [column for column in TITLES if column not in tallies.by_column] if place else []
            self.documents[stage] = count_shards(reader, stage, missing)
        found = [self._origin(column) for column in TITLES]
        return [origin for origin in (*found, _encodings(self.encodings)) if len(origin.names)]

    def _origin(self, column: str) -> Origin:
        by_report = [stage for stage, tallies in self.tallies.items() if column in tallies.by_column]
        if not by_report:
            return Origin(TITLES[column], column)
        came = self.tallies[by_report[0]].by_column[column].table
        parts: list[Part] = [(0, came, ("documents_in", "characters_in"))]
        stages: list[str] = []
        for stage, tallies in self.tallies.items():
            tally = tallies.by_column.get(column) or self.documents[stage].get(column)
            if tally is not None and (stages or stage == by_report[0]):
                stages.append(stage)
                parts.append((len(stages), tally.table, ("documents", "characters")))
        return _joined(Origin(TITLES[column], column, by_report[0], tuple(stages), tuple(by_report)), parts)


#: A column of an origin: its place, a tally's table, and the names of documents and characters in it.
Part = tuple[int, pa.Table, tuple[str, str]]


def _joined(origin: Origin, parts: list[Part]) -> Origin:
    """Puts tallies side by side."""
    names = pc.unique(pa.chunked_array([part["name"].combine_chunks() for _, part, _ in parts], pa.string()))
    documents, characters = (np.zeros((len(names), 1 + len(origin.stages)), np.int64) for _ in range(2))
    for place, part, (counted, lengths) in parts:
        rows = pc.index_in(part["name"], names).to_numpy()
        documents[rows, place], characters[rows, place] = part[counted].to_numpy(), part[lengths].to_numpy()
    return _sorted(origin, names, documents, characters)


def _sorted(origin: Origin, names: pa.Array, documents: Ints, characters: Ints) -> Origin:
    """Fills in an origin, the names with the most documents first."""
    keys = pa.table({"name": names, "documents": documents[:, 0]})
    order = pc.sort_indices(keys, [("documents", "descending"), ("name", "ascending")])
    origin.names, at = names.take(order), order.to_numpy()
    origin.documents, origin.characters = documents[at], characters[at]
    return origin


def _encodings(found: Encodings) -> Origin:
    """In what encodings the pages were read, and what they had claimed where that was another one or nothing."""
    sums: dict[str, Ints] = {}
    for (used, claimed, kind), counts in found.counts.items():
        name = _encoding(used, claimed, kind)
        sums[name] = sums.get(name, np.zeros(4, np.int64)) + np.array(counts)
    table = np.array(list(sums.values()), np.int64).reshape(-1, 4)
    origin = Origin("Encoding", "encoding", "ingest", ("ingest",))
    return _sorted(origin, pa.array(list(sums), pa.string()), table[:, [0, 2]], table[:, [1, 3]])


def _encoding(used: str, claimed: str | None, kind: str) -> str:
    if claimed is None:
        return used if kind in TEXTS else f"{used}, nothing claimed"
    return used if canonical(claimed) == used else f"{used}, claimed {claimed}"
