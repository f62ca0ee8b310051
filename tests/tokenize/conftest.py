"""Makes runs with finished documents, for the stages of tokenization."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from stage_runs import finish, perform
from token_runs import tokens_stage

from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.schemas import DOCUMENTS, document_id
from corpusmill.pipeline.stage import Stage
from corpusmill.pipeline.storage import Storage
from corpusmill.tokenize.tokenizer_stage import TokenizerStage


def make_documents(texts: Sequence[str], **columns: Sequence[Any]) -> pa.Table:
    """Makes documents as `ingest` writes them, each with its own URL and place; `columns` are appended by later stages."""
    size = len(texts)
    table = pa.table(
        {
            "id": [document_id(f"http://site.test/{n}", text.encode()) for n, text in enumerate(texts)],
            "url": [f"http://site.test/{n}" for n in range(size)],
            "timestamp": [None] * size,
            "source": ["crawl.warc.gz"] * size,
            "offset": [1000 * n for n in range(size)],
            "length": [900] * size,
            "text": list(texts),
            **{name: [None] * size for name in ("title", "author", "date", "canonical_url", "metadata")},
        }
    ).cast(DOCUMENTS)
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    return table


def publish_documents(folder: Path, shards: Sequence[pa.Table]) -> Storage:
    """Makes a run with a finished `ingest` stage with these shards."""
    tasks = {f"ingest-{number}": {f"data/ingest-{number}.parquet": table} for number, table in enumerate(shards)}
    return finish(Storage(str(folder)), "ingest", tasks)


def execute(run: Storage, stage: Stage) -> StageRun:
    return perform(run, stage, earlier=("ingest", "tokenizer", "tokens"))


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Storage]:
    """Makes a run with documents: `make_run(shards, name="run")`."""
    return lambda shards, name="run": publish_documents(tmp_path / name, shards)


@pytest.fixture(scope="session")
def publish_run() -> Callable[[Sequence[pa.Table], Path], Storage]:
    """Makes a run with documents in a folder, for fixtures that live longer than a test."""
    return lambda shards, folder: publish_documents(folder, shards)


@pytest.fixture(name="make_documents", scope="session")
def make_documents_fixture() -> Callable[..., pa.Table]:
    return make_documents


@pytest.fixture(name="execute", scope="session")
def execute_fixture() -> Callable[[Storage, Stage], StageRun]:
    return execute


@pytest.fixture(scope="session")
def english(shared_data: Path) -> list[str]:
    """Returns real text (Wikipedia, WikiText, tiny Shakespeare) in documents of about 2,000 characters: 0.6 MB."""
    texts = []
    for name in ("wiki_demo.txt", "wikitext2_valid.txt", "tinyshakespeare.txt"):
        text = (shared_data / "text" / name).read_text()[:200_000]
        texts += [text[start : start + 2000] for start in range(0, len(text), 2000)]
    return texts


@pytest.fixture(scope="session")
def foreign(shared_data: Path) -> list[str]:
    """Returns a few sentences in each of 75 languages."""
    return [path.read_text()[:2000] for path in sorted((shared_data / "lid").glob("*.txt"))]


@pytest.fixture(scope="session")
def tokenizers_by_pattern(english: list[str], foreign: list[str]) -> Callable[[str], bytes]:
    """Returns `tokenizer.json` of 2,000 tokens for a pattern, trained by this project on real text."""
    from corpusmill.tokenize.bpe_train import train_bpe
    from corpusmill.tokenize.patterns import PATTERNS
    from corpusmill.tokenize.words import WordCounts

    made: dict[str, bytes] = {}

    def make(pattern: str) -> bytes:
        if pattern not in made:
            counts = WordCounts()
            counts.add_texts(pa.array(english[::5] + foreign, pa.large_string()), None, PATTERNS[pattern])
            made[pattern] = train_bpe(counts.tables()[0], 2000, 1, PATTERNS[pattern]).to_str().encode()
        return made[pattern]

    return make


def mill_in(parent: Path) -> Callable[..., Storage]:
    """Returns `mill(shards, name="run", **options of tokens)`: it runs tokenizer and tokens over shards of documents, in a new run."""

    def make(shards: Sequence[pa.Table], name: str = "run", **options: Any) -> Storage:
        run = publish_documents(parent / name, shards)
        execute(run, TokenizerStage(TokenizerStage.Config(vocab_size=600)))
        execute(run, tokens_stage(**options))
        return run

    return make


@pytest.fixture
def mill(tmp_path: Path) -> Callable[..., Storage]:
    return mill_in(tmp_path)


@pytest.fixture(scope="module")
def shared_mill(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Storage]:
    """Returns the same function, for runs that several tests read."""
    return mill_in(tmp_path_factory.mktemp("mill"))


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Storage], Storage]:
    """Copies a run, so that a test may change it."""
    return lambda run: Storage(str(shutil.copytree(run.root, tmp_path / f"copy of {Path(run.root).name}")))


@pytest.fixture(scope="session")
def documents(english: list[str], foreign: list[str]) -> pa.Table:
    return make_documents(["", *english[:150], *foreign[:20], "", "<|endoftext|> is text here"])
