"""Has pieces read by a process of its own (`reader.py`) and goes on behind what killed it, with all rows that it had finished."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.ingest.config import IngestConfig
from corpusmill.pipeline.ingest.losses import TRIES, Losses, killed
from corpusmill.pipeline.ingest.reader import EXTRACTING, PHASE, PLACE
from corpusmill.pipeline.ingest.reader_process import Died, Process
from corpusmill.pipeline.ingest.rows import INGEST_REPORT
from corpusmill.pipeline.ingest.splitting import UNKNOWN, RangeIndex
from corpusmill.pipeline.ingest.wat import SAID
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.schemas import DOCUMENTS


class ReaderBug(Exception):
    """An exception in the reader process that is no sentence for the user; its trace is in the notes."""


@dataclass
class Harvest:
    """The rows of a piece, or of a WAT file, that have arrived: of so many records, in one table or several."""

    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    tables: tuple[list[pa.Table], list[pa.Table]] = field(default_factory=lambda: ([], []))  # of a WAT file, the first alone

    def add(self, head: dict[str, Any], tables: list[pa.Table]) -> None:
        self.rows += head["rows"]
        self.counts.update(head["counts"])
        self.warnings += head["warnings"]
        for gathered, table in zip(self.tables, tables):
            gathered.append(table)

    def documents(self) -> pa.Table:
        return pa.concat_tables([DOCUMENTS.empty_table(), *self.tables[0]])

    def report(self) -> pa.Table:
        return pa.concat_tables([INGEST_REPORT.empty_table(), *self.tables[1]])

    def said(self) -> pa.Table:
        return pa.concat_tables([SAID.empty_table(), *self.tables[0]])


class Guard:
    """Has pieces read by a process that is started when it is needed and replaced when it dies."""

    def __init__(self, config: IngestConfig, params: dict[str, Any]):
        self.config = config
        self.params = params
        self.process: Process | None = None
        self.peak_mb = 0  # the most that one of the processes had in memory

    def read(self, segments: Sequence[tuple[str, int, dict[str, Any]]]) -> Harvest:
        """The rows of all segments (path, bytes of the file, fields of `Segment`) in order, one for each record."""
        return self._gather({"segments": segments})

    def read_wat(self, ref: FileRef, layout: str) -> Harvest:
        """What a WAT file says (`wat.SAID`)."""
        return self._gather({"wat": {"path": ref.path, "bytes": ref.bytes, "layout": layout}})

    def _gather(self, request: dict[str, Any]) -> Harvest:
        """All that the answers to a request bring, whatever processes die meanwhile."""
        harvest = Harvest()
        losses = Losses(self.config.extraction)
        while True:
            process = self._running()
            process.send({**request, "done": harvest.rows, **losses.request()})
            try:
                self._receive(process, harvest)
                return harvest
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

    def _running(self) -> Process:
        """The process, ready for a request."""
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

    def _receive(self, process: Process, harvest: Harvest) -> None:
        """Takes batches until the last."""
        while True:
            head = _checked(process.receive())
            tables = [pa.ipc.open_stream(process.receive()).read_all() for _ in range(head["tables"])]
            harvest.add(head, tables)
            self.peak_mb = max(self.peak_mb, head["peak_mb"])
            if head["end"]:
                return


def _checked(message: bytes) -> dict[str, Any]:
    """A message of the other process; its exception is raised as if it were this one's."""
    head: dict[str, Any] = json.loads(message)
    if "error" in head:
        kinds = {"input": InputError, "ours": CorpusmillError, "bug": ReaderBug}
        error = kinds[head["error"]](head["message"])
        error.add_note(head["trace"])
        raise error
    return head
