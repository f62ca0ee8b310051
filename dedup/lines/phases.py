"""The phases that find repeated units: hosts (where a share of them counts), counts by shard, decisions by range, the list to look at."""

from pathlib import PurePosixPath

from corpusmill.dedup.config import DedupConfig
from corpusmill.dedup.sections import plan_ranges
from corpusmill.pipeline.lists import write_list
from corpusmill.pipeline.manifest import FileRef, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.stage import Piece

TOP_FILE = "lines/top.parquet"
#: How many of the most frequent lines the terminal shows, and how many characters of each.
SHOWN, TEXT = 3, 60


def prepare(run: StageRun, config: DedupConfig, documents: list[FileRef], clusters: list[FileRef]) -> list[tuple[FileRef, ...]]:
    """For each document shard the files that its LineEditor reads; empty ones where the recipe asks for no lines.

    `clusters`: for each shard what has its rows of the cluster tables.
    """
    from corpusmill.dedup.lines.count import CountWorker, DecideWorker
    from corpusmill.dedup.lines.top import top_output

    if config.lines is None:
        return [()] * len(documents)
    lines, units = config.lines, config.lines.units
    ranges = {"ranges": plan_ranges(documents)}
    hosts = _hosts(run, config, documents, clusters) if lines.min_share else [()] * len(documents)
    pieces = [
        Piece(f"lines/counts-{_stem(ref)}", (ref, rows, *own), {"shard": shard})
        for shard, (ref, rows, own) in enumerate(zip(documents, clusters, hosts, strict=True))
    ]
    counts = [_only(row) for row in run.map("lines: count", CountWorker, pieces, ranges, config=units)]
    listed = write_list(run, "lines-counts", counts)
    pieces = [Piece(f"lines/cut-{number:05d}", (listed,), {"range": number}) for number in range(ranges["ranges"])]
    decided = run.map("lines: decide", DecideWorker, pieces, ranges, config=lines)
    tops = [row.ref("dedup", row.outputs[-1].path) for row in decided]
    shards = [ref.path for ref in documents]
    run.once("lines/top", [*documents, *tops], lambda _: top_output(run.run, lines, shards, [ref.path for ref in tops]), config=lines)
    cuts = write_list(run, "lines-cut", [_only(row) for row in decided])
    return [(own, cuts) for own in counts]


def _hosts(run: StageRun, config: DedupConfig, documents: list[FileRef], clusters: list[FileRef]) -> list[tuple[FileRef, ...]]:
    """For each shard the file of its hosts and the list of those of their ranges."""
    from corpusmill.dedup.lines.hosts import HostTotalWorker, HostWorker

    ranges = {"ranges": plan_ranges(documents)}
    pieces = [Piece(f"lines/hosts-{_stem(ref)}", (ref, rows)) for ref, rows in zip(documents, clusters, strict=True)]
    assert config.lines is not None
    own = [_only(row) for row in run.map("lines: hosts", HostWorker, pieces, ranges, config=config.lines.units)]
    listed = write_list(run, "lines-hosts", own)
    pieces = [Piece(f"lines/host-totals-{number:05d}", (listed,), {"range": number}) for number in range(ranges["ranges"])]
    done = run.map("lines: host totals", HostTotalWorker, pieces, ranges, config=config.lines.units)
    totals = write_list(run, "lines-host-totals", [_only(row) for row in done])
    return [(ref, totals) for ref in own]


def summary(run: StageRun) -> dict[str, str]:
    """A line for the terminal, where lines were looked for."""
    rows = [row for key, row in run.manifest.tasks.items() if key.startswith("lines/cut-") and key in run.plan]
    if not rows:
        return {}
    units, cut = (sum(row.counts[name] for row in rows) for name in ("units", "cut"))
    times = sum(row.counts["cut_times"] for row in rows)
    path = run.storage.path(TOP_FILE)
    found = {"repeated lines": f"{cut:,} different ones of {units:,} are cut, {times:,} times found ({path})"}
    top = read_table(run.storage, TOP_FILE).slice(0, SHOWN).to_pylist()
    shown = [f"“{safe_line(row['text'], TEXT)}” in {row['documents']:,} documents" for row in top]
    return found | ({"most frequent of them": "; ".join(shown)} if shown else {})


def _stem(ref: FileRef) -> str:
    return PurePosixPath(ref.path).stem


def _only(row: TaskRow) -> FileRef:
    return row.ref("dedup", row.outputs[0].path)
