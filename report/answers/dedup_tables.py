"""What deduplication did beside removing copies, as tables on a terminal; only of what the run has."""

from rich.table import Table

from corpusmill.pipeline.safe import safe_line
from corpusmill.report.facts.contamination import Contamination
from corpusmill.report.facts.cuts import Cuts, TopLines
from corpusmill.report.facts.earlier import Earlier
from corpusmill.report.facts.full_clusters import FullClusters
from corpusmill.report.facts.histogram import number
from corpusmill.report.facts.summary import Summary
from corpusmill.report.tables import cell, share, table

#: Lines, sets and earlier runs that are shown.
TOP_LINES, MOST = 5, 12
TEXT = 200


def dedup_tables(summary: Summary) -> list[Table | None]:
    """Full clusters, earlier runs, what was cut and the lines cut most often, contamination."""
    found = summary.dedup
    return [
        full_clusters_table(found.full_clusters) if found.full_clusters else None,
        earlier_table(found.earlier) if found.earlier else None,
        cuts_table(found.cuts) if found.cuts else None,
        top_lines_table(found.top_lines) if found.top_lines else None,
        contamination_table(found.contamination) if found.contamination else None,
    ]


def full_clusters_table(found: FullClusters) -> Table:
    limit = f" (max_cluster {found.limit:,})" if found.limit is not None else ""
    made = table(f"Full clusters{limit}", "clusters", ">documents like theirs that stay")
    made.add_row(number(len(found.left)), number(found.left.total()))
    return made


def earlier_table(found: Earlier) -> Table:
    made = table("Earlier runs of the index", "run", ">copies removed here", ">replaced there", ">stay again there")
    for name, run in found.sorted()[:MOST]:
        made.add_row(cell(name, 40), number(run.copies), number(run.replaced), number(run.restored))
    if len(found.runs) > MOST:
        made.add_row(f"{len(found.runs) - MOST:,} more runs", "", "", "")
    return made


def cuts_table(found: list[Cuts]) -> Table:
    made = table("Repeats cut inside documents that stay", "what", ">documents", ">cut", ">characters", ">of all", ">dropped")
    for cuts in found:
        counts = number(cuts.documents), number(cuts.cut), number(cuts.characters), share(cuts.characters, cuts.before)
        made.add_row(cuts.kind, *counts, number(cuts.dropped))
    return made


def top_lines_table(found: TopLines) -> Table:
    made = table(f"The most frequent {found.unit}s that were cut", f"{safe_line(found.unit, 20)}", ">documents", ">crawl files")
    for row in found.rows[:TOP_LINES]:
        made.add_row(cell(row["text"], TEXT), number(row["documents"]), number(row["sources"]))
    return made


def contamination_table(found: Contamination) -> Table:
    done = found.done()
    title = f"Contamination: {found.documents:,} of {found.seen:,} documents hold items of evaluation sets{f' ({done})' if done else ''}"
    made = table(title, "set", ">documents", ">dropped")
    for name, count in found.by_documents()[:MOST]:
        made.add_row(cell(name, 60), number(count.documents), number(count.dropped))
    if not found.sets:
        made.add_row("none found", "0", "0")
    return made
