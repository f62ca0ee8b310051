"""Makes a run of random decisions: thousands of rows in many shards, with missing values, ties, hostile names and personal data."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from built_run import HOSTILE, RunBuilder

from corpusmill.filters.rules import Rule, StepRule, decide
from corpusmill.pipeline.schemas import document_id

#: Rules with every kind of comparison; one has an unknown name, one never fires.
RULES = [
    Rule("short", "words", "<", 20), Rule("long", "words", ">", 90), Rule("ratio", "ratio", ">=", 0.8), Rule("low", "score", "<=", 0.1),
    Rule(HOSTILE, "ratio", "<", 0.05), Rule("never", "words", ">", 10**6), Rule("language", "language", "not in", ("en", "de")),
]  # fmt: skip
MEASURED = [
    pa.field("words", pa.int64()), pa.field("ratio", pa.float64()), pa.field("score", pa.float64()), pa.field("language", pa.string()),
    pa.field("pii_emails", pa.int64()), pa.field("pii_phones", pa.int64()),
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
    fields = [pa.field(name, pa.string()) for name in ("source", "reason", "encoding", "encoding_claimed", "record_type")]
    run.decide("ingest", [[_ingested(page) for page in part] for part in parts], fields)
    good = [[page for page in part if page["status"] == 200] for part in parts]
    paths = [[f"ingest/data/part-{number:05d}.parquet"] for number in range(shards)]
    rules = [StepRule("step", rule).as_json() for rule in RULES]
    run.decide("filter", [_filtered(part) for part in good], MEASURED, [pa.field("language", pa.string())], rules, read_each=paths)
    return run


def _ingested(page: dict[str, Any]) -> dict[str, Any]:
    claimed = ("utf-8", "UTF8", None)[len(page["text"]) % 3]
    said = {"reason": "404 <b>", "encoding": "utf-8", "encoding_claimed": claimed, "record_type": "response"}
    return {**page, **said, "failed": [] if page["status"] == 200 else ["status"], "chars_in": 3 * len(page["text"])}


def _filtered(pages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    values = {f.name: pa.array([page[f.name] for page in pages], f.type, from_pandas=False) for f in MEASURED}
    failed = decide([StepRule("step", rule) for rule in RULES], values, len(pages)).to_pylist()
    return [{**page, "failed": names} for page, names in zip(pages, failed, strict=True)]


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
