"""Real documents, a finished upstream stage, and the slow reference for every family."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest

from corpusmill.filters.stage import FilterStage
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.manifest import Manifest, TaskRow
from corpusmill.pipeline.progress import Progress
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.schemas import DOCUMENTS, document_id
from corpusmill.pipeline.shards import publish
from corpusmill.pipeline.storage import Storage

WORD_RULES = {"words": re.compile(r"\w+|[^\w\s]").findall, "whitespace": str.split}

#: Texts that break careless kernels.
HARD_TEXTS = [
    "", " ", "\n", "\n\n\n", " \n \n\n", "a", "-", "...", "…", "#", "\u2028", "\x85\x1c", "\u3000\u3000a\u3000", "\r\n\r\n", "a\r\rb",
    "\na", "a\n", "\na\n", "a\n\na\n\na", "\u3000\n\na\n\n\u00a0", "- a\n• b\n\u3000- c\n*", "a...\nb… \n..", "....", "......", "\0a\0\0b",
    "12 3 4 5 6 7 1 23 4 5 6 7 12 3 4 5 67", "1 2 3 4 5 67 12 3 4 5 6 7", "ab c ab c abc a b c", "x " * 300, "xy\n" * 50,
    "𝒳𝒴 é\u0301 שלום عربي 漢字 かな 😀😀 👩‍👩‍👧", "_ __ a_b _", "a" * 5000, "é" * 2000 + " " + "漢" * 2000, ". ! ? 。 ؟",
    "the be to of and",
]  # fmt: skip


def real_texts(shared: Path) -> list[str]:
    texts = [json.loads(line)["text"] for line in (shared / "text/c4_demo.jsonl").open()]
    texts += [json.loads(line)["text"] for line in (shared / "quality/dclm_human.jsonl").open()]
    wiki = (shared / "text/wiki_demo.txt").read_text()
    texts += [wiki[start : start + 8000] for start in range(0, len(wiki), 8000)]
    wikitext = (shared / "text/wikitext2_valid.txt").read_text()
    texts += [wikitext[start : start + 20000] for start in range(0, len(wikitext), 20000)]
    for path in sorted((shared / "lid").glob("*.txt")):
        lines = path.read_text().splitlines()
        texts += ["\n".join(lines[:40]), "\n\n".join(lines[:3] * 2 + lines[3:9]), " ".join(lines[40:80])]
    return texts


@pytest.fixture(scope="session")
def texts(shared_data: Path) -> list[str]:
    """About 900 real documents in 75 languages, and the hard ones."""
    return real_texts(shared_data) + HARD_TEXTS


def make_documents(texts: list[str]) -> pa.Table:
    rows = [
        {
            "id": document_id(f"http://x.test/{n}", text.encode()), "url": f"http://x.test/{n}", "timestamp": "2024-01-01T00:00:00Z",
            "source": "crawl.warc.gz", "offset": n, "length": 1, "text": text, "title": None, "metadata": None,
        }
        for n, text in enumerate(texts)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=DOCUMENTS)


def finished_ingest(root: Path, shards: list[pa.Table]) -> Storage:
    """A run whose stage ingest is finished and wrote these tables."""
    run = Storage(str(root))
    storage = run.child("ingest")
    manifest = Manifest(storage)
    keys = []
    for number, table in enumerate(shards):
        key = f"part-{number:05d}"
        output = publish(storage, f"data/{key}.parquet", table)
        manifest.append(TaskRow(key, f"identity {number}", [], "config", "code", table.num_rows, table.num_rows, 0, 0, [output]))
        keys.append(key)
    manifest.finish(keys)
    return run


def run_filter(run: Storage, config: FilterStage.Config, engine=None) -> StageRun:
    stage_run = StageRun(FilterStage(config), run, {"ingest": None, "filter": config}, [], engine or InlineEngine(), Progress(False))
    stage_run.execute()
    return stage_run
