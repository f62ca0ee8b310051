"""Provides real documents and hard ones, a finished earlier stage, and functions to run one step or the whole stage."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tiny_classifiers import make_classifier

from corpusmill.filters.language import language_model
from corpusmill.filters.stage import FilterStage
from corpusmill.filters.step import DocumentBatch, StepOutput, build_steps, resolve_step
from corpusmill.filters.worker import FilterConfig
from corpusmill.pipeline.engine import Engine, InlineEngine
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import Manifest, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.schemas import DOCUMENTS, document_id
from corpusmill.pipeline.shards import publish
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress

#: Texts that break careless kernels.
HARD_TEXTS = [
    "", " ", "\n", "\n\n\n", " \n \n\n", "a", "-", "...", "…", "#", "\u2028", "\x85\x1c", "\u3000\u3000a\u3000", "\r\n\r\n", "a\r\rb",
    "\na", "a\n", "\na\n", "a\n\na\n\na", "\u3000\n\na\n\n\u00a0", "- a\n• b\n\u3000- c\n*", "a...\nb… \n..", "....", "......", "\0a\0\0b",
    "12 3 4 5 6 7 1 23 4 5 6 7 12 3 4 5 67", "1 2 3 4 5 67 12 3 4 5 6 7", "ab c ab c abc a b c", "x " * 300, "xy\n" * 50,
    "𝒳𝒴 é\u0301 שלום عربي 漢字 かな 😀😀 👩‍👩‍👧", "_ __ a_b _", "a" * 5000, "é" * 2000 + " " + "漢" * 2000, ". ! ? 。 ؟",
    "the be to of and",
]  # fmt: skip


@pytest.fixture(scope="session")
def many_texts(shared_data: Path) -> list[str]:
    """Returns about 750 real documents in 75 languages."""
    texts = [json.loads(line)["text"] for line in (shared_data / "text/c4_demo.jsonl").open()]
    texts += [json.loads(line)["text"] for line in (shared_data / "quality/dclm_human.jsonl").open()]
    wiki = (shared_data / "text/wiki_demo.txt").read_text()
    texts += [wiki[start : start + 8000] for start in range(0, 320_000, 8000)]
    wikitext = (shared_data / "text/wikitext2_valid.txt").read_text()
    texts += [wikitext[start : start + 20000] for start in range(0, 200_000, 20000)]
    for path in sorted((shared_data / "lid").glob("*.txt")):
        lines = path.read_text().splitlines()
        texts += ["\n".join(lines[:20]), "\n\n".join(lines[:3] * 2 + lines[3:9])]
    return texts


@pytest.fixture(scope="session")
def hard_texts() -> list[str]:
    return HARD_TEXTS


@pytest.fixture(scope="session")
def texts(many_texts: list[str]) -> list[str]:
    """Returns every fifth real document, and the hard ones."""
    return many_texts[::5] + HARD_TEXTS


@pytest.fixture(scope="session")
def find_words() -> Callable[[str], list[str]]:
    """Splits by the word rule `words`, slowly: datatrove's filters get it for their tokenizer."""
    return re.compile(r"\w+|[^\w\s]").findall


@pytest.fixture(scope="session")
def lid_model() -> str:
    try:
        return language_model()
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def quality(tmp_path_factory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("quality") / "quality", "quality", {"quality": ["good"]})


@pytest.fixture(scope="session")
def quality_step(quality: Path) -> dict[str, Any]:
    """Makes a step that scores quality and keeps all."""
    return {"classifier": {"model": str(quality), "keep_where": "high", "threshold": 0.0}}


def _measure(name: str, options: dict[str, Any], texts: list[str]) -> tuple[dict[str, list[Any]], list[str]]:
    (step,) = build_steps([resolve_step({name: options})])
    step.step.setup()
    measured: StepOutput = step.step.measure(DocumentBatch(pa.table({}), pa.array(texts, pa.large_string()), "words"))
    columns = {column: pa.array(measured.columns[column], kind).to_pylist() for column, kind in step.columns.items()}
    return columns, texts if measured.text is None else measured.text.to_pylist()


@pytest.fixture(scope="session")
def measure_step() -> Callable[..., tuple[dict[str, list[Any]], list[str]]]:
    """Returns `measure_step(name, options, texts)`: the step's columns as lists, and the texts after it."""
    return _measure


def _make_documents(texts: list[str]) -> pa.Table:
    rows = [
        dict.fromkeys(DOCUMENTS.names)
        | {"id": document_id(f"http://x.test/{n}", text.encode()), "url": f"http://x.test/{n}"}
        | {"source": "crawl.warc.gz", "offset": n, "text": text}
        for n, text in enumerate(texts)
    ]
    return pa.Table.from_pylist(rows, schema=DOCUMENTS)


@pytest.fixture(scope="session")
def make_documents() -> Callable[[list[str]], pa.Table]:
    return _make_documents


@pytest.fixture(scope="session")
def finished_ingest() -> Callable[[Path, list[pa.Table]], Storage]:
    """Makes a run whose stage ingest is finished with these tables."""

    def make(root: Path, shards: list[pa.Table]) -> Storage:
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

    return make


@pytest.fixture(scope="session")
def run_filter() -> Callable[..., StageRun]:
    """Returns `run_filter(run, options)`, which executes the stage on a run."""

    def execute(run: Storage, options: dict[str, Any], engine: Engine | None = None) -> StageRun:
        config = FilterConfig.model_validate(options)
        sections = {"ingest": None, "filter": config}
        stage_run = StageRun(FilterStage(config), run, sections, [], engine or InlineEngine(), Progress(False))
        stage_run.execute()
        return stage_run

    return execute
