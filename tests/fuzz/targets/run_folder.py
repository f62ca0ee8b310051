"""Fuzzes a run's folder with one small arbitrary file: commands that show runs print what they can, or one sentence."""

import contextlib
import json
from functools import cache
from pathlib import Path

from built_run import write_run
from fuzzing import changed, choose, choosing, json_mutants, scratch

from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.run import plan_of_existing
from corpusmill.pipeline.storage import Storage
from corpusmill.report.live.status import read_status
from corpusmill.report.read import RunReader

PROGRESS = {
    "corpusmill": "0",
    "host": "h",
    "process": 1,
    "began": "2026-01-01T00:00:00.000+00:00",
    "ended": None,
    "failure": None,
    "stages": ["ingest", "filter"],
    "stages_began": {"ingest": "2026-01-01T00:00:00.000+00:00"},
    "phases": [
        {
            "stage": "ingest",
            "phase": "ingest",
            "tasks": 2,
            "before": 0,
            "bytes": 100,
            "bytes_before": 0,
            "bytes_are": "input",
            "manifest": 0,
            "workers": 1,
            "began": "2026-01-01T00:00:00.000+00:00",
            "ended": None,
        }
    ],
}
METRICS = {"stage": "ingest", "phase": "ingest", "task": "part-00000", "seconds": 1.5, "peak_mb": 100}
FILES = ["run.json", "progress.json", "ingest/manifest.jsonl", "metrics.jsonl", "errors.log", "filter/manifest.jsonl"]


@cache
def sound() -> Path:
    folder = scratch() / "run"
    write_run(folder, ("ingest", "filter"))
    (folder / "progress.json").write_text(json.dumps(PROGRESS))
    (folder / "metrics.jsonl").write_text(json.dumps(METRICS) + "\n")
    (folder / "errors.log").write_text("ingest part-00001\nTraceback\nValueError: x\n\n")
    return folder


def seeds() -> list[bytes]:
    rows = [json.loads(line) for line in (sound() / "ingest" / "manifest.jsonl").read_bytes().splitlines()]
    run = json.loads((sound() / "run.json").read_bytes())
    lines = [
        b"".join(b"%b\n" % line for line in json_mutants(f"row {number}", row, 2)) for number, row in enumerate(rows) for _ in range(3)
    ]
    changed = [(0, run), (1, PROGRESS), (3, METRICS)]
    return [
        *(choosing(place, (sound() / name).read_bytes()) for place, name in enumerate(FILES)),
        *(choosing(2, line) for line in lines),
        *(choosing(place, content) for place, value in changed for content in json_mutants(f"run {place}", value, 8)),
    ]


def fuzz(data: bytes) -> None:
    name, content = choose(data, FILES)
    if name == "run.json" and any(word in content.lower() for word in (b"python", b"transformer", b"datatrove", b"classifier", b"://")):
        return  # a recipe's requests are performed: see recipe.py
    with changed(sound(), name, content) as folder:
        for read in (look, status, plan, manifest):
            with contextlib.suppress(CorpusmillError):
                read(folder)


def look(folder: Path) -> None:
    reader = RunReader(str(folder))
    for stage in ("ingest", "filter"):
        for _ in reader.rows(reader.find(stage, "report", "id", ["x"])):
            pass
        reader.rules(stage)
    json.dumps(reader.warnings).encode()


def status(folder: Path) -> None:
    json.dumps(read_status(str(folder)), allow_nan=False)


def plan(folder: Path) -> None:
    plan_of_existing(str(folder)).stages()


def manifest(folder: Path) -> None:
    for stage in ("ingest", "filter"):
        found = Manifest(Storage(str(folder / stage)))
        for row in found.rows() if found.complete else ():
            assert all(isinstance(output.path, str) and ".." not in output.path.split("/") for output in row.outputs), (
                "leads out of the run"
            )
        assert found.complete in (True, False)
