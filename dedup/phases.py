"""The phases that find copies and say which of them stays: signatures, candidates, groups, gathered, clusters, sources.

Where there are many shards, the files that tasks of the second or the fifth of these read come together in fewer (`merge.py`)."""

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from corpusmill.dedup.config import ClusterConfig, DedupConfig, MeasureConfig
from corpusmill.dedup.corpus import Shard, starts
from corpusmill.dedup.keys import BAND_KEYS, EXACT_KEYS, URL_KEYS
from corpusmill.dedup.merge import worth_merging
from corpusmill.dedup.merge_keys import KeyFiles, merge_keys
from corpusmill.dedup.policy import needed_columns
from corpusmill.pipeline.lists import write_list
from corpusmill.pipeline.manifest import TRIAL, FileRef, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Piece

SOURCES_TASK = "sources"


class CopyPhases:
    """Makes and performs the tasks of each phase, in a run, under a configuration."""

    def __init__(self, run: StageRun, config: DedupConfig):
        self.run, self.config = run, config
        self.bands, self.rows = self._bands()

    def _bands(self) -> tuple[int, int]:
        if not self.config.minhash.enabled:
            return 0, 0
        from corpusmill.dedup.minhash import band_shape

        return band_shape(self.config.minhash)

    def _kinds(self) -> dict[str, int]:
        """The kinds of keys, and how many of each a document has."""
        enabled = {EXACT_KEYS: self.config.exact.enabled, URL_KEYS: self.config.url.enabled, BAND_KEYS: self.config.minhash.enabled}
        return {kind: self.bands if kind == BAND_KEYS else 1 for kind, on in enabled.items() if on}

    def columns(self) -> list[str]:
        """The columns of documents that the policies need beside those that every document has."""
        return sorted({*needed_columns(self.config.keep), *(needed_columns(self.config.url.keep) if self.config.url.enabled else [])})

    def signatures(self) -> list[Shard]:
        """The run's own shards, measured."""
        from corpusmill.dedup.signatures import SignatureWorker

        documents = self.run.documents()
        kinds = list(self._kinds())
        params = {"bands": self.bands, "rows": self.rows, "kinds": kinds, "by": self.config.by, "columns": self.columns()}
        pieces = [Piece(PurePosixPath(ref.path).stem, (ref,)) for ref in documents]
        keyed = [Piece(f"signatures/{piece.key}", piece.inputs) for piece in pieces]
        done = self.run.map("signatures", SignatureWorker, keyed, params, self.config.part(MeasureConfig))
        return [
            Shard(
                piece.key, row.rows_in, ref, row.ref("dedup", f"signatures/{piece.key}.parquet"),
                {kind: row.ref("dedup", f"keys/{piece.key}.{kind}.arrow") for kind in kinds},
            )
            for piece, ref, row in zip(pieces, documents, done, strict=True)
        ]  # fmt: skip

    def candidates(self, shards: list[Shard]) -> dict[str, list[FileRef]]:
        """The files of each kind of candidates."""
        from corpusmill.dedup.candidates import CandidateWorker, candidate_pieces, ranges_for

        documents = sum(shard.rows for shard in shards)
        found: dict[str, list[FileRef]] = {}
        exact = self.config.exact.enabled
        begin = starts(shards)[:-1].tolist()
        keys = {
            kind: KeyFiles([shard.keys[kind] for shard in shards], begin, ranges_for(per * documents))
            for kind, per in self._kinds().items()
        }
        keys = merge_keys(self.run, keys)
        listed = {kind: write_list(self.run, f"keys-{kind}", of.files, {"starts": of.starts}) for kind, of in keys.items()}
        pieces = {kind: candidate_pieces(kind, listed[kind], of.ranges, exact) for kind, of in keys.items()}
        done = self.run.map("candidates", CandidateWorker, [piece for group in pieces.values() for piece in group], None, MeasureConfig())
        refs = iter([only(row) for row in done])
        for kind, group in pieces.items():
            found[kind] = [next(refs) for _ in group]
        return found

    def groups(self, shards: list[Shard], own: int, candidates: dict[str, list[FileRef]]) -> TaskRow:
        """What is judged together; of `shards` the first `own` documents are this run's."""
        from corpusmill.dedup.groups import groups_output

        buckets = [ref.path for ref in candidates.get(BAND_KEYS, [])]
        groups = [ref.path for kind, refs in candidates.items() if kind != BAND_KEYS for ref in refs]
        words = self.bands * self.rows * self.config.minhash.bits // 64
        inputs = [*(shard.signatures for shard in shards), *(ref for refs in candidates.values() for ref in refs)]
        return self.run.once(
            "groups",
            inputs,
            lambda _: groups_output(self.run.run, shards, own, groups, buckets, words),
            {"own": own, "words": words},
            MeasureConfig(),
        )

    def clusters(self, shards: list[Shard], groups: TaskRow) -> Sequence[TaskRow]:
        """The tasks of which each has judged a group. A single group is judged where its documents lie; of several, each comes together
        in a phase before."""
        from corpusmill.dedup.clusters import ClusterWorker
        from corpusmill.dedup.groups import GROUPS_FILE

        table, count = groups.ref("dedup", GROUPS_FILE), groups.counts["groups"]
        compared = self.config.minhash.enabled and self.config.verification == "exact"
        files = [[shard.signatures, shard.texts] if compared and shard.texts else [shard.signatures] for shard in shards]
        params: dict[str, Any] = {"shards": [shard.name for shard in shards], "entries": [shard.entry for shard in shards]}
        if count == 1:
            listed = [ref for refs in files for ref in refs]
            params["files"] = [len(refs) for refs in files]
        else:
            listed = self._gathered(shards, files, table, count)
        inputs = (write_list(self.run, "judged", listed, params), table)
        pieces = [Piece(f"clusters/part-{group:05d}", inputs, {"group": group}) for group in range(count)]
        fixed = self.config.index is not None and self.config.index.earlier == "fixed"
        shape = {"bands": self.bands, "rows": self.rows, "fixed": fixed}
        return self.run.map("clusters", ClusterWorker, pieces, shape, self.config.part(ClusterConfig))

    def _gathered(self, shards: list[Shard], files: list[list[FileRef]], table: FileRef, groups: int) -> list[FileRef]:
        """The files of the documents that have a candidate, for each shard or for some neighbouring ones; `table`: the file of groups."""
        from corpusmill.dedup.gather import GatherWorker
        from corpusmill.dedup.merge_gathered import merge_gathered, merged_shards

        names = [f"{shard.entry}/{shard.name}" if shard.entry else shard.name for shard in shards]
        merged = worth_merging(len(shards), groups)
        beside = [{"merged": block} if merged else {} for block in merged_shards(len(shards)) for _ in range(*block)]
        pieces = [
            Piece(f"gathered/{name}", (table, *refs), {"shard": n} | more)
            for n, (name, refs, more) in enumerate(zip(names, files, beside, strict=True))
        ]
        done = self.run.map("gathered", GatherWorker, pieces, {"groups": groups}, MeasureConfig())
        gathered = [only(row) for row in done]
        return merge_gathered(self.run, gathered, table, groups) if merged else gathered

    def sources(self, own: list[Shard], clusters: Sequence[TaskRow], groups: TaskRow) -> TaskRow:
        """The table of what each source loses; counts and warnings of the whole."""
        from corpusmill.dedup.sources import sources_output

        tables = files(clusters, "clusters/")
        more = {"limited": sum(row.counts["limited"] for row in clusters), "apart": groups.counts["apart"]}
        return self.run.once(
            SOURCES_TASK,
            [*(shard.signatures for shard in own), *tables],
            lambda _: sources_output(self.run.run, self.config, own, [ref.path for ref in tables], more),
            more,
        )

    def by_shard(self, own: list[Shard], clusters: Sequence[TaskRow]) -> list[FileRef]:
        """For each of the run's own shards what has its rows of the cluster tables."""
        from corpusmill.dedup.by_shard import clusters_by_shard

        return clusters_by_shard(self.run, [shard.name for shard in own], files(clusters, "clusters/"))


def files(rows: Iterable[TaskRow], prefix: str) -> list[FileRef]:
    """What the stage's tasks have written below `prefix`."""
    outputs = [(row, output.path) for row in rows for output in row.outputs]
    return [row.ref("dedup", path) for row, path in outputs if path.removeprefix(TRIAL).startswith(prefix)]


def only(row: TaskRow) -> FileRef:
    """The one file that a task has written."""
    return row.ref("dedup", row.outputs[0].path)
