"""Deduplication: LSH proposes, the texts decide, a policy says which copy stays, and the report says why.

Four phases, each resumable: signatures (a task a shard), candidates (a task a range of keys), clusters (one task), and the
documents that stay (a task a shard).
"""

from pathlib import PurePosixPath

import numpy as np

from corpusmill.dedup.config import DedupConfig
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.manifest import FileRef, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Piece, Stage

CLUSTERS_TASK = "clusters"


class DedupStage(Stage):
    """Removes exact and near copies of documents; every removal names the document that was kept and how alike the two are."""

    name = "dedup"
    Config = DedupConfig
    config: DedupConfig

    def execute(self, run: StageRun) -> None:
        documents = run.documents()
        sets = self._contamination(run)  # first: a set that can't be read ends the run before any work is done
        bands, rows = self._bands()
        signatures, sizes = self._signatures(run, documents, bands, rows)
        candidates = self._candidates(run, signatures, sum(sizes), bands)
        clusters = self._clusters(run, documents, signatures, sizes, candidates, bands * rows)
        self._stop_on_alarm(run, clusters)
        self._remove(run, documents, clusters, sets)

    def summary(self, run: StageRun) -> dict[str, str]:
        counts = run.manifest.tasks[CLUSTERS_TASK].counts
        lines = {"clusters": f"{counts['clusters']:,}, the largest of {counts['largest_cluster']:,} documents"}
        if counts["alarms"]:
            lines["alarms"] = f"{counts['alarms']:,} crawl files lose more than {self.config.alarm_share:.0%}"
        if self.config.contamination:
            from corpusmill.dedup.contamination.editor import contaminated_summary

            lines["contaminated"] = contaminated_summary([row.counts for row in run.manifest.rows()]) or "nothing"
        return lines

    def _bands(self) -> tuple[int, int]:
        minhash = self.config.minhash
        if minhash.target is None:
            return minhash.bands, minhash.rows
        from corpusmill.dedup.minhash import optimal_bands

        return optimal_bands(minhash.target, minhash.permutations)

    def _signatures(self, run: StageRun, documents: list[FileRef], bands: int, rows: int) -> tuple[list[FileRef], list[int]]:
        """The signature shards and how many documents are in each."""
        from corpusmill.dedup.signatures import SignatureWorker

        pieces = [Piece(f"signatures/{PurePosixPath(ref.path).stem}", (ref,)) for ref in documents]
        done = run.map("signatures", SignatureWorker, pieces, {"bands": bands, "rows": rows})
        return [_only(row) for row in done], [row.rows_in for row in done]

    def _candidates(self, run: StageRun, signatures: list[FileRef], documents: int, bands: int) -> list[FileRef]:
        from corpusmill.dedup.candidates import CandidateWorker, candidate_pieces, plan_parts

        exact = self.config.exact.enabled
        parts = plan_parts(documents, bands if self.config.minhash.enabled else 0, exact)
        done = run.map("candidates", CandidateWorker, candidate_pieces(parts, signatures, exact))
        return [_only(row) for row in done]

    def _clusters(
        self, run: StageRun, documents: list[FileRef], signatures: list[FileRef], sizes: list[int], candidates: list[FileRef], places: int
    ) -> TaskRow:
        from corpusmill.dedup.clusters import cluster_output
        from corpusmill.dedup.corpus import Corpus

        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        corpus = Corpus(run.run, [ref.path for ref in documents], [ref.path for ref in signatures], starts)
        exact = [ref.path for ref in candidates if "/exact-" in ref.path]
        buckets = [ref.path for ref in candidates if "/buckets-" in ref.path]
        return run.once(
            CLUSTERS_TASK,
            [*documents, *signatures, *candidates],
            lambda _: cluster_output(corpus, self.config, places, exact, buckets),
        )

    def _stop_on_alarm(self, run: StageRun, clusters: TaskRow) -> None:
        if self.config.alarm == "stop" and clusters.counts["alarms"]:
            raise CorpusmillError(
                f"dedup stops before removing anything: {clusters.warnings[0]}, and alarm_share is {self.config.alarm_share:.0%} "
                f"({clusters.counts['alarms']:,} crawl files lose more; {run.storage.path('clusters/sources.parquet')} has the table). "
                "With dedup.alarm=warn it goes on."
            )

    def _contamination(self, run: StageRun) -> list[FileRef]:
        """The index of the evaluation sets that the recipe names."""
        config = self.config.contamination
        if config is None:
            return []
        from corpusmill.dedup.contamination.editor import INDEX_TASK, index_output
        from corpusmill.dedup.contamination.files import set_files

        files = set_files(config.set_configs())
        made = run.once(INDEX_TASK, [file.ref for file in files], lambda _: index_output(files, config), config=config.of_index())
        return [_only(made)]

    def _remove(self, run: StageRun, documents: list[FileRef], clusters: TaskRow, more: list[FileRef]) -> None:
        from corpusmill.dedup.clusters import CLUSTERS_FILE
        from corpusmill.dedup.removal import RemovalWorker

        table = clusters.ref(self.name, CLUSTERS_FILE)
        run.map("", RemovalWorker, [Piece(PurePosixPath(ref.path).stem, (ref, table, *more), {"clusters": 1}) for ref in documents])


def _only(row: TaskRow) -> FileRef:
    """The one file that a task made."""
    return row.ref("dedup", row.outputs[0].path)
