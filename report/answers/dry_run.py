"""What a dry run of the dedup stage prints: what would go, from which crawl files, and samples to judge it by."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from corpusmill.pipeline.safe import safe_line
from corpusmill.report.answers.clusters_view import print_lists
from corpusmill.report.facts.clusters import read_clusters
from corpusmill.report.facts.duplicates import lists_of, policy, show
from corpusmill.report.facts.histogram import number
from corpusmill.report.facts.sources import SHOWN, Sources, read_sources
from corpusmill.report.read import RunReader
from corpusmill.report.tables import cell, share, table
from corpusmill.report.tables import show as print_table

#: Clusters of each list, copies named of each.
SAMPLES, MEMBERS = 2, 2


def dry_run_lines(folder: str, section: dict[str, Any], console: Console) -> None:
    """Prints the table by crawl file (alarms first, then the largest shares), what would be removed and kept of all documents, and the
    largest, the most doubtful and some random clusters with what differs in them. `section`: the options of the dry run."""
    reader = RunReader(folder, {"dedup": section})
    sources, clusters = read_sources(reader), read_clusters(reader, SAMPLES)
    if sources.rows:
        print_table(sources_table(sources), console)
        console.print()
        if sources.alarms:
            files = "crawl file loses" if sources.alarms == 1 else "crawl files lose"
            console.print(Text(f"Alarm: {sources.alarms:,} {files} more than {sources.limit:.0%}.", style="bold yellow"))
    if clusters is not None:
        removed = clusters.verified.total()
        documents = sources.documents or clusters.documents
        ways = {"exact copies": clusters.exact, "near copies": clusters.near, "copies by URL": clusters.url}
        counted = ", ".join(f"{count:,} {way}" for way, count in ways.items() if count)
        stay = f"Of {documents:,} documents {documents - removed:,} would stay ({share(documents - removed, documents)})"
        count = clusters.sizes.total()
        go = f"; what would go: {counted}; clusters: {count:,}" if removed else ": none has a copy"
        console.print(Text(f"{stay}{go}."))
        if removed:
            settings = reader.settings("dedup")
            print_lists(show(reader, lists_of(clusters), MEMBERS, 1), policy(settings), settings.get("threshold"), console)
    for sentence in reader.warnings:
        console.print(Text("Warning: ", style="yellow") + Text(safe_line(sentence, 400)), soft_wrap=True)
    console.print()
    console.print(Text("Nothing was removed: this was a dry run."))
    console.print(Text(f"More of the clusters: corpusmill clusters {folder} --doubtful --limit 20"), soft_wrap=True)


def sources_table(sources: Sources) -> Table:
    """The crawl files, worst first; with more than a screen of them the rest in one row."""
    folder = sources.folder
    title = f"What each crawl file{f' of {folder}' if folder else ''} loses"
    made = table(title, "crawl file", ">documents", *(f">{name}" for name in sources.names), ">removed", *([""] if sources.alarms else []))
    for row in sources.rows[:SHOWN]:
        mark = [Text("alarm" if row.alarm else "", style="bold red")] if sources.alarms else []
        made.add_row(cell(row.name.removeprefix(folder), 300), number(row.documents), *map(number, row.counts), f"{row.share:.1%}", *mark)
    rest = sources.rows[SHOWN:]
    if rest:
        documents = sum(row.documents for row in rest)
        counts = [sum(counts) for counts in zip(*(row.counts for row in rest), strict=True)]
        removed = share(round(sum(row.share * row.documents for row in rest)), documents)
        made.add_row(Text(f"{len(rest):,} others", style="dim"), number(documents), *map(number, counts), removed)
    return made
