"""Deduplication: LSH proposes, the texts decide, a policy says which copy stays, and the report says why.

Phases, each resumable: signatures (a task a shard), candidates (a task a range of keys), groups (one task), gathered (a task a shard),
clusters (a task a group), sources (one task), what looks inside documents, and the documents that stay (a task a shard).
Where there are many shards, files that many tasks read are merged before (`merge.py`).
"""

from collections.abc import Callable

from corpusmill.dedup import index_phases
from corpusmill.dedup.config import DedupConfig
from corpusmill.dedup.contamination import phases as contamination_phases
from corpusmill.dedup.corpus import Shard
from corpusmill.dedup.lines import phases as lines_phases
from corpusmill.dedup.phases import SOURCES_TASK, CopyPhases
from corpusmill.dedup.substrings import phases as substrings_phases
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.manifest import FileRef, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Piece, Stage


class DedupStage(Stage):
    """Removes exact and near copies of documents; every removal names the document that was kept and how alike the two are."""

    name = "dedup"
    Config = DedupConfig
    config: DedupConfig
    tries = True

    def execute(self, run: StageRun) -> None:
        with index_phases.held(run, self.config, self.dry_run) as check_index:
            self._execute(run, check_index)

    def _execute(self, run: StageRun, check_index: Callable[[], None]) -> None:
        sets = contamination_phases.prepare(run, self.config)  # first: a set that can't be read ends the run before any work is done
        phases = CopyPhases(run, self.config)
        entries = index_phases.read_entries(run, self.config, phases.columns())
        own = phases.signatures()
        shards = own + [shard for entry in entries for shard in entry.shards]
        groups = phases.groups(shards, sum(shard.rows for shard in own), phases.candidates(shards))
        clusters = phases.clusters(shards, groups)
        sources = phases.sources(own, clusters, groups)
        changes = index_phases.find_changes(run, self.config, entries, clusters)
        if self.dry_run:
            return
        self._stop_on_alarm(run, sources)
        by_shard = phases.by_shard(own, clusters)
        self._remove(run, own, by_shard, sets)
        if changes and self.config.index and self.config.index.extend:
            check_index()
            index_phases.extend_index(run, self.config, phases.columns(), own, entries, by_shard, changes)

    def summary(self, run: StageRun) -> dict[str, str]:
        counts = run.task(SOURCES_TASK).counts
        lines = {"clusters": f"{counts['clusters']:,}, the largest of {counts['largest_cluster']:,} documents"}
        if counts["alarms"]:
            lose = "loses" if counts["alarms"] == 1 else "lose"
            lines["alarms"] = f"{counts['alarms']:,} {self._what(counts['alarms'])} {lose} more than {self.config.alarm_share:.0%}"
        return lines | index_phases.summary(run) | lines_phases.summary(run) | contamination_phases.summary(run, self.config)

    def _what(self, count: int) -> str:
        """What the removal is counted by, in words."""
        one, more = {"source": ("crawl file", "crawl files"), "host": ("host", "hosts")}.get(self.config.by, ("value", "values"))
        return one if count == 1 else more

    def _stop_on_alarm(self, run: StageRun, sources: TaskRow) -> None:
        if self.config.alarm == "stop" and sources.counts["alarms"]:
            others = sources.counts["alarms"] - 1
            raise CorpusmillError(
                f"dedup stops before removing anything: {sources.warnings[0]}, and alarm_share is {self.config.alarm_share:.0%}"
                + (f" ({others:,} more {self._what(others)} above it)" if others else "")
                + f". {run.storage.path('clusters/sources.parquet')} has the table, corpusmill clusters {run.run.root} shows examples, "
                "and with --set dedup.alarm=warn it goes on."
            )

    def _remove(self, run: StageRun, own: list[Shard], clusters: list[FileRef], sets: list[FileRef]) -> None:
        """`clusters`: for each shard what has its rows of the cluster tables; `sets`: the index of evaluation sets."""
        from corpusmill.dedup.removal import RemovalWorker

        documents = run.documents()
        lines = lines_phases.prepare(run, self.config, documents, clusters)
        substrings = substrings_phases.prepare(run, self.config, documents, clusters, lines)
        pieces = [
            Piece(shard.name, (documents[number], clusters[number], *lines[number], *substrings[number], *sets), {"shard": number})
            for number, shard in enumerate(own)
        ]
        run.map("", RemovalWorker, pieces)
