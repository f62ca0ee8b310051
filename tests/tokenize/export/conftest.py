"""Runs with tokens to export: a real one, and one whose ids need 32 bits."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from corpusmill.pipeline.shards import publish
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.tokenshards import INDEX, SHARDS_FILE, Shard, ShardSet, TokenShards, shard_contents, shard_names, token_dtype
from corpusmill.tokenize.export.export import SPLITS, export
from corpusmill.tokenize.tokenizer_stage import TokenizerStage
from corpusmill.tokenize.tokens_stage import TokensStage


@dataclass(frozen=True)
class Document:
    id: str
    url: str | None
    shard: int
    first: int
    ids: npt.NDArray[Any]


@dataclass(frozen=True)
class Run:
    """A run with tokens, and what TokenShards finds in it."""

    folder: str

    def shards(self, split: str) -> TokenShards:
        return TokenShards(f"{self.folder}/tokens/{split}")

    def documents(self, split: str) -> list[Document]:
        shards = self.shards(split)
        return [
            Document(a.id, a.url, a.shard, a.first, shards.tokens(a.shard)[a.first : a.first + a.tokens])
            for a in shards.documents_of(0, shards.total)
        ]

    def stream(self, split: str) -> npt.NDArray[Any]:
        shards = self.shards(split)
        return shards.window(0, shards.total)

    def vocabulary_size(self) -> int:
        return self.shards("train").description.vocabulary_size


@pytest.fixture(scope="session")
def real_run(tmp_path_factory, publish_documents, make_documents, execute, english, foreign) -> Run:
    """Real text in 95 languages and English, a document without a URL and one of a single letter; several shards."""
    run = Storage(str(tmp_path_factory.mktemp("export") / "run"))
    table = make_documents([*english[:200], "", *foreign, "a", "".join(english[200:230])])
    urls = table["url"].to_pylist()
    table = table.set_column(1, table.schema.field("url"), pa.array([None, *urls[1:]]))
    publish_documents(run, [table.slice(0, 90), table.slice(90)])
    execute(run, TokenizerStage(TokenizerStage.Config(vocabulary_size=600)))
    execute(run, TokensStage(TokensStage.Config(shard_tokens=60_000, validation_share=0.1)))
    return Run(run.root)


def write_shards(folder: Path, split: str, shards: list[list[npt.NDArray[Any]]], vocabulary_size: int, tokenizer_sha256: str) -> None:
    """Token shards with these documents."""
    storage, written = Storage(str(folder)), []
    for number, documents in enumerate(shards):
        counts = np.array([len(ids) for ids in documents])
        rows = len(documents)
        columns = {
            "id": [f"{split}-{number}-{row}" for row in range(rows)],
            "first": np.cumsum(counts) - counts,
            "tokens": counts,
            "utf8_bytes": 4 * counts,
            "url": [f"http://site.test/{number}/{row}" for row in range(rows)],
            **{name: [None] * rows for name in ("source", "offset", "length")},
            "data_file": ["ingest/data/part-00000.parquet"] * rows,
            "data_row": range(rows),
            "copy": [0] * rows,
            "cluster_id": [None] * rows,
        }
        tokens = np.concatenate(documents).astype(token_dtype(vocabulary_size))
        contents = shard_contents(number, tokens, pa.table(columns).cast(INDEX))
        files = {name: publish(storage, name, content) for name, content in contents.items()}
        file, index = shard_names(number)
        written.append(Shard(file, index, len(tokens), rows, int(4 * counts.sum()), files[file].sha256, files[index].sha256))
    description = ShardSet(token_dtype(vocabulary_size).name, vocabulary_size, tokenizer_sha256, split, tuple(written), 0)
    storage.write_bytes(SHARDS_FILE, description.to_json())


@pytest.fixture(scope="session")
def wide_run(tmp_path_factory, real_run) -> Run:
    """Ids up to 199,999, which 16 bits don't hold, in two shards."""
    folder, random = tmp_path_factory.mktemp("wide"), np.random.default_rng(7)
    tokenizer = Path(real_run.folder, "tokenizer", "tokenizer.json").read_bytes()
    sha256 = publish(Storage(str(folder)), "tokenizer/tokenizer.json", tokenizer).sha256
    for split, sizes in (("train", [[3, 1, 70_000], [400, 2]]), ("validation", [[50, 60]])):
        shards = [[np.append(random.integers(4, 200_000, size - 1), 0) for size in documents] for documents in sizes]
        write_shards(folder / "tokens" / split, split, shards, 200_000, sha256)
    return Run(str(folder))


@pytest.fixture(scope="session")
def make_shards() -> Callable[..., None]:
    return write_shards


@pytest.fixture(params=["16 bits", "32 bits"])
def any_run(request, real_run, wide_run) -> Run:
    return real_run if request.param == "16 bits" else wide_run


@pytest.fixture
def exported(tmp_path) -> Callable[..., Path]:
    """Exports a run and returns the folder."""

    def make(run: Run, format_name: str, name: str = "out", splits: tuple[str, ...] = SPLITS, **options: Any) -> Path:
        export(run.folder, format_name, str(tmp_path / name), splits, **options)
        return tmp_path / name

    return make
