"""Tests that similar documents which dedup keeps are all in training or all in validation."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dedup_runs import words

from corpusmill import cli
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.tokenize.parts import DocumentOrder
from corpusmill.tokenize.planning import for_validation, validation_limit

RECIPE = """
ingest: {}
dedup: {max_cluster: 3, alarm: warn}
tokenizer: {vocab_size: 512}
tokens: {validation_share: 0.3}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes 20 families of 8 near copies, of which `max_cluster` removes 4, and 40 pages unlike any other; up to the tokens."""
    folder = tmp_path_factory.mktemp("clusters")
    texts = [" ".join([*words(80, family), *(f"m{i}" for i in range(8 - step))]) for family in range(20) for step in range(8)]
    texts += [" ".join(words(80, 100 + n)) for n in range(40)]
    random.Random(0).shuffle(texts)
    rows = [json.dumps({"text": text, "url": f"http://site.test/{n}"}) for n, text in enumerate(texts)]
    (folder / "one.jsonl").write_text("\n".join(rows[:100]) + "\n")
    (folder / "two.jsonl").write_text("\n".join(rows[100:]) + "\n")
    (folder / "recipe.yaml").write_text(RECIPE)
    command(["run", str(folder / "recipe.yaml"), str(folder), "--output", str(folder / "run"), "--engine", "inline"])
    return folder / "run"


def command(arguments: list[str]) -> None:
    cli.app(arguments, standalone_mode=False)


def stayed(run: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path, columns=["id", "cluster_id"]) for path in sorted((run / "dedup/data").glob("*.parquet")))


def sides(run: Path) -> dict[str, set[str]]:
    """Returns the splits of each cluster, or of each document without a cluster, by the shards."""
    found: dict[str, set[str]] = {}
    for split in ("train", "validation"):
        shards = TokenShards(run / "tokens" / split)
        for address in shards.documents_of(0, shards.total):
            found.setdefault(address.cluster_id or address.id, set()).add(split)
    return found


@pytest.mark.parametrize("seed", range(2))
def test_none_of_them_crosses_the_split(run: Path, seed: int) -> None:
    command(["run", str(run), "--from", "tokens", "--to", "tokens", "--engine", "inline", "--set", f"tokens.seed={seed}", "--redo"])
    found = sides(run)
    assert len(found) == 60 and all(len(splits) == 1 for splits in found.values())
    assert {split for splits in found.values() for split in splits} == {"train", "validation"}


def test_none_of_them_would_with_any_seed(run: Path) -> None:
    documents = stayed(run)
    names = [cluster or name for name, cluster in zip(*(documents[c].to_pylist() for c in ("id", "cluster_id")), strict=True)]
    crossed = 0
    for seed in range(300):
        ordering = DocumentOrder(seed, True)
        groups = ordering.groups(documents)
        split = for_validation(groups, validation_limit([groups], 0.3)).tolist()
        assert len(set(zip(names, split, strict=True))) == len(set(names))
        alone = ordering.groups(documents.set_column(1, "cluster_id", pa.nulls(len(documents), pa.string())))
        crossed += len(set(zip(names, for_validation(alone, validation_limit([alone], 0.3)).tolist(), strict=True))) > len(set(names))
    assert crossed > 290  # by their ids alone
