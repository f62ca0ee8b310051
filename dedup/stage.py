"""Deduplication: LSH proposes, the texts decide, a policy says which copy stays, and the report says why.

Phases, each resumable: signatures (a task a shard), candidates (a task a range of keys), groups (one task), gathered (a task a shard),
clusters (a task a group), sources (one task), and the documents that stay (a task a shard).
"""

from pathlib import Path, PurePosixPath

from corpusmill.dedup.config import ClusterConfig, DedupConfig, MeasureConfig
from corpusmill.dedup.corpus import Shard
from corpusmill.dedup.index import CrawlIndex, Entry
from corpusmill.dedup.keys import BAND_KEYS, EXACT_KEYS, URL_KEYS
from corpusmill.dedup.lines import phases as lines_phases
from corpusmill.dedup.policy import needed_columns
from corpusmill.dedup.substrings import phases as substrings_phases
from corpusmill.pipeline.config import digest
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.manifest import TRIAL, FileRef, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Piece, Stage

GROUPS_TASK, SOURCES_TASK, CHANGES_TASK, INDEX_TASK = "groups", "sources", "earlier", "index"


class DedupStage(Stage):
    """Removes exact and near copies of documents; every removal names the document that was kept and how alike the two are."""

    name = "dedup"
    Config = DedupConfig
    config: DedupConfig
    tries = True

    def execute(self, run: StageRun) -> None:
        self.bands, self.rows = self._bands()
        entries = self._entries(run)
        own = self._signatures(run)
        shards = own + [shard for entry in entries for shard in entry.shards]
        candidates = self._candidates(run, shards)
        groups = self._groups(run, shards, sum(shard.rows for shard in own), candidates)
        clusters = self._clusters(run, shards, self._gathered(run, shards, groups), groups.counts["groups"])
        sources = self._sources(run, own, clusters, groups)
        changes = self._changes(run, entries, clusters)
        if self.dry_run:
            return
        self._stop_on_alarm(run, sources)
        self._remove(run, own, clusters)
        if self.config.index and self.config.index.extend:
            self._extend_index(run, own, entries, clusters, changes)

    def summary(self, run: StageRun) -> dict[str, str]:
        counts = run.task(SOURCES_TASK).counts
        lines = {"clusters": f"{counts['clusters']:,}, the largest of {counts['largest_cluster']:,} documents"}
        if counts["alarms"]:
            lose = "loses" if counts["alarms"] == 1 else "lose"
            lines["alarms"] = f"{counts['alarms']:,} {self._what(counts['alarms'])} {lose} more than {self.config.alarm_share:.0%}"
        if CHANGES_TASK in run.manifest.tasks and (changed := run.manifest.tasks[CHANGES_TASK].counts)["replaced"] + changed["restored"]:
            lines["earlier runs"] = f"{changed['replaced']:,} documents are replaced by better copies, {changed['restored']:,} stay again"
        return lines | lines_phases.summary(run)

    def _what(self, count: int) -> str:
        """What the removal is counted by, in words."""
        one, more = {"source": ("crawl file", "crawl files"), "host": ("host", "hosts")}.get(self.config.by, ("value", "values"))
        return one if count == 1 else more

    def _bands(self) -> tuple[int, int]:
        if not self.config.minhash.enabled:
            return 0, 0
        from corpusmill.dedup.minhash import band_shape

        return band_shape(self.config.minhash)

    def _kinds(self) -> dict[str, int]:
        """The kinds of keys, and how many of each a document has."""
        enabled = {EXACT_KEYS: self.config.exact.enabled, URL_KEYS: self.config.url.enabled, BAND_KEYS: self.config.minhash.enabled}
        return {kind: self.bands if kind == BAND_KEYS else 1 for kind, on in enabled.items() if on}

    def _columns(self) -> list[str]:
        """The columns of documents that the policies need beside those that every document has."""
        return sorted({*needed_columns(self.config.keep), *(needed_columns(self.config.url.keep) if self.config.url.enabled else [])})

    # ---- phases -------------------------------------------------------------------------------------

    def _signatures(self, run: StageRun) -> list[Shard]:
        from corpusmill.dedup.candidates import ranges_for
        from corpusmill.dedup.signatures import SignatureWorker

        documents = run.documents()
        ranges = {kind: ranges_for(per * run.document_count()) for kind, per in self._kinds().items()}
        params = {"bands": self.bands, "rows": self.rows, "ranges": ranges, "by": self.config.by, "columns": self._columns()}
        pieces = [Piece(PurePosixPath(ref.path).stem, (ref,)) for ref in documents]
        keyed = [Piece(f"signatures/{piece.key}", piece.inputs) for piece in pieces]
        done = run.map("signatures", SignatureWorker, keyed, params, self.config.part(MeasureConfig))
        return [
            Shard(
                piece.key, row.rows_in, ref, row.ref(self.name, f"signatures/{piece.key}.parquet"),
                {kind: row.ref(self.name, f"keys/{piece.key}.{kind}.arrow") for kind in ranges},
            )
            for piece, ref, row in zip(pieces, documents, done, strict=True)
        ]  # fmt: skip

    def _candidates(self, run: StageRun, shards: list[Shard]) -> dict[str, list[FileRef]]:
        """The files of each kind of candidates."""
        from corpusmill.dedup.candidates import CandidateWorker, candidate_pieces, ranges_for

        documents = sum(shard.rows for shard in shards)
        found: dict[str, list[FileRef]] = {}
        exact = self.config.exact.enabled
        pieces = {kind: candidate_pieces(kind, shards, ranges_for(per * documents), exact) for kind, per in self._kinds().items()}
        done = run.map("candidates", CandidateWorker, [piece for group in pieces.values() for piece in group], None, MeasureConfig())
        refs = iter([_only(row) for row in done])
        for kind, group in pieces.items():
            found[kind] = [next(refs) for _ in group]
        return found

    def _groups(self, run: StageRun, shards: list[Shard], own: int, candidates: dict[str, list[FileRef]]) -> TaskRow:
        from corpusmill.dedup.components import groups_output

        buckets = [ref.path for ref in candidates.get(BAND_KEYS, [])]
        groups = [ref.path for kind, refs in candidates.items() if kind != BAND_KEYS for ref in refs]
        words = self.bands * self.rows * self.config.minhash.bits // 64
        inputs = [*(shard.signatures for shard in shards), *(ref for refs in candidates.values() for ref in refs)]
        return run.once(
            GROUPS_TASK,
            inputs,
            lambda _: groups_output(run.run, shards, own, groups, buckets, words),
            {"own": own, "words": words},
            MeasureConfig(),
        )

    def _gathered(self, run: StageRun, shards: list[Shard], groups: TaskRow) -> list[FileRef]:
        from corpusmill.dedup.components import GROUPS_FILE
        from corpusmill.dedup.gather import GatherWorker

        table = groups.ref(self.name, GROUPS_FILE)
        compared = self.config.minhash.enabled and self.config.verification == "exact"
        pieces = []
        for number, shard in enumerate(shards):
            name = f"{shard.entry}/{shard.name}" if shard.entry else shard.name
            texts = (shard.texts,) if compared and shard.texts else ()
            pieces.append(Piece(f"gathered/{name}", (shard.signatures, table, *texts), {"shard": number}))
        done = run.map("gathered", GatherWorker, pieces, {"groups": groups.counts["groups"]}, MeasureConfig())
        return [_only(row) for row in done]

    def _clusters(self, run: StageRun, shards: list[Shard], gathered: list[FileRef], groups: int) -> list[TaskRow]:
        from corpusmill.dedup.clusters import ClusterWorker

        names = {"shards": [shard.name for shard in shards], "entries": [shard.entry for shard in shards]}
        pieces = [Piece(f"clusters/part-{group:05d}", tuple(gathered), {"group": group, **names}) for group in range(groups)]
        fixed = self.config.index is not None and self.config.index.earlier == "fixed"
        params = {"bands": self.bands, "rows": self.rows, "fixed": fixed}
        return run.map("clusters", ClusterWorker, pieces, params, self.config.part(ClusterConfig))

    def _sources(self, run: StageRun, own: list[Shard], clusters: list[TaskRow], groups: TaskRow) -> TaskRow:
        from corpusmill.dedup.sources import sources_output

        tables = self._files(clusters, "clusters/")
        more = {"limited": sum(row.counts["limited"] for row in clusters), "apart": groups.counts["apart"]}
        return run.once(
            SOURCES_TASK,
            [*(shard.signatures for shard in own), *tables],
            lambda _: sources_output(run.run, self.config, own, [ref.path for ref in tables], more),
            more,
        )

    def _changes(self, run: StageRun, entries: list[Entry], clusters: list[TaskRow]) -> FileRef | None:
        """What became of documents of earlier runs; None where there is no index."""
        if self.config.index is None:
            return None
        from corpusmill.dedup.index_entry import CHANGES_FILE, changes_output

        tables = self._files(clusters, "earlier/")
        row = run.once(
            CHANGES_TASK,
            [*tables, *(entry.decisions for entry in entries)],
            lambda _: changes_output(run.run, entries, [ref.path for ref in tables]),
        )
        return row.ref(self.name, CHANGES_FILE)

    def _stop_on_alarm(self, run: StageRun, sources: TaskRow) -> None:
        if self.config.alarm == "stop" and sources.counts["alarms"]:
            others = sources.counts["alarms"] - 1
            raise CorpusmillError(
                f"dedup stops before removing anything: {sources.warnings[0]}, and alarm_share is {self.config.alarm_share:.0%}"
                + (f" ({others:,} more {self._what(others)} above it)" if others else "")
                + f". {run.storage.path('clusters/sources.parquet')} has the table, corpusmill clusters {run.run.root} shows examples, "
                "and with --set dedup.alarm=warn it goes on."
            )

    def _remove(self, run: StageRun, own: list[Shard], clusters: list[TaskRow]) -> None:
        from corpusmill.dedup.removal import RemovalWorker

        tables = self._files(clusters, "clusters/")
        documents = run.documents()
        lines = lines_phases.prepare(run, self.config, documents, tables)
        substrings = substrings_phases.prepare(run, self.config, documents, tables, lines)
        params = {"clusters": len(tables)}
        pieces = [
            Piece(shard.name, (document, *tables, *lines[number], *substrings[number]), {**params, "shard": number})
            for number, (shard, document) in enumerate(zip(own, documents, strict=True))
        ]
        run.map("", RemovalWorker, pieces)

    # ---- the index ----------------------------------------------------------------------------------

    def _entry_name(self, run: StageRun) -> str:
        root = run.run.root if run.run.remote else str(Path(run.run.root).absolute())
        name = (self.config.index and self.config.index.name) or PurePosixPath(root).name
        if not name or "/" in name or name.startswith("."):
            raise InputError(f"dedup.index.name: {name!r} can't be the name of a folder.")
        return name

    def _documents_digest(self, run: StageRun) -> str:
        return digest([ref.fingerprint for ref in run.documents()])

    def _entries(self, run: StageRun) -> list[Entry]:
        """The entries of other runs in the index."""
        if self.config.index is None:
            return []
        index = CrawlIndex(self.config.index.path)
        index.check(self.config)
        every, name = index.entries(), self._entry_name(run)
        own = next((entry for entry in every if entry.name == name), None)
        if own and own.documents != self._documents_digest(run):
            raise InputError(
                f"{index.storage.path(name)}: this entry of the index is of a run with other documents; give this one a dedup.index.name "
                f"of its own, or remove that folder if it is to be replaced."
            )
        entries = [entry for entry in every if own is None or entry.number < own.number]  # done again, a run sees what it saw before
        for entry in entries:
            missing = [column for column in self._columns() if column not in entry.columns]
            if missing:
                raise InputError(f"{index.storage.path(entry.name)}: this entry has no column {missing[0]!r}, which dedup.keep needs.")
        return entries

    def _extend_index(
        self, run: StageRun, own: list[Shard], entries: list[Entry], clusters: list[TaskRow], changes: FileRef | None
    ) -> None:
        from corpusmill.dedup.index_entry import MARK_FILE, entry_output

        assert self.config.index is not None and changes is not None
        tables = self._files(clusters, "clusters/")
        files = [file for shard in own for file in (shard.texts, shard.signatures, *shard.keys.values()) if file]
        index, name, number = CrawlIndex(self.config.index.path), self._entry_name(run), 1 + max((e.number for e in entries), default=-1)
        if not index.has(name) and run.storage.exists(MARK_FILE):
            run.storage.remove(MARK_FILE)  # the run has put itself into an index that is gone
        new = Entry(name, number, self._documents_digest(run), self._columns(), own, changes)
        paths, changed = [table.path for table in tables], changes.path
        run.once(
            INDEX_TASK,
            [*files, *tables, changes],
            lambda _: entry_output(run.run, self.config, index, new, paths, changed),
            {"name": name, "number": number},
        )

    def _files(self, rows: list[TaskRow], prefix: str) -> list[FileRef]:
        outputs = [(row, output.path) for row in rows for output in row.outputs]
        return [row.ref(self.name, path) for row, path in outputs if path.removeprefix(TRIAL).startswith(prefix)]


def _only(row: TaskRow) -> FileRef:
    """The one file that a task made."""
    return row.ref("dedup", row.outputs[0].path)
