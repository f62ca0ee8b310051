"""Has pieces read by a process of its own (`reader.py`) and goes on behind what killed it, with all rows that it had finished."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.losses import TRIES, Losses, killed
from corpusmill.ingest.reader import EXTRACTING, PHASE, PLACE
from corpusmill.ingest.reader_process import Died, Process
from corpusmill.ingest.splitting import UNKNOWN, RangeIndex
from corpusmill.ingest.wat import SAID
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.formats.detect import Ignored, InputFile, Refused
from corpusmill.pipeline.manifest import FileRef


class ReaderBug(Exception):
    """An exception in the reader process that is no sentence for the user; its trace is in the notes."""


@dataclass(frozen=True)
class Batch:
    """Some rows of a piece: a report row for each, a document for each that is kept, and what the manifest says of them."""

    documents: pa.Table
    report: pa.Table
    counts: dict[str, int]
    warnings: list[str]


class Guard:
    """Has pieces read by a process that is started when it is needed and replaced when it dies."""

    def __init__(self, config: IngestConfig, params: dict[str, Any]):
        self.config = config
        self.params = params
        self.process: Process | None = None
        self.answering = False  # the process has not sent the last batch of a piece
        self.peak_mb = 0  # the most that one of the processes had in memory

    def read(self, segments: Sequence[tuple[str, int, dict[str, Any]]]) -> Iterator[Batch]:
        """The rows of all segments (path, bytes of the file, fields of `Segment`) in order, one for each record. How many are in a batch
        depends on the time that they take."""
        for head, (documents, report) in self._answers({"segments": segments}):
            yield Batch(documents, report, head["counts"], head["warnings"])

    def read_wat(self, ref: FileRef, layout: str) -> tuple[pa.Table, list[str]]:
        """What a WAT file says (`wat.SAID`), and warnings."""
        tables, warnings = [SAID.empty_table()], list[str]()
        for head, (said,) in self._answers({"wat": {"path": ref.path, "bytes": ref.bytes, "layout": layout}}):
            tables.append(said)
            warnings += head["warnings"]
        return pa.concat_tables(tables), warnings

    def _answers(self, request: dict[str, Any]) -> Iterator[tuple[dict[str, Any], list[pa.Table]]]:
        """What the answers to a request bring, in order and once, whatever processes die meanwhile."""
        done = 0
        losses = Losses(self.config.extraction)
        while True:
            process = self._running()
            self.answering = True
            process.send({**request, "done": done, **losses.request()})
            try:
                while self.answering:
                    head, tables = self._receive(process)
                    done += head["rows"]
                    yield head, tables
                return
            except Died as death:
                self._bury(process, death, losses)

    def index(self, path: str, where: dict[str, Any]) -> RangeIndex:
        """`index_range` of a file, or that nothing is known where it can't be walked."""
        found = self._ask({"index": {"path": path, **where}})
        return RangeIndex(**found) if isinstance(found, dict) else UNKNOWN

    def examine(self, ref: FileRef) -> InputFile | Refused | Ignored:
        """`formats.examine` of a file; one that no process survives is refused."""
        found = self._ask({"examine": asdict(ref)})
        if not isinstance(found, dict):
            rule, reason = found
            return Refused(ref, rule, f"{ref.path}: {reason}.")
        if "path" in found:
            return Ignored(found["path"])
        if "rule" in found:
            return Refused(ref, found["rule"], found["reason"])
        return InputFile(ref, found["format"], found["layout"], tuple(found["groups"]), found["fault"])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any] | tuple[str, str]:
        """What one answer says; or rule and reason where processes died of it."""
        losses = Losses(self.config.extraction)
        while not losses.unreadable:
            process = self._running()
            process.send({**request, "by_hand": losses.by_hand})
            try:
                answer = _checked(process.receive())
            except Died as death:
                self._bury(process, death, losses)
                continue
            self.peak_mb = max(self.peak_mb, answer["peak_mb"])
            found: dict[str, Any] = answer["found"]
            return found
        return next(iter(losses.unreadable.values()))

    def _bury(self, process: Process, death: Died, losses: Losses) -> None:
        place, phase = process.place[PLACE], process.place[PHASE]
        self.close()
        losses.note(place, phase == EXTRACTING, death)

    def close(self) -> None:
        if self.process:
            self.process.close()
            self.peak_mb = max(self.peak_mb, self.process.peak_mb)
            self.process = None
        self.answering = False

    def _running(self) -> Process:
        """The process, ready for a request."""
        if self.answering:
            self.close()  # the rest of another piece, which failed, is not wanted
        if self.process:
            return self.process
        death: Died | None = None
        for _ in range(TRIES):
            self.process = Process(
                {"config": self.config.model_dump(mode="json"), "params": self.params}, self.config.extraction.max_page_seconds
            )
            try:
                _checked(self.process.receive())
                return self.process
            except Died as error:
                death, lines = error, self.process.said().decode("utf-8", "replace").strip().splitlines()
                self.close()
        assert death is not None
        if death.outside:
            raise killed(death)
        raise CorpusmillError(f"ingest: the process that reads can't be started ({(lines or [death.how])[-1]}).")

    def _receive(self, process: Process) -> tuple[dict[str, Any], list[pa.Table]]:
        """The next batch."""
        message = process.receive()
        self.answering = False  # where it is an error
        head = _checked(message)
        tables = [pa.ipc.open_stream(process.receive()).read_all() for _ in range(head["tables"])]
        self.peak_mb = max(self.peak_mb, head["peak_mb"])
        self.answering = not head["end"]
        return head, tables


def _checked(message: bytes) -> dict[str, Any]:
    """A message of the other process; its exception is raised as if it were this one's."""
    head: dict[str, Any] = json.loads(message)
    if "error" in head:
        kinds = {"input": InputError, "ours": CorpusmillError, "bug": ReaderBug}
        error = kinds[head["error"]](head["message"])
        error.add_note(head["trace"])
        raise error
    return head
