"""Deduplication: LSH proposes pairs, their texts decide, a policy chooses which copy stays, and the report gives the reason.

The phases, each resumable: signatures (a task for each shard), candidates (a task for each range of keys), groups (one task), colocated
(a task for each shard), clusters (a task for each group), sources (one task), the phases that look inside documents, and the removal
(a task for each shard). Where there are many shards, extra phases merge files before many tasks read them (`external_sort.py`).
"""

from collections.abc import Callable

from corpusmill.dedup.config import DedupConfig
from corpusmill.dedup.corpus import MeasuredShard
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Stage, Task
from corpusmill.text.word_rules import rule_libraries


class DedupStage(Stage):
    """Removes exact and near copies of documents. The report names for each the document that stays, and how similar the two are."""

    name = "dedup"
    Config = DedupConfig
    config: DedupConfig

    def libraries(self) -> tuple[str, ...]:
        return rule_libraries(self.config.minhash.word_rule)

    def check(self) -> None:
        if self.config.contamination:
            from corpusmill.dedup.contamination.editor import check_sets

            check_sets(self.config.contamination)

    def execute(self, run: StageRun) -> None:
        from corpusmill.dedup.index import hold_index  # imported here, so that a recipe can be read without loading numba

        with hold_index(run, self.config) as check_index:
            self._execute(run, check_index)

    def _execute(self, run: StageRun, check_index: Callable[[], None]) -> None:
        from corpusmill.dedup.audit import judge, plant
        from corpusmill.dedup.candidates import find_candidates, find_groups
        from corpusmill.dedup.cluster_table import clusters_by_shard, find_losses
        from corpusmill.dedup.clusters import find_clusters
        from corpusmill.dedup.index import extend_index, find_changes, read_entries
        from corpusmill.dedup.policy import policy_columns
        from corpusmill.dedup.signatures import find_signatures

        config = self.config
        sets: list[FileRef] = []
        if config.contamination:
            from corpusmill.dedup.contamination.editor import prepare_sets

            sets = prepare_sets(run, config.contamination)
        columns = policy_columns(config)
        entries = read_entries(run, config, columns)
        own_shards = find_signatures(run, config)
        planted = plant(run, config, own_shards)
        new = own_shards + planted
        shards = new + [shard for entry in entries for shard in entry.shards]
        candidates = find_candidates(run, config, shards)
        groups = find_groups(run, config, shards, sum(shard.rows for shard in new), candidates)
        clusters = find_clusters(run, config, shards, groups)
        judge(run, config, planted, clusters)
        losses = find_losses(run, config, own_shards, clusters, groups)
        changes = find_changes(run, config, entries, clusters)
        self._stop_on_alarm(run, losses)
        by_shard = clusters_by_shard(run, [shard.name for shard in own_shards], clusters)
        self._remove(run, own_shards, by_shard, sets)
        if changes and config.index and config.index.extend:
            check_index()
            extend_index(run, config, columns, own_shards, entries, by_shard, changes)

    def summary(self, run: StageRun) -> dict[str, str]:
        from corpusmill.dedup.audit import audit_summary
        from corpusmill.dedup.cluster_table import SOURCES_TASK
        from corpusmill.dedup.index import index_summary
        from corpusmill.dedup.inside.lines import lines_summary

        counts = run.manifest.tasks[SOURCES_TASK].counts
        lines = {}
        if counts["clusters"]:
            lines["clusters"] = f"{counts['clusters']:,}, the largest of {counts['largest_cluster']:,} documents"
        if counts["alarms"]:
            lose = "loses" if counts["alarms"] == 1 else "lose"
            lines["alarms"] = f"{counts['alarms']:,} {self._what(counts['alarms'])} {lose} more than {self.config.alarm_share:.0%}"
        lines |= audit_summary(run)
        inside = lines_summary(run)
        if self.config.contamination:
            from corpusmill.dedup.contamination.editor import contaminated_summary

            inside["contaminated"] = contaminated_summary([row.counts for row in run.manifest.rows()]) or "nothing"
        return lines | index_summary(run) | inside

    def _what(self, count: int) -> str:
        """Returns the noun for the things that removals are counted by: crawl files, hosts, or values of a column."""
        one, more = {"source": ("crawl file", "crawl files"), "host": ("host", "hosts")}.get(self.config.by, ("value", "values"))
        return one if count == 1 else more

    def _stop_on_alarm(self, run: StageRun, losses: TaskRow) -> None:
        if self.config.alarm == "stop" and losses.counts["alarms"]:
            others = losses.counts["alarms"] - 1
            raise InputError(
                f"dedup stops before removing anything: {losses.warnings[0]}, and alarm_share is {self.config.alarm_share:.0%}"
                + (f" ({others:,} more {self._what(others)} above it)" if others else "")
                + f". {run.storage.path('clusters/sources.parquet')} has the table, corpusmill clusters {run.run.root} shows examples, "
                "and with --set dedup.alarm=warn it goes on."
            )

    def _remove(self, run: StageRun, shards: list[MeasuredShard], clusters: list[FileRef], sets: list[FileRef]) -> None:
        """Runs the phases that look inside documents, and the removal.

        `clusters`: for each shard the file with its rows of the cluster tables. `sets`: the index of the evaluation sets.
        """
        from corpusmill.dedup.inside.lines import prepare_lines
        from corpusmill.dedup.inside.passages import prepare_passages
        from corpusmill.dedup.removal import RemovalWorker

        documents = run.documents()
        lines = prepare_lines(run, self.config, documents, clusters)
        substrings = prepare_passages(run, self.config, documents, clusters, lines)
        tasks = [
            Task(shard.name, (documents[number], clusters[number], *lines[number], *substrings[number], *sets), {"shard": number})
            for number, shard in enumerate(shards)
        ]
        run.map("", RemovalWorker, tasks)
