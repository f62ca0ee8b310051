"""Has pieces read by a process of its own (`reader.py`) and goes on behind what killed it, with all rows that it had finished."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.ingest.config import IngestConfig
from corpusmill.pipeline.ingest.losses import TRIES, Losses
from corpusmill.pipeline.ingest.reader import EXTRACTING, PHASE, PLACE
from corpusmill.pipeline.ingest.reader_process import Died, Process
from corpusmill.pipeline.ingest.splitting import UNKNOWN, RangeIndex


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
        done = 0
        losses = Losses(self.config.extraction)
        while True:
            process = self._running()
            self.answering = True
            process.send({"segments": segments, "done": done, **losses.request()})
            try:
                while self.answering:
                    batch = self._receive(process)
                    done += batch.report.num_rows
                    yield batch
                return
            except Died as death:
                self._bury(process, death, losses)

    def index(self, path: str, where: dict[str, Any]) -> RangeIndex:
        """`index_range` of a file, or that nothing is known where it can't be walked."""
        losses = Losses(self.config.extraction)
        while not losses.unreadable:
            process = self._running()
            process.send({"index": {"path": path, **where}, "by_hand": losses.by_hand})
            try:
                answer = _checked(process.receive())
                self.peak_mb = max(self.peak_mb, answer["peak_mb"])
                return RangeIndex(**answer["found"])
            except Died as death:
                self._bury(process, death, losses)
        return UNKNOWN

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
        raise CorpusmillError(f"ingest: the process that reads can't be started ({(lines or [death.how])[-1]}).")

    def _receive(self, process: Process) -> Batch:
        """The next batch."""
        message = process.receive()
        self.answering = False  # where it is an error
        head = _checked(message)
        documents, report = (pa.ipc.open_stream(process.receive()).read_all() for _ in range(2))
        self.peak_mb = max(self.peak_mb, head["peak_mb"])
        self.answering = not head["end"]
        return Batch(documents, report, head["counts"], head["warnings"])


def _checked(message: bytes) -> dict[str, Any]:
    """A message of the other process; its exception is raised as if it were this one's."""
    head: dict[str, Any] = json.loads(message)
    if "error" in head:
        kinds = {"input": InputError, "ours": CorpusmillError, "bug": ReaderBug}
        error = kinds[head["error"]](head["message"])
        error.add_note(head["trace"])
        raise error
    return head
