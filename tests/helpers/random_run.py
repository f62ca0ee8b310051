"""Makes a run of random decisions: thousands of rows in many shards, with missing values, ties, hostile names and personal data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from built_run import HOSTILE, RunBuilder, documents, report

from corpusmill.filters.rules import Rule, StepRule, decide
from corpusmill.pipeline.schemas import document_id

#: Rules with every kind of comparison; one has an unknown name, one never fires.
RULES = [
    Rule("short", "words", "<", 20), Rule("long", "words", ">", 90), Rule("ratio", "ratio", ">=", 0.8), Rule("low", "score", "<=", 0.1),
    Rule(HOSTILE, "ratio", "<", 0.05), Rule("never", "words", ">", 10**6), Rule("language", "language", "not in", ("en", "de")),
]  # fmt: skip
HOSTS = [f"host{number}.test" for number in range(40)]


def write_random_run(folder: Path, rows: int = 4000, shards: int = 7, seed: int = 0) -> RunBuilder:
    """Writes ingest and filter; almost no page of `host7.test` is kept."""
    run = RunBuilder(folder)
    steps = [{"pii": {"email": "email@example.com", "phone": None}}]
    run.json("run.json", {"inputs": ["crawl/"], "recipe": {"ingest": {}, "filter": {"steps": steps}}, "versions": {}})
    rng = np.random.default_rng(seed)
    pages = [_page(rng, number) for number in range(rows)]
    parts = [list(part) for part in np.array_split(np.array(pages, object), shards)]
    run.stage("ingest", [_ingest(number, part) for number, part in enumerate(parts)])
    good = [[page for page in part if page["status"] == 200] for part in parts]
    paths = [[f"ingest/data/part-{number:05d}.parquet"] for number in range(shards)]
    run.stage("filter", [_filter(number, part) for number, part in enumerate(good)], read_each=paths)
    return run


def _page(rng: np.random.Generator, number: int) -> dict[str, Any]:
    host = HOSTS[int(rng.integers(40)) // (1 + int(rng.integers(4)))]
    url = None if number % 97 == 0 else f"https://user@{host}:8080/page?{number}" if number % 5 else f"http://{host}"
    text = "x" * int(10 ** rng.uniform(0, 3.5))
    ratio = None if rng.random() < 0.1 else float("nan") if rng.random() < 0.1 else 0.0 if host == "host7.test" else rng.random()
    return {
        "id": document_id(url, f"{number % (4000 - 40)}".encode()), "url": url, "source": f"crawl-{number % 3}.warc.gz", "text": text,
        "status": 404 if rng.random() < 0.1 else 200, "words": int(rng.integers(0, 100)),
        "ratio": ratio,
        "score": float(np.round(rng.random(), 1)), "language": str(rng.choice(["en", "de", "fr", HOSTILE])),
        "pii_emails": int(rng.poisson(0.1)), "pii_phones": int(rng.poisson(0.02)),
    }  # fmt: skip


def _ingest(number: int, pages: list[dict[str, Any]]) -> dict[str, pa.Table]:
    rows = [
        {**page, "kept": page["status"] == 200, "failed": [] if page["status"] == 200 else ["status"], "chars_in": 3 * len(page["text"]),
         "chars_out": len(page["text"]) * (page["status"] == 200), "reason": "404 <b>", "encoding": "utf-8",
         "encoding_claimed": ("utf-8", "UTF8", None)[len(page["text"]) % 3], "record_type": "response"}
        for page in pages
    ]  # fmt: skip
    fields = [pa.field(name, pa.string()) for name in ("source", "reason", "encoding", "encoding_claimed", "record_type")]
    good = [row for row in rows if row["kept"]]
    return {f"data/part-{number:05d}.parquet": documents(good, []), f"report/part-{number:05d}.parquet": report(rows, fields)}


def _filter(number: int, pages: list[dict[str, Any]]) -> dict[str, pa.Table]:
    fields = [pa.field("words", pa.int64()), pa.field("ratio", pa.float64()), pa.field("score", pa.float64()),
              pa.field("language", pa.string()), pa.field("pii_emails", pa.int64()), pa.field("pii_phones", pa.int64())]  # fmt: skip
    values = {f.name: pa.array([page[f.name] for page in pages], f.type, from_pandas=False) for f in fields}
    failed = decide([StepRule("step", rule) for rule in RULES], values, len(pages)).to_pylist()
    rows = [
        {**page, "kept": not names, "failed": names, "chars_in": len(page["text"]), "chars_out": 0 if names else len(page["text"])}
        for page, names in zip(pages, failed, strict=True)
    ]
    rules = json.dumps([StepRule("step", rule).as_json() for rule in RULES]).encode()
    good = [row for row in rows if row["kept"]]
    return {
        f"data/part-{number:05d}.parquet": documents(good, [pa.field("language", pa.string())]),
        f"report/part-{number:05d}.parquet": report(rows, fields, {b"corpusmill.rules": rules}),
    }
