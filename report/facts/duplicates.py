"""What a report says about duplicates: counts, the table by source, and clusters with their texts compared."""

from dataclasses import dataclass, field
from typing import Any

from corpusmill.pipeline.safe import safe_line
from corpusmill.report.facts.clusters import EXACT, URL, Choice, Cluster, Clusters, Member, read_clusters, read_members
from corpusmill.report.facts.earlier import Copy
from corpusmill.report.facts.passages import Comparison, compare
from corpusmill.report.facts.sources import Sources, read_sources
from corpusmill.report.read import RunReader

#: Clusters of each list on the page, copies named of each, and how many of them are compared with the kept document.
EACH, MEMBERS, COMPARED = 6, 5, 1
JACCARD = "exact_jaccard"
#: The lists of clusters, and what they show.
LISTS = {
    "largest": "The largest clusters",
    "doubtful": "The most doubtful removals: the least similar copies",
    "random": "Clusters drawn at random",
}
#: Why the kept document is the one, by the policy `dedup.keep`.
POLICIES = {
    "longest": "the longest text",
    "quality": "the highest quality",
    "newest": "the newest",
    "oldest": "the oldest",
    "earliest": "the earliest",
    "first": "the first by crawl file and place in it",
}


@dataclass(frozen=True)
class Shown:
    """A cluster with each of its first removed documents compared with the kept one; None where a text is not there."""

    cluster: Cluster
    comparisons: list[Comparison | None]

    def rows(self) -> list[tuple[Member, Comparison | None]]:
        """The removed documents that are shown, each with its comparison if it has one."""
        more: list[Comparison | None] = [None] * (len(self.cluster.removed) - len(self.comparisons))
        return list(zip(self.cluster.removed, [*self.comparisons, *more], strict=True))


@dataclass
class Duplicates:
    clusters: Clusters
    sources: Sources
    policy: str  # why the kept documents are kept
    threshold: float | None
    lists: dict[str, list[Shown]] = field(default_factory=dict)


def read_duplicates(reader: RunReader, texts: bool = True) -> Duplicates | None:
    """What the dedup stage's cluster tables say; None where it has none. `texts`: with clusters and what differs in them."""
    clusters = read_clusters(reader, EACH)
    if clusters is None:
        return None
    settings = reader.settings("dedup")
    found = Duplicates(clusters, read_sources(reader), policy(settings), _number(settings.get("threshold")))
    if texts:
        found.lists = show(reader, lists_of(clusters), MEMBERS, COMPARED)
    return found


def lists_of(clusters: Clusters) -> dict[str, list[Choice]]:
    return {"largest": clusters.largest, "doubtful": clusters.doubtful, "random": clusters.random}


def show(
    reader: RunReader, lists: dict[str, list[Choice]], members: int, compared: int, asked: frozenset[str] = frozenset()
) -> dict[str, list[Shown]]:
    """The chosen clusters of each list, with up to `members` removed documents, of which `compared` are compared with the kept one."""
    found = read_members(reader, [c for chosen in lists.values() for c in chosen], members, compared, asked)
    made: dict[str, Shown] = {}
    for name, cluster in found.items():
        made[name] = Shown(cluster, [_compare(member, cluster.kept) for member in cluster.removed[:compared]])
        for member in (cluster.kept, *cluster.removed):
            if member is not None:
                member.text = None
    return {name: [made[choice.kept_id] for choice in chosen] for name, chosen in lists.items()}


def _compare(removed: Member, kept: Member | None) -> Comparison | None:
    return compare(removed.text, kept.text) if kept is not None and removed.text is not None and kept.text is not None else None


def evidence(member: Member | Copy) -> str:
    """How a removed document is known to be a copy: `exact`, `url`, `exact_jaccard 0.812`."""
    how = safe_line(member.verified or "not verified", 40)
    return how if member.similarity is None or how in (EXACT, URL) else f"{how} {member.similarity:.3f}"


def told(member: Member | Copy) -> str:
    """`evidence` for readers who do not know the values of the column `verified`."""
    similar = "" if member.similarity is None else f", {member.similarity:.3f}"
    return f"verified word by word{similar}" if member.verified == JACCARD else evidence(member)


def policy(settings: dict[str, Any]) -> str:
    """Why the kept documents are kept, in a few words."""
    keep = settings.get("keep")
    return "" if keep is None else POLICIES.get(str(keep), f"the best by keep: {keep}")


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
