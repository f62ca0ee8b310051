"""What deduplication removed: counts of clusters and copies, some clusters with what differs in them, crawl files, earlier runs.

The cluster tables (`RUN/dedup/clusters/`) are there after a dry run too, before any document is written.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from corpusmill.pipeline.safe import safe_line
from corpusmill.report.queries.ask import Query, ask, columns, listed
from corpusmill.report.queries.passages import Comparison, compare
from corpusmill.report.query.run import Run
from corpusmill.report.query.sql import column, literal
from corpusmill.report.read import RunReader

EXACT, URL, JACCARD = "exact", "url", "exact_jaccard"
#: Bars of the histogram of similarities between 0 and 1.
BARS = 100
NEEDED = {"kept", "cluster_size", "kept_id", "similarity", "verified", "id", "source", "shard", "row"}
CLUSTERS, SOURCES, CHANGES = "dedup_clusters", "dedup_clusters_sources", "dedup_earlier_changes"
#: Clusters of each list on the page, copies named of each, and how many of them are compared with the kept document.
EACH, MEMBERS, WITH_TEXT = 6, 5, 1
#: Full clusters that the page shows, and examples of what has to do with earlier runs.
FULL, EXAMPLES = 10, 4
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


# ---- clusters -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clusters:
    """Counts over all cluster tables. `sizes` counts clusters by size, `verified` removals by how they are known to be copies;
    `similarities` are those of removed documents that are no exact copies, in `BARS` bars from 0 to 1 (1 in the last)."""

    count: int
    documents: int
    sizes: dict[int, int]
    verified: dict[str, int]
    similarities: list[int]
    queries: dict[str, Query]

    @property
    def exact(self) -> int:
        return self.verified.get(EXACT, 0)

    @property
    def url(self) -> int:
        return self.verified.get(URL, 0)

    @property
    def removed(self) -> int:
        return sum(self.verified.values())

    @property
    def near(self) -> int:
        return self.removed - self.exact - self.url


def has_clusters(run: Run) -> bool:
    return columns(run, CLUSTERS).keys() >= NEEDED


def read_clusters(run: Run) -> Clusters | None:
    """None where the stage has written no cluster table."""
    if not has_clusters(run):
        return None
    totals = ask(run, "clusters", "Clusters and copies", f"""
        SELECT count(DISTINCT kept_id) FILTER ({_head(run)}) AS clusters, count(*) AS documents,
          count(*) FILTER (NOT kept AND verified = '{EXACT}') AS exact,
          count(*) FILTER (NOT kept AND (verified IS NULL OR verified NOT IN ('{EXACT}', '{URL}'))) AS near,
          count(*) FILTER (NOT kept AND verified = '{URL}') AS url
        FROM {CLUSTERS}
    """)  # fmt: skip
    verified = ask(run, "verified", "Copies by how they are known", f"""
        SELECT coalesce(verified, 'None') AS verified, count(*) AS documents FROM {CLUSTERS} WHERE NOT kept GROUP BY ALL ORDER BY ALL
    """)  # fmt: skip
    sizes = ask(run, "cluster-sizes", "Clusters by size", f"""
        SELECT cluster_size, count(DISTINCT kept_id) AS clusters
        FROM {CLUSTERS}
        WHERE {_head(run)}
        GROUP BY cluster_size
        ORDER BY cluster_size
    """)  # fmt: skip
    bars = ask(run, "similarities", "Near copies by similarity", f"""
        SELECT greatest(least(floor(similarity * {BARS} + 1e-9), {BARS - 1}), 0)::INTEGER AS bar, bar / {BARS} AS similarity_from,
          count(*) AS removed
        FROM {CLUSTERS}
        WHERE NOT kept AND verified <> '{EXACT}' AND similarity IS NOT NULL
        GROUP BY bar
        ORDER BY bar
    """)  # fmt: skip
    counts = {row["bar"]: row["removed"] for row in bars.rows}
    return Clusters(
        totals.first["clusters"], totals.first["documents"], {row["cluster_size"]: row["clusters"] for row in sizes.rows},
        {row["verified"]: row["documents"] for row in verified.rows}, [counts.get(bar, 0) for bar in range(BARS)],
        {"totals": totals, "sizes": sizes, "similarities": bars},
    )  # fmt: skip


def _head(run: Run) -> str:
    """SQL: what names a cluster: its kept document, or its copies where that is in an earlier run. One alone was left by a full cluster."""
    return "(kept AND cluster_size > 1)" + (" OR kept_in IS NOT NULL" if "kept_in" in columns(run, CLUSTERS) else "")


def choose_clusters(run: Run, name: str, limit: int, seed: int = 0) -> list[str]:
    """The kept ids of the first clusters of one of `LISTS`: of equal ones the first by id."""
    if name == "doubtful":
        near = f"NOT kept AND verified <> '{EXACT}' AND similarity IS NOT NULL AND NOT isnan(similarity)"
        sql = f"SELECT kept_id FROM {CLUSTERS} WHERE {near} GROUP BY kept_id ORDER BY min(similarity), kept_id"
    else:
        order = "max(cluster_size) DESC" if name == "largest" else f"md5('{seed} ' || kept_id)"
        sql = f"SELECT kept_id FROM {CLUSTERS} WHERE {_head(run)} GROUP BY kept_id ORDER BY {order}, kept_id"
    return [kept_id for (kept_id,) in run.sql(f"{sql} LIMIT {limit}").fetchall()]


def find_clusters(run: Run, ids: Collection[str]) -> list[str]:
    """The kept ids of the clusters that hold a document with one of these ids, or that keep it."""
    wanted = "SELECT unnest($ids::VARCHAR[])"
    sql = f"SELECT DISTINCT kept_id FROM {CLUSTERS} WHERE id IN ({wanted}) OR kept_id IN ({wanted}) ORDER BY kept_id"
    return [kept_id for (kept_id,) in run.sql(sql, ids=sorted(ids)).fetchall()] if has_clusters(run) else []


@dataclass(frozen=True)
class Member:
    """A document of a cluster and where it lies: `row` of the shard `shard` that the stage read."""

    id: str
    source: str
    shard: str
    row: int
    similarity: float | None = None
    verified: str | None = None
    url: str | None = None
    characters: int | None = None  # None where its text is not there any more


@dataclass(frozen=True)
class Cluster:
    """`kept` is None where the kept document is one of the earlier run `kept_in`; `removed` are some of its `copies`, each with a
    comparison with the kept document, if it has one."""

    kept_id: str
    size: int
    kept_in: str | None
    kept: Member | None
    copies: int
    removed: list[tuple[Member, Comparison | None]]


def read_members(
    run: Run, lists: Mapping[str, Sequence[str]], limit: int = MEMBERS, compared: int = WITH_TEXT, asked: Collection[str] = ()
) -> dict[str, tuple[list[Cluster], Query]]:
    """The clusters of each list, given by their kept ids, with up to `limit` removed documents: those whose ids are `asked` for, then the
    least alike. The `compared` first removed ones are compared with the kept document."""
    kept_in = "kept_in" if "kept_in" in columns(run, CLUSTERS) else "NULL"
    order = f"list_contains({listed(sorted(asked))}::VARCHAR[], id) DESC, similarity NULLS LAST, shard, row"
    queries = {
        name: ask(run, f"clusters-{name}", LISTS.get(name, "Clusters"), f"""
            SELECT kept_id AS cluster, cluster_size AS documents, {kept_in} AS kept_in, copies, kept, id, source, shard, row,
              similarity, verified
            FROM (
              SELECT *, list_position({listed(ids)}, kept_id) AS place, count(*) FILTER (NOT kept) OVER (PARTITION BY kept_id) AS copies
              FROM {CLUSTERS}
              WHERE list_contains({listed(ids)}, kept_id)
              QUALIFY row_number() OVER (PARTITION BY kept_id, kept ORDER BY {order}) <= if(kept, 1, {limit})
            )
            ORDER BY place, kept DESC, {order}
        """)
        for name, ids in lists.items() if ids
    }  # fmt: skip
    documents = _documents(run.reader, [row for query in queries.values() for row in query.rows])
    found: dict[str, tuple[list[Cluster], Query]] = {}
    for name, query in queries.items():
        rows: dict[str, list[dict[str, Any]]] = {kept_id: [] for kept_id in lists[name]}
        for row in query.rows:
            rows[row["cluster"]].append(row)
        found[name] = [_cluster(of, documents, compared) for of in rows.values() if of], query
    return found


Places = dict[tuple[str, int], dict[str, Any]]


def _documents(reader: RunReader, rows: Sequence[dict[str, Any]]) -> Places:
    """What the shards that the stage has read say of members, by shard and row; nothing of shards that are not there any more."""
    paths, found = reader.inputs("dedup"), Places()
    wanted: dict[str, dict[int, str]] = {}
    for row in rows:
        wanted.setdefault(row["shard"], {})[row["row"]] = row["id"]
    for shard in sorted(wanted.keys() & paths.keys()):
        read = reader.at(paths[shard], list(wanted[shard]), ["id", "url", "text"])
        found |= {(shard, place): row for place, row in read.items() if row.get("id") == wanted[shard][place]}
    return found


def _cluster(rows: list[dict[str, Any]], documents: Places, compared: int) -> Cluster:
    members: dict[bool, list[tuple[Member, str | None]]] = {True: [], False: []}
    for row in rows:
        document = documents.get((row["shard"], row["row"]))
        member = Member(*(row[name] for name in ("id", "source", "shard", "row", "similarity", "verified")))
        if document is not None:
            member = replace(member, url=document["url"], characters=len(document["text"]))
        members[row["kept"]].append((member, document["text"] if document is not None else None))
    kept, kept_text = members[True][0] if members[True] else (None, None)
    removed = [
        (member, compare(text, kept_text) if place < compared and text is not None and kept_text is not None else None)
        for place, (member, text) in enumerate(members[False])
    ]
    first = rows[0]
    return Cluster(first["cluster"], first["documents"], first["kept_in"], kept, first["copies"], removed)


def evidence(member: "Member | Copy") -> str:
    """How a removed document is known to be a copy: `exact`, `url`, `exact_jaccard 0.812`."""
    how = safe_line(member.verified or "not verified", 40)
    return how if member.similarity is None or how in (EXACT, URL) else f"{how} {member.similarity:.3f}"


def told(member: "Member | Copy") -> str:
    """`evidence` for readers who do not know the values of the column `verified`."""
    similar = "" if member.similarity is None else f", {member.similarity:.3f}"
    return f"verified word by word{similar}" if member.verified == JACCARD else evidence(member)


def policy(settings: dict[str, Any]) -> str:
    """Why the kept documents are kept, in a few words."""
    keep = settings.get("keep")
    return "" if keep is None else POLICIES.get(str(keep), f"the best by keep: {keep}")


# ---- crawl files --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SourceCopies:
    """A crawl file: `counts` are the documents removed, in the order of the table's columns (exact, near, ...)."""

    name: str
    documents: int
    counts: tuple[int, ...]
    share: float  # of its documents that is removed
    alarm: bool


@dataclass(frozen=True)
class Sources:
    """`names` are those of the counts; `rows` have the alarms first, then the largest shares. `limit` is the share that alarms."""

    names: tuple[str, ...] = ()
    rows: list[SourceCopies] = field(default_factory=list)
    limit: float | None = None
    query: Query | None = None

    @property
    def documents(self) -> int:
        return sum(row.documents for row in self.rows)

    @property
    def alarms(self) -> int:
        return sum(row.alarm for row in self.rows)

    @property
    def folder(self) -> str:
        """The folder that all names begin with, as they have it (`crawl/`); empty where there is none."""
        low, high = min((row.name for row in self.rows), default=""), max((row.name for row in self.rows), default="")
        common = next((place for place, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
        return low[: low.rfind("/", 0, common) + 1]

    def total(self, name: str) -> int:
        """How many documents of all crawl files were removed in this way; 0 where the table does not know it."""
        return sum(row.counts[self.names.index(name)] for row in self.rows) if name in self.names else 0


def read_sources(run: Run) -> Sources:
    """The table by source of the dedup stage; empty where it has written none. Memory grows with the number of crawl files."""
    kinds = columns(run, SOURCES)
    if not {"source", "documents", "share"} <= kinds.keys():
        return Sources()
    settings = run.reader.settings("dedup")
    limit, least = settings.get("alarm_share"), settings.get("alarm_documents") or 0
    names = tuple(name for name, kind in kinds.items() if "INT" in kind and name != "documents")
    counts = "".join(f"coalesce({column(name)}, 0) AS {column(name)}, " for name in names)
    alarm = "false" if limit is None else f"share > {literal(limit)} AND documents >= {least}"
    query = ask(run, "dedup-sources", "Copies by crawl file", f"""
        SELECT source, documents, {counts}share, {alarm} AS alarm
        FROM {SOURCES}
        ORDER BY alarm DESC, share DESC, documents DESC, source
    """)  # fmt: skip
    rows = [SourceCopies(r["source"], r["documents"], tuple(r[name] for name in names), r["share"], r["alarm"]) for r in query.rows]
    return Sources(names, rows, limit, query)


# ---- full clusters ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FullClusters:
    """Clusters that were full (`dedup.max_cluster`), and `documents` like theirs that stay because of that. `most`: the kept documents of
    those that left most documents, each with its URL and how many."""

    clusters: int
    documents: int
    limit: int | None
    query: Query
    most: list[tuple[str, str | None, int]]
    most_query: Query


def read_full_clusters(run: Run) -> FullClusters | None:
    """None where no cluster was full."""
    if "full_cluster" not in columns(run, "dedup_report"):
        return None
    settings = run.reader.settings("dedup").get("max_cluster")
    query = ask(run, "full-clusters-all", "All full clusters", """
        SELECT count(DISTINCT full_cluster) AS clusters, count(full_cluster) AS documents FROM dedup_report
    """)  # fmt: skip
    most = ask(run, "full-clusters", "Full clusters", f"""
        SELECT full_cluster, (SELECT any_value(url) FROM dedup_report WHERE id = left_by.full_cluster) AS url, documents
        FROM (
          SELECT full_cluster, count(*) AS documents
          FROM dedup_report
          WHERE full_cluster IS NOT NULL
          GROUP BY full_cluster
          ORDER BY documents DESC, full_cluster
          LIMIT {FULL}
        ) left_by
        ORDER BY documents DESC, full_cluster
    """)  # fmt: skip
    rows = [(row["full_cluster"], row["url"], row["documents"]) for row in most.rows]
    limit = settings if isinstance(settings, int) else None
    return FullClusters(query.first["clusters"], query.first["documents"], limit, query, rows, most) if rows else None


# ---- earlier runs -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EarlierRun:
    """An entry of the index: copies of its documents that this run lost, its documents that are replaced, and those that stay again."""

    name: str
    copies: int = 0
    replaced: int = 0
    restored: int = 0


@dataclass(frozen=True)
class Copy:
    """A document that was removed for one that the earlier run `kept_in` keeps."""

    id: str
    kept_id: str
    kept_in: str
    similarity: float | None
    verified: str | None


@dataclass(frozen=True)
class Earlier:
    """What a run with an index has to do with earlier runs, in all and by run; examples of `copies`, and of rows of the table of changes
    (`replaced`, `restored`); URLs of this run's documents by id."""

    total: EarlierRun
    runs: list[EarlierRun]
    query: Query
    copies: list[Copy] = field(default_factory=list)
    replaced: list[dict[str, Any]] = field(default_factory=list)
    restored: list[dict[str, Any]] = field(default_factory=list)
    urls: dict[str, str] = field(default_factory=dict)


def read_earlier(run: Run, examples: bool = True) -> Earlier | None:
    """None where the run has no index. What it says is there after a dry run too. Memory grows with the number of earlier runs."""
    if not {"entry", "id", "kept", "kept_id", "kept_in"} <= columns(run, CHANGES).keys():
        return None
    named = "kept_in" in columns(run, CLUSTERS)
    copies = f"\n  UNION ALL\n  SELECT kept_in, 1, 0, 0 FROM {CLUSTERS} WHERE kept_in IS NOT NULL" if named else ""
    query = ask(run, "earlier-runs", "Earlier runs of the index", f"""\
SELECT run, sum(copies)::BIGINT AS copies, sum(replaced)::BIGINT AS replaced, sum(restored)::BIGINT AS restored
FROM (
  SELECT entry AS run, 0 AS copies, (NOT kept)::INTEGER AS replaced, kept::INTEGER AS restored FROM {CHANGES}{copies}
)
GROUP BY ROLLUP (run)
ORDER BY run NULLS FIRST""")  # fmt: skip
    every = [EarlierRun(row["run"] or "", row["copies"] or 0, row["replaced"] or 0, row["restored"] or 0) for row in query.rows]
    found = Earlier(every[0] if every else EarlierRun(""), every[1:], query)
    if not examples:
        return found
    some = run.sql(f"SELECT id, kept_id, kept_in, similarity, verified FROM {CLUSTERS} WHERE kept_in IS NOT NULL LIMIT {EXAMPLES}") \
        if named else None  # fmt: skip
    shown = [Copy(*row) for row in some.fetchall()] if some is not None else []
    changes = [run.sql(f"FROM {CHANGES} WHERE {of} LIMIT {EXAMPLES}").to_arrow_table().to_pylist() for of in ("NOT kept", "kept")]
    ids = [copy.id for copy in shown] + [row["kept_id"] for row in changes[0] if row["kept_in"] is None]
    urls = {}
    if "dedup_report" in run.tables:
        sql = "SELECT id, any_value(url) FROM dedup_report WHERE id IN (SELECT unnest($ids::VARCHAR[])) AND url <> '' GROUP BY id"
        urls = dict(run.sql(sql, ids=ids).fetchall())
    return replace(found, copies=shown, replaced=changes[0], restored=changes[1], urls=urls)


# ---- all of it ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Duplicates:
    """`policy`: why the kept documents are kept. `lists` are the clusters of each of `LISTS` with their query."""

    clusters: Clusters
    sources: Sources
    policy: str
    threshold: float | None
    lists: dict[str, tuple[list[Cluster], Query]] = field(default_factory=dict)


def read_duplicates(run: Run, texts: bool = True) -> Duplicates | None:
    """What the dedup stage's cluster tables say; None where it has none. `texts`: with clusters and what differs in them."""
    clusters = read_clusters(run)
    if clusters is None:
        return None
    settings = run.reader.settings("dedup")
    threshold = settings.get("threshold")
    lists = read_members(run, {name: choose_clusters(run, name, EACH) for name in LISTS}) if texts else {}
    known = float(threshold) if isinstance(threshold, int | float) else None
    return Duplicates(clusters, read_sources(run), policy(settings), known, lists)
