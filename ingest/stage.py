"""The stage `ingest`: reads crawls and collections; writes one table of documents, and a report row for each record."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from corpusmill.ingest.commoncrawl import fetch, find_files, is_crawl
from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.formats import first_keys
from corpusmill.ingest.guard import ReaderGuard, RowBatch, examined
from corpusmill.ingest.inputs import (
    UNKNOWN,
    Discovery,
    RangeIndex,
    discover,
    index_ranges,
    joined,
    needs_index,
    pack,
    segments_of,
    task_bytes,
)
from corpusmill.ingest.pages import MIB
from corpusmill.ingest.shard import filled
from corpusmill.ingest.takedown import forget, leave_out, takedowns_of
from corpusmill.ingest.urls.filter import url_filter_params
from corpusmill.pipeline.config import Config, canonical_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import file_ref, is_web, open_file
from corpusmill.pipeline.formats.detect import HEAD, Ignored, InputFile, Refused
from corpusmill.pipeline.formats.sites import FOLDER as SITES_FOLDER
from corpusmill.pipeline.formats.sites import SITES
from corpusmill.pipeline.manifest import FileRef, TaskRow
from corpusmill.pipeline.names import counted
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Output, Stage, Task, Worker
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.web import cached

#: The rules of JSONL lines that can't be read as objects. Whether such a line has a text is unknown.
NO_OBJECT = ("not_json", "invalid_utf8", "too_large")
#: Formats with pages. For them the extractor is loaded.
PAGES = ("warc", "arc", "html")
#: Files whose formats one task finds.
LOOKED = 512
#: The most workers of a phase that reads from web servers. Each of them holds one connection.
WEB_READERS = 32


class GuardedWorker(Worker):
    """Reads files in a separate process, so that a hostile file kills only that process."""

    config: IngestConfig

    def __init__(self, config: IngestConfig, run: Storage, params: dict[str, Any]):
        super().__init__(config, run, params)
        self.guard = ReaderGuard(config, params)

    def children_mb(self) -> int:
        return self.guard.peak_mb

    def close(self) -> None:
        self.guard.close()

    @staticmethod
    def check_unchanged(refs: Iterable[FileRef]) -> None:
        """Raises InputError if a file has changed since the run listed it.

        Must be called after the files are read, so that all that was read is of one version.
        """
        for ref in dict.fromkeys(refs):
            if file_ref(ref.path).fingerprint != ref.fingerprint:
                raise InputError(f"{ref.path}: was changed or replaced since the run listed it; run again to read what it holds now.")


class LookWorker(GuardedWorker):
    """Finds the formats of files."""

    def __init__(self, config: IngestConfig, run: Storage, params: dict[str, Any]):
        super().__init__(config.model_copy(update={"url_filter": None}), run, {"pages": False})

    def process(self, task: Task) -> Output:
        found = self.guard.examine(task.inputs)
        content = canonical_json([asdict(each) for each in found]).encode()
        return Output({f"files/{task.key}.json": content}, counts={"files": len(found)})


class IndexWorker(GuardedWorker):
    """Finds the places at which a range of a large WARC or ARC can be cut."""

    def __init__(self, config: IngestConfig, run: Storage, params: dict[str, Any]):
        super().__init__(config.model_copy(update={"url_filter": None}), run, {**params, "pages": False})  # no URL is judged here

    def process(self, task: Task) -> Output:
        (ref,) = task.inputs
        found = self.guard.index(ref.path, task.params)
        self.check_unchanged([ref])
        return Output({f"index/{task.key}.json": canonical_json(asdict(found)).encode()}, counts={"places": len(found.places)})


class IngestWorker(GuardedWorker):
    """Turns segments of files into documents and report rows."""

    memory_mb = 700

    def setup(self) -> None:
        self.takedowns = takedowns_of(self.config)

    def process(self, task: Task) -> Iterator[Output]:
        """Yields each shard of the task as soon as it is full: `part-00042`, or `part-00042-0000`, ... where there are several."""
        segments = task.params["segments"]
        counts: Counter[str] = Counter()
        warnings = list(task.params.get("warnings", []))
        sites = SITES.empty_table()

        def batches() -> Iterator[RowBatch]:
            nonlocal sites
            for batch in self.guard.read([(ref.path, ref.bytes, segment) for ref, segment in zip(task.inputs, segments)]):
                counts.update(batch.counts)
                warnings.extend(batch.warnings)
                sites = pa.concat_tables([sites, batch.sites])
                yield leave_out(batch, self.takedowns)

        for key, shard, last in filled(task.key, batches(), self.config):
            if not last:
                yield shard.output(key)
        self.check_unchanged(ref for ref, segment in zip(task.inputs, segments) if segment["format"] != "refused")
        end = shard.output(key, bytes_in=sum(segment["bytes"] for segment in segments), counts=dict(counts), warnings=warnings)
        yield replace(end, files={**end.files, f"{SITES_FOLDER}{task.key}.parquet": sites}) if len(sites) else end


class IngestStage(Stage):
    name: ClassVar[str] = "ingest"
    Config: ClassVar[type[Config]] = IngestConfig
    config: IngestConfig

    def libraries(self) -> tuple[str, ...]:
        return ("trafilatura",) if self.config.extraction.extractor == "trafilatura" else ()

    def check(self) -> None:
        takedowns_of(self.config)

    def execute(self, run: StageRun) -> None:
        forget(run, takedowns_of(self.config))
        if not run.engine.elsewhere:
            self._download(run)
        found = self._discover(run)
        target = task_bytes(found.sources, self.config.task_mb)
        starts = self._index(run, found, target)
        parts = [(source.ref, segment) for source in found.sources for segment in segments_of(source, target, starts.get(source.ref.path))]
        tasks = pack(parts, target)
        if found.refused or found.ignored:
            tasks.append(self._left_out(f"part-{len(tasks):05d}", found))
        pages = any(source.format in PAGES for source in found.sources)
        params = {"pages": pages, **url_filter_params(self.config.url_filter)}
        rows = run.map("", IngestWorker, tasks, params, allow_partial=True, most=_most(source.ref for source in found.sources))
        self._check_lines(found, rows)

    def summary(self, run: StageRun) -> dict[str, str]:
        counts, failed = Counter[str](), Counter[str]()
        for row in run.manifest.rows():
            counts.update(row.counts)
            failed.update(row.failed)
        no_page = failed.pop("record_type", 0)
        lines = {
            "came in": _listed(counts, "type:", "{count:,} {name}{s}"),
            "without a page": f"{no_page:,} of these (record_type)" if no_page else "",
            "left out by": _listed(failed),
            "read as": _listed(counts, "encoding:"),
        }
        return {label: listed for label, listed in lines.items() if listed}

    @staticmethod
    def _download(run: StageRun) -> None:
        """Downloads the files of `cc:` inputs into this machine's cache. The workers of a cluster read ranges from the server instead."""
        crawls = [given for given in run.inputs if is_crawl(given)]
        if crawls:
            with run.progress.transfer("ingest download") as bar:
                for given in crawls:
                    fetch(given, bar)

    def _discover(self, run: StageRun) -> Discovery:
        """Finds all files and their formats, in a guarded process: a hostile head or footer of a file kills that process, not the run."""
        found = discover(run.inputs, run.run.root, partial(self._look, run), find_files)
        if fault := next((source.fault for source in found.sources if source.fault), ""):
            raise InputError(fault)
        return found

    def _look(self, run: StageRun, refs: list[FileRef]) -> list[InputFile | Refused | Ignored]:
        """Returns the formats of files. Many files are tasks, so all workers look, and a resumed run looks at none again."""
        if len(refs) <= LOOKED:
            with closing(ReaderGuard(self.config.model_copy(update={"url_filter": None}), {"pages": False})) as guard:
                return guard.examine(refs) if refs else []
        pieces = [tuple(refs[at : at + LOOKED]) for at in range(0, len(refs), LOOKED)]
        tasks = [Task(f"files-{number:05d}", piece, {"segments": [{"bytes": HEAD}] * len(piece)}) for number, piece in enumerate(pieces)]
        rows = run.map("files", LookWorker, tasks, most=_most(refs))
        found = chain.from_iterable(run.storage.read_json(run.output(row), list) for row in rows)
        return [examined(ref, fields) for ref, fields in zip(refs, found)]

    def _check_lines(self, found: Discovery, rows: Sequence[TaskRow]) -> None:
        """Raises InputError if no document was kept because no line of JSONL has the text key."""
        lines, failed = 0, Counter[str]()
        for row in rows:
            if row.kept:
                return
            lines += row.counts.get("type:line", 0)
            failed.update(row.failed)
        if not 0 < lines - sum(failed[rule] for rule in NO_OBJECT) == failed["no_text"]:
            return
        source = next(source for source in found.sources if source.format == "jsonl")
        with open_file(source.ref.path) as file:
            keys = first_keys(file, source.layout, source.ref.bytes, self.config.extraction.max_record_mb * MIB)
        if self.config.text_key not in keys:
            names = ", ".join(keys) or "none"
            where = f"{source.ref.path}: no column {self.config.text_key!r} (ingest.text_key) in any line; it has {names}"
            raise InputError(f"{where}; --set ingest.text_key=NAME says which has the text.")

    def _index(self, run: StageRun, found: Discovery, target: int) -> dict[str, list[int]]:
        """Returns the places at which each large file can be cut, by path.

        Ranges of a file are walked in parallel. Where their results do not fit together, the whole file is walked from its beginning.
        """
        large = [source for source in found.sources if needs_index(source, target)]
        starts = self._starts(run, "index", [(source, index_ranges(source.ref.bytes, target)) for source in large], target)
        again = [source for source in large if starts[source.ref.path] is None]
        starts |= self._starts(run, "whole", [(source, [(0, source.ref.bytes)]) for source in again], target)
        return {path: places for path, places in starts.items() if places}

    @staticmethod
    def _starts(
        run: StageRun, phase: str, sources: list[tuple[InputFile, list[tuple[int, int]]]], target: int
    ) -> dict[str, list[int] | None]:
        tasks = [
            Task(
                f"{phase}-{number:05d}-{place:04d}",
                (source.ref,),
                {"format": source.format, "layout": source.layout, "start": start, "end": end, "step": target},
            )
            for number, (source, ranges) in enumerate(sources)
            for place, (start, end) in enumerate(ranges)
        ]
        most = _most(source.ref for source, _ in sources)
        rows = run.map(phase, IndexWorker, tasks, allow_partial=True, fail_fast=False, most=most) if tasks else []
        found = {row.task: RangeIndex(**run.storage.read_json(run.output(row))) for row in rows}
        indexes = iter([found.get(task.key, UNKNOWN) for task in tasks])
        return {source.ref.path: joined([next(indexes) for _ in ranges], source.ref.bytes) for source, ranges in sources}

    @staticmethod
    def _left_out(key: str, found: Discovery) -> Task:
        """Returns the task for the files that are not read: it writes a row for each refused file, and a warning about ignored ones."""
        nothing = {"format": "refused", "layout": "", "start": 0, "end": 0, "bytes": 0}
        refused = [{**nothing, "rule": each.rule, "reason": each.reason} for each in found.refused]
        params: dict[str, Any] = {"segments": refused, "warnings": []}
        if found.ignored:
            hidden = {each.path: Path(each.path).name.startswith((".", "_")) for each in found.ignored}
            paths = sorted(hidden, key=lambda path: (hidden[path], path))
            kinds = Counter("hidden" if hidden[path] else Path(path).suffix or Path(path).name for path in paths)
            named = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
            params["warnings"] = [f"left out {counted(len(paths), 'file')} without documents: {named} (such as {paths[0]})."]
        return Task(key, tuple(each.ref for each in found.refused), params)


def _most(refs: Iterable[FileRef]) -> int:
    """Returns the most workers that may read these files at a time; 0: all."""
    return WEB_READERS if any(is_web(ref.path) and not cached(ref.path) for ref in refs) else 0


def _listed(counts: Counter[str], prefix: str = "", form: str = "{name} {count:,}") -> str:
    chosen = [(name.removeprefix(prefix), count) for name, count in counts.most_common() if name.startswith(prefix)]
    several = {name: "s" for name, count in chosen if count > 1 and name not in ("html", "damage", "metadata", "warcinfo")}
    return ", ".join(form.format(name=name, count=count, s=several.get(name, "")) for name, count in chosen)
