"""Calls the explorer's API in this process, and computes the expected answers row by row from the report's files."""

import math
import re
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
from starlette.testclient import TestClient

from corpusmill.report.explore.console import Console
from corpusmill.report.explore.server import LoopbackGuard, make_app

PORT = 8642
Row = dict[str, Any]


def client_of(folder: Path, stage: str | None = None) -> TestClient:
    """Returns a client of a run's explorer, fully loaded."""
    console = Console(str(folder), stage)
    console.explorer("").loader.join()
    return client_for(console)


def client_for(console: Console) -> TestClient:
    """Returns a client of a console, whose runs are loaded or not."""
    guard = LoopbackGuard(make_app(console), PORT, console.token)
    return TestClient(guard, base_url=f"http://127.0.0.1:{PORT}")


def rows_of(folder: Path, stage: str) -> list[Row]:
    """Returns a stage's report rows in the order of its shards, with key, host, and the language and crawl file from other reports."""
    read = {name: _read(folder / name / "report") for name in ("ingest", "filter", "dedup")}
    languages = {row["id"]: row["language"] for row in reversed(read["filter"]) if "language" in row}
    sources = {row["id"]: row["source"] for row in reversed(read["ingest"])}
    found = []
    for number, row in enumerate(read[stage]):
        host = re.match(r"[a-z]+://([^/:?#]+)", row["url"] or "")
        known = {"language": languages.get(row["id"]), "source": sources.get(row["id"]), "host": host[1] if host else None}
        found.append({**known, **row, "key": f"{stage}/{number}"})
    return found


def _read(folder: Path) -> list[Row]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in ds.dataset(path).to_table().to_pylist()]


def passes(row: Row, asked: dict[str, Any]) -> bool:
    """Whether a row passes a filter, as the API's description defines it. `asked` holds parameters; ranges are `low.words` and the like."""
    wanted = set(asked.get("rule", ()))
    tests = [
        asked.get("decision") in (None, "kept" if row["kept"] else "dropped"),
        wanted <= set(row["failed"]),
        not asked.get("alone") or (set(row["failed"]) == wanted if wanted else len(set(row["failed"])) == 1),
        asked.get("url") is None or asked["url"] in (row["url"] or ""),
    ]
    tests += [(row[name] or "") == asked[name] for name in ("language", "source", "host") if name in asked]
    for name, end in asked.items():
        kind, _, column = name.partition(".")
        if kind in ("low", "high"):
            value = row[column]
            known = value is not None and not math.isnan(value)
            tests.append(known and (value >= end if kind == "low" else value <= end))
    return all(tests)
