"""Reads the removals of deduplication: counts of clusters and copies, example clusters with word diffs, copies by crawl file, earlier runs.

The cluster tables (`RUN/dedup/clusters/`) exist before any document is written.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from corpusmill.pipeline.intervals import wilson
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
PLANTED = "dedup_audit_pairs"
#: Clusters in each list on the page, copies shown of each, and copies of each that are compared with the kept document.
EACH, MEMBERS, WITH_TEXT = 6, 5, 1
#: Full clusters that the page shows, and examples that it shows for earlier runs.
FULL, EXAMPLES = 10, 4
#: The lists of clusters, with their titles.
LISTS = {
    "largest": "The largest clusters",
    "doubtful": "The most doubtful removals: the least similar copies",
    "random": "Clusters drawn at random",
}
#: The reason why a document is kept, by the policy `dedup.keep`.
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
    """Counts over all cluster tables. `sizes`: clusters by size. `verified`: removed documents by the way they were proved to be copies.
    `similarities`: counts of removed near copies in `BARS` bars from 0 to 1 (1 falls in the last bar)."""

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
    """Counts clusters and copies; None if the stage has written no cluster table."""
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
    """SQL: the rows that count as their cluster's head: the kept document, or the copies where an earlier run keeps it. A kept document
    that is alone in its cluster is not a head: it is listed only because a full cluster left it out."""
    return "(kept AND cluster_size > 1)" + (" OR kept_in IS NOT NULL" if "kept_in" in columns(run, CLUSTERS) else "")


def choose_clusters(run: Run, name: str, limit: int, seed: int = 0) -> list[str]:
    """Returns the kept ids of the first clusters of one of `LISTS`. Ties go by id."""
    if name == "doubtful":
        near = f"NOT kept AND verified <> '{EXACT}' AND similarity IS NOT NULL AND NOT isnan(similarity)"
        sql = f"SELECT kept_id FROM {CLUSTERS} WHERE {near} GROUP BY kept_id ORDER BY min(similarity), kept_id"
    else:
        order = "max(cluster_size) DESC" if name == "largest" else f"md5('{seed} ' || kept_id)"
        sql = f"SELECT kept_id FROM {CLUSTERS} WHERE {_head(run)} GROUP BY kept_id ORDER BY {order}, kept_id"
    return [kept_id for (kept_id,) in run.rows(f"{sql} LIMIT {limit}")]


def find_clusters(run: Run, ids: Collection[str]) -> list[str]:
    """Returns the kept ids of the clusters that hold or keep a document with one of these ids."""
    wanted = "SELECT unnest($ids::VARCHAR[])"
    sql = f"SELECT DISTINCT kept_id FROM {CLUSTERS} WHERE id IN ({wanted}) OR kept_id IN ({wanted}) ORDER BY kept_id"
    return [kept_id for (kept_id,) in run.rows(sql, ids=sorted(ids))] if has_clusters(run) else []


@dataclass(frozen=True)
class Member:
    """A document of a cluster, and its place: `row` of the input shard `shard`."""

    id: str
    source: str
    shard: str
    row: int
    similarity: float | None = None
    verified: str | None = None
    url: str | None = None
    characters: int | None = None  # None where its text is no longer there


@dataclass(frozen=True)
class Cluster:
    """A cluster. `kept` is None if the earlier run `kept_in` keeps the document. `removed`: some of the `copies`, each with its
    comparison with the kept document, if it was compared."""

    kept_id: str
    size: int
    kept_in: str | None
    kept: Member | None
    copies: int
    removed: list[tuple[Member, Comparison | None]]


def read_members(
    run: Run, lists: Mapping[str, Sequence[str]], limit: int = MEMBERS, compared: int = WITH_TEXT, asked: Collection[str] = ()
) -> dict[str, tuple[list[Cluster], Query]]:
    """Reads the clusters of each list, given by their kept ids. Each has up to `limit` removed documents: first those whose ids are `asked`
    for, then the least similar. The first `compared` of them are compared with the kept document."""
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
    """Returns id, URL and text of members from the stage's input shards, by shard and row. Shards that are no longer there give nothing."""
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
    """Returns how a removed document is known to be a copy: `exact`, `url`, `exact_jaccard 0.812`."""
    how = safe_line(member.verified or "not verified", 40)
    return how if member.similarity is None or how in (EXACT, URL) else f"{how} {member.similarity:.3f}"


def evidence_in_words(member: "Member | Copy") -> str:
    """Returns `evidence` in words, for readers who do not know the values of the column `verified`."""
    similar = "" if member.similarity is None else f", {member.similarity:.3f}"
    return f"verified word by word{similar}" if member.verified == JACCARD else evidence(member)


def policy(settings: dict[str, Any]) -> str:
    """Returns in a few words why the kept documents are kept; empty where the settings do not say."""
    keep = settings.get("keep")
    return "" if keep is None else POLICIES.get(str(keep), f"the best by keep: {keep}")


# ---- crawl files --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sources:
    """The copies by crawl file. `names`: the columns with counts of removed documents (exact, near, ...). `rows`: alarms first, then the
    largest shares of removed documents. `limit`: a larger share raises an alarm."""

    names: tuple[str, ...] = ()
    rows: list[dict[str, Any]] = field(default_factory=list)
    limit: float | None = None
    query: Query | None = None

    @property
    def folder(self) -> str:
        """The folder that all names begin with (`crawl/`); empty where they share none."""
        names = [row["source"] for row in self.rows]
        low, high = min(names, default=""), max(names, default="")
        common = next((place for place, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
        return low[: low.rfind("/", 0, common) + 1]


def read_sources(run: Run) -> Sources:
    """Reads the dedup stage's table by crawl file; empty where the stage has written none. Memory grows with the number of crawl files."""
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
    return Sources(names, query.rows, limit, query)


# ---- planted copies -------------------------------------------------------------------------------------------------------------------


def read_planted(run: Run) -> Query | None:
    """Reads what became of the planted pairs, by kind and similarity, the most similar first, with Wilson's interval of the share that was
    found. None where nothing was planted."""
    if "joined" not in columns(run, PLANTED):
        return None
    query = ask(run, "planted-copies", "Planted copies", f"""
        SELECT kind, due, CASE WHEN due AND kind <> 'exact' THEN floor(round(similarity * 20, 9)) / 20 END AS least, count(*) AS pairs,
          count(*) FILTER (WHERE joined) AS found, avg(CASE WHEN due AND kind <> 'exact' THEN expected END) AS expected
        FROM {PLANTED}
        GROUP BY ALL
        ORDER BY due DESC, kind DESC, least DESC
    """)  # fmt: skip
    return replace(query, rows=[row | {"interval": wilson(row["found"], row["pairs"])} for row in query.rows])


# ---- full clusters ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FullClusters:
    """The full clusters (`dedup.max_cluster`). `query`: their number, and the documents that stayed because a cluster had no room. `most`:
    the clusters that left out the most documents: id and URL of the kept document, and the number left out."""

    limit: int | None
    query: Query
    most: Query


def read_full_clusters(run: Run) -> FullClusters | None:
    """Reads the full clusters; None if there are none."""
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
    return FullClusters(settings if isinstance(settings, int) else None, query, most) if most.rows else None


# ---- earlier runs -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EarlierRun:
    """An earlier run in the index. `copies`: documents of this run that were removed for one of its documents. `replaced`: its documents
    that a better copy in this run replaces. `restored`: its documents that are kept again."""

    name: str
    copies: int = 0
    replaced: int = 0
    restored: int = 0


@dataclass(frozen=True)
class Copy:
    """A document of this run that was removed as a copy of a document that the earlier run `kept_in` keeps."""

    id: str
    kept_id: str
    kept_in: str
    similarity: float | None
    verified: str | None


@dataclass(frozen=True)
class Earlier:
    """How a run with an index relates to the earlier runs in it: counts in all and by run, examples of `copies` and of changed documents
    (`replaced`, `restored`), and the URLs of this run's documents by id."""

    total: EarlierRun
    runs: list[EarlierRun]
    query: Query
    copies: list[Copy] = field(default_factory=list)
    replaced: list[dict[str, Any]] = field(default_factory=list)
    restored: list[dict[str, Any]] = field(default_factory=list)
    urls: dict[str, str] = field(default_factory=dict)


def read_earlier(run: Run, examples: bool = True) -> Earlier | None:
    """Reads the relation to earlier runs; None if the run has no index. Memory grows with the number of earlier
    runs."""
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
    some = f"SELECT id, kept_id, kept_in, similarity, verified FROM {CLUSTERS} WHERE kept_in IS NOT NULL LIMIT {EXAMPLES}"
    shown = [Copy(*row) for row in run.rows(some)] if named else []
    replaced, restored = (run.records(f"FROM {CHANGES} WHERE {of} LIMIT {EXAMPLES}") for of in ("NOT kept", "kept"))
    ids = [copy.id for copy in shown] + [row["kept_id"] for row in replaced if row["kept_in"] is None]
    urls = {}
    if "dedup_report" in run.tables:
        sql = "SELECT id, any_value(url) FROM dedup_report WHERE id IN (SELECT unnest($ids::VARCHAR[])) AND url <> '' GROUP BY id"
        urls = dict(run.rows(sql, ids=ids))
    return replace(found, copies=shown, replaced=replaced, restored=restored, urls=urls)


# ---- all of it ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Duplicates:
    """All that the report shows of copies. `policy`: why the kept documents are kept. `lists`: by name in `LISTS`, the clusters and their
    query."""

    clusters: Clusters
    sources: Sources
    policy: str
    threshold: float | None
    planted: Query | None
    lists: dict[str, tuple[list[Cluster], Query]] = field(default_factory=dict)


def read_duplicates(run: Run, texts: bool = True) -> Duplicates | None:
    """Reads the dedup stage's cluster tables; None if it has none. `texts`: also read example clusters with word diffs."""
    clusters = read_clusters(run)
    if clusters is None:
        return None
    settings = run.reader.settings("dedup")
    threshold = settings.get("threshold")
    lists = read_members(run, {name: choose_clusters(run, name, EACH) for name in LISTS}) if texts else {}
    known = float(threshold) if isinstance(threshold, int | float) else None
    return Duplicates(clusters, read_sources(run), policy(settings), known, read_planted(run), lists)
