"""Provides a run whose earlier stage is finished, and the results of its dedup stage."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from stage_runs import finish, perform

from corpusmill.dedup.stage import DedupStage
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.schemas import DOCUMENTS, document_id
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage

Rows = list[dict[str, Any]]


def document(text: str, **more: Any) -> dict[str, Any]:
    """Returns a row of the documents table."""
    url = more.get("url", f"http://example.org/{document_id(None, text.encode())[:8]}")
    row = dict.fromkeys(DOCUMENTS.names)
    return {**row, "id": document_id(url, text.encode()), "url": url, "source": "crawl.warc.gz", "offset": 0, "text": text, **more}


def finish_upstream(run: Storage, shards: Sequence[Rows], schema: pa.Schema = DOCUMENTS) -> Storage:
    """Makes a run in which `filter` is finished with these document shards."""
    tables = {f"part-{number:05d}": pa.Table.from_pylist(rows, schema=schema) for number, rows in enumerate(shards)}
    return finish(run, "filter", {key: {f"data/{key}.parquet": table} for key, table in tables.items()})


def run_dedup(run: Storage, **config: Any) -> StageRun:
    """Runs the stage; an alarm only warns here, because alarms have tests of their own."""
    return perform(run, DedupStage(DedupStage.Config.model_validate({"alarm": "warn", **config})), earlier=["filter"])


class Result:
    """The results of a finished dedup stage."""

    def __init__(self, run: StageRun):
        self.run = run
        shards = len(run.upstream("filter").rows())
        self.data: Rows = []
        self.report: Rows = []
        for number in range(shards):
            self.data += read_table(run.storage, f"data/part-{number:05d}.parquet").to_pylist()
            self.report += read_table(run.storage, f"report/part-{number:05d}.parquet").to_pylist()
        rows = run.manifest.rows()
        files = [output.path for row in rows for output in row.outputs if output.path.startswith("clusters/part-")]
        self.clusters: Rows = sorted(
            (row for file in files for row in read_table(run.storage, file).to_pylist()), key=lambda row: (row["shard"], row["row"])
        )
        self.sources: Rows = read_table(run.storage, "clusters/sources.parquet").to_pylist()
        self.counts = run.manifest.tasks["sources"].counts
        self.warnings = run.manifest.tasks["sources"].warnings

    @property
    def kept(self) -> list[str]:
        return [row["text"] for row in self.data]


Dedup = Callable[..., Result]


def dedup_in(parent: Path) -> Dedup:
    """Returns `dedup([[row, ...], ...], **config)`: runs the stage on shards of texts or partial rows, in a new run or in `folder`."""
    runs = iter(range(1_000_000))

    def perform(shards: Sequence[Sequence[str | dict[str, Any]]], schema: pa.Schema = DOCUMENTS, folder: str = "", **config: Any) -> Result:
        rows = [[document(row) if isinstance(row, str) else document(**row) for row in shard] for shard in shards]
        return Result(run_dedup(finish_upstream(Storage(folder or str(parent / f"run{next(runs)}")), rows, schema), **config))

    return perform


@pytest.fixture
def dedup(tmp_path: Path) -> Dedup:
    return dedup_in(tmp_path)


@pytest.fixture(scope="module")
def shared_dedup(tmp_path_factory: pytest.TempPathFactory) -> Dedup:
    """Returns the same function, for runs that several tests read."""
    return dedup_in(tmp_path_factory.mktemp("dedup"))
