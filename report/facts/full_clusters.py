"""Clusters that were full (`dedup.max_cluster`), and how many documents like theirs stay because of that."""

from collections import Counter
from dataclasses import dataclass, field

import pyarrow.compute as pc

from corpusmill.report.read import RunReader

COLUMN = "full_cluster"


@dataclass
class FullClusters:
    """`left` counts, by the kept document of each full cluster, the documents that it left; `urls` are those of the first of them."""

    left: Counter[str] = field(default_factory=Counter)
    limit: int | None = None  # dedup.max_cluster
    urls: dict[str, str] = field(default_factory=dict)

    def most(self, count: int) -> list[tuple[str, int]]:
        """The clusters that left most documents; ties go by id."""
        return sorted(self.left.items(), key=lambda pair: (-pair[1], pair[0]))[:count]


def read_full_clusters(reader: RunReader, shown: int = 0) -> FullClusters | None:
    """None where no cluster was full. `shown`: of how many clusters URLs are looked up. Memory grows with the number of full clusters."""
    settings = reader.settings("dedup").get("max_cluster")
    found = FullClusters(limit=settings if isinstance(settings, int) else None)
    schema = reader.schema("dedup", "report")
    for table in reader.tables("dedup", "report", [COLUMN]) if schema is not None and COLUMN in schema.names else ():
        if COLUMN in table.column_names:
            counts = pc.value_counts(table[COLUMN].drop_null()).to_pylist()
            found.left.update({pair["values"]: pair["counts"] for pair in counts})
    if shown:
        found.urls = reader.urls("dedup", [name for name, _ in found.most(shown)])
    return found if found.left else None
