"""Makes runs with tokens to export: a real one, and one whose ids need 32 bits."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from token_sets import write_token_set

from corpusmill.pipeline.shards import publish
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import TokenShards
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
    """A run with tokens, and its content by TokenShards."""

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
def real_run(tmp_path_factory, publish_run, make_documents, execute, english, foreign) -> Run:
    """Makes a run of real text in 95 languages and English, a document without a URL and one of a single letter; several shards."""
    table = make_documents([*english[:200], "", *foreign, "a", "".join(english[200:230])])
    urls = table["url"].to_pylist()
    table = table.set_column(1, table.schema.field("url"), pa.array([None, *urls[1:]]))
    run = publish_run([table.slice(0, 90), table.slice(90)], tmp_path_factory.mktemp("export") / "run")
    execute(run, TokenizerStage(TokenizerStage.Config(vocab_size=600)))
    execute(run, TokensStage(TokensStage.Config(shard_tokens=60_000, validation_share=0.1)))
    return Run(run.root)


@pytest.fixture(scope="session")
def wide_run(tmp_path_factory, real_run) -> Run:
    """Makes a run with ids up to 199,999, which need more than 16 bits, in two shards."""
    folder, random = tmp_path_factory.mktemp("wide"), np.random.default_rng(7)
    tokenizer = Path(real_run.folder, "tokenizer", "tokenizer.json").read_bytes()
    sha256 = publish(Storage(str(folder)), "tokenizer/tokenizer.json", tokenizer).sha256
    for split, sizes in (("train", [[3, 1, 70_000], [400, 2]]), ("validation", [[50, 60]])):
        shards = [[np.append(random.integers(4, 200_000, size - 1), 0) for size in documents] for documents in sizes]
        write_token_set(folder / "tokens" / split, shards, 200_000, sha256, split=split)
    return Run(str(folder))


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
