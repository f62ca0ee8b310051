"""What the page shows of duplicates, with the queries over the cluster tables and the report of the dedup stage."""

from corpusmill.report.facts.clusters import BARS, Clusters
from corpusmill.report.facts.duplicates import MEMBERS, Duplicates
from corpusmill.report.facts.duplicates import Shown as ShownCluster
from corpusmill.report.facts.earlier import Earlier
from corpusmill.report.facts.full_clusters import FullClusters
from corpusmill.report.facts.sources import Sources
from corpusmill.report.query.sql import column, literal
from corpusmill.report.read import RunReader
from corpusmill.report.shown.shown import Shown, shown


def totals(found: Clusters) -> Shown:
    sql = f"""
        SELECT count(DISTINCT kept_id) FILTER ({_head(found)}) AS clusters, count(*) AS documents,
          count(*) FILTER (NOT kept AND verified = 'exact') AS exact,
          count(*) FILTER (NOT kept AND (verified IS NULL OR verified NOT IN ('exact', 'url'))) AS near,
          count(*) FILTER (NOT kept AND verified = 'url') AS url
        FROM dedup_clusters
    """
    row = (found.sizes.total(), found.documents, found.exact, found.near, found.url)
    return shown("clusters", "Clusters and copies", sql, ("clusters", "documents", "exact", "near", "url"), [row])


def sizes(found: Clusters) -> Shown:
    sql = f"""
        SELECT cluster_size, count(DISTINCT kept_id) AS clusters
        FROM dedup_clusters
        WHERE {_head(found)}
        GROUP BY cluster_size
        ORDER BY cluster_size
    """
    return shown("cluster-sizes", "Clusters by size", sql, ("cluster_size", "clusters"), sorted(found.sizes.items()))


def _head(found: Clusters) -> str:
    """What names a cluster: its kept document, or its copies where that is in an earlier run."""
    return "(kept AND cluster_size > 1)" + (" OR kept_in IS NOT NULL" if found.indexed else "")


def similarities(found: Clusters) -> Shown:
    """The bars that are not empty, by their lower edges."""
    sql = f"""
        SELECT least(floor(similarity * {BARS} + 1e-9), {BARS - 1}) / {BARS} AS similarity_from, count(*) AS removed
        FROM dedup_clusters
        WHERE NOT kept AND verified <> 'exact' AND similarity IS NOT NULL
        GROUP BY similarity_from
        ORDER BY similarity_from
    """
    rows = [(bar / BARS, count) for bar, count in enumerate(found.similarities.tolist()) if count]
    return shown("similarities", "Near copies by similarity", sql, ("similarity_from", "removed"), rows)


def sources(found: Sources, most: int) -> Shown:
    """The first `most` crawl files."""
    names = ", ".join(f"coalesce({column(name)}, 0) AS {column(name)}" for name in found.names)
    alarm = "false" if found.limit is None else f"share > {literal(found.limit)} AND documents >= {found.least}"
    sql = f"""
        SELECT source, documents, {names}, share, {alarm} AS alarm
        FROM dedup_clusters_sources
        ORDER BY alarm DESC, share DESC, documents DESC, source
        LIMIT {most}
    """
    rows = [(row.name, row.documents, *row.counts, row.share, row.alarm) for row in found.rows[:most]]
    return shown("dedup-sources", "Copies by crawl file", sql, ("source", "documents", *found.names, "share", "alarm"), rows)


def members(found: Duplicates, name: str, title: str, reader: RunReader) -> Shown:
    """The clusters of one list: the kept document of each and the copies that are shown, `copies` of how many."""
    clusters = [each.cluster for each in found.lists[name]]
    ids = "[" + ", ".join(literal(cluster.kept_id) for cluster in clusters) + "]"
    order = "similarity NULLS LAST, shard, row"
    sql = f"""
        SELECT cluster, documents, copies, id, similarity, {_characters(reader)} AS characters
        FROM (
          SELECT *, kept_id AS cluster, cluster_size AS documents, list_position({ids}, kept_id) AS place,
            count(*) FILTER (NOT kept) OVER (PARTITION BY kept_id) AS copies
          FROM dedup_clusters
          WHERE list_contains({ids}, kept_id)
          QUALIFY row_number() OVER (PARTITION BY kept_id, kept ORDER BY {order}) <= {MEMBERS}
        ) member
        ORDER BY place, kept DESC, {order}
    """
    rows = [row for each in found.lists[name] for row in _members(each)]
    return shown(f"clusters-{name}", title, sql, ("cluster", "documents", "copies", "id", "similarity", "characters"), rows)


def _characters(reader: RunReader) -> str:
    """The length of a member's text, from the report where the stage has decided, else from the documents that it has read."""
    if reader.schema("dedup", "report") is not None:
        return "(SELECT any_value(chars_in) FROM dedup_report r WHERE r.id = member.id)"
    stages = sorted({path.partition("/")[0] for path in reader.inputs("dedup").values()})
    return f"(SELECT any_value(length(text)) FROM {stages[0]}_documents d WHERE d.id = member.id)" if stages else "NULL::BIGINT"


def _members(each: ShownCluster) -> list[tuple[str, int, int, str, float | None, int | None]]:
    cluster = each.cluster
    some = [member for member in (cluster.kept, *cluster.removed) if member is not None]
    return [(cluster.kept_id, cluster.size, cluster.copies, member.id, member.similarity, member.characters) for member in some]


def full_clusters(found: FullClusters, most: int) -> Shown:
    sql = f"""
        SELECT full_cluster, count(*) AS documents
        FROM dedup_report
        WHERE full_cluster IS NOT NULL
        GROUP BY full_cluster
        ORDER BY documents DESC, full_cluster
        LIMIT {most}
    """
    return shown("full-clusters", "Full clusters", sql, ("full_cluster", "documents"), found.most(most))


def full_totals(found: FullClusters) -> Shown:
    sql = """
        SELECT count(DISTINCT full_cluster) AS clusters, count(full_cluster) AS documents,
          (SELECT (content->'recipe'->'dedup'->>'max_cluster')::BIGINT FROM json_run) AS max_cluster
        FROM dedup_report
    """
    row = (len(found.left), found.left.total(), found.limit)
    return shown("full-clusters-all", "All full clusters", sql, ("clusters", "documents", "max_cluster"), [row])


def earlier(found: Earlier, reader: RunReader, most: int) -> Shown:
    """By run of the index."""
    sql = f"""\
SELECT run, sum(copies) AS copies, sum(replaced) AS replaced, sum(restored) AS restored
FROM (
  {_earlier(reader)}
)
GROUP BY run
ORDER BY run
LIMIT {most}"""
    rows = [(name, run.copies, run.replaced, run.restored) for name, run in found.sorted()[:most]]
    return shown("earlier-runs", "Earlier runs of the index", sql, ("run", "copies", "replaced", "restored"), rows)


def earlier_totals(found: Earlier, reader: RunReader) -> Shown:
    counts = ", ".join(f"coalesce(sum({name}), 0) AS {name}" for name in ("copies", "replaced", "restored"))
    total = found.total()
    row = (total.copies, total.replaced, total.restored)
    sql = f"SELECT {counts}\nFROM (\n  {_earlier(reader)}\n)"
    return shown("earlier-runs-all", "All earlier runs", sql, ("copies", "replaced", "restored"), [row])


def _earlier(reader: RunReader) -> str:
    """A row for each document that has to do with a run of the index."""
    changes = "SELECT entry AS run, 0 AS copies, (NOT kept)::INT AS replaced, kept::INT AS restored FROM dedup_earlier_changes"
    copies = "\n  UNION ALL\n  SELECT kept_in, 1, 0, 0 FROM dedup_clusters WHERE kept_in IS NOT NULL"
    return changes + (copies if _names_runs(reader) else "")


def _names_runs(reader: RunReader) -> bool:
    schema = reader.schema("dedup", "clusters")
    return schema is not None and "kept_in" in schema.names


def earlier_copies(found: Earlier) -> Shown:
    """The first documents that were removed for one of an earlier run."""
    sql = f"SELECT id, kept_in, similarity FROM dedup_clusters WHERE kept_in IS NOT NULL LIMIT {len(found.copies)}"
    rows = [(copy.id, copy.kept_in, copy.similarity) for copy in found.copies]
    return shown("earlier-copies", "Copies of documents of earlier runs", sql, ("id", "kept_in", "similarity"), rows)
