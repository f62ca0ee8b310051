"""All that a report says of deduplication beside its clusters: each piece is None (or empty) where the run has nothing of it."""

from dataclasses import dataclass, field

from corpusmill.report.facts.contamination import Contamination, read_contamination
from corpusmill.report.facts.cuts import Cuts, TopLines, read_cuts, read_top_lines
from corpusmill.report.facts.earlier import Earlier, read_earlier
from corpusmill.report.facts.full_clusters import FullClusters, read_full_clusters
from corpusmill.report.read import RunReader

#: Lines and full clusters that the page shows.
TOP_LINES, FULL = 25, 10


@dataclass
class DedupDetails:
    cuts: list[Cuts] = field(default_factory=list)
    top_lines: TopLines | None = None
    contamination: Contamination | None = None
    full_clusters: FullClusters | None = None
    earlier: Earlier | None = None

    @property
    def cut(self) -> bool:
        """Whether the stage looked for repeats inside documents."""
        return bool(self.cuts) or self.top_lines is not None


def read_dedup_details(reader: RunReader, examples: bool = True) -> DedupDetails:
    """`examples`: with documents as examples and their URLs."""
    return DedupDetails(
        read_cuts(reader), read_top_lines(reader, TOP_LINES), read_contamination(reader, examples),
        read_full_clusters(reader, FULL if examples else 0), read_earlier(reader, examples),
    )  # fmt: skip
