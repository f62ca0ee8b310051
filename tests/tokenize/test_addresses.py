"""Tests addresses in sets of several runs, and of documents that a mixture repeats or leaves out."""

from collections.abc import Iterator
from typing import Any

import pytest

from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import TokenShards, split_folders
from corpusmill.report.tokens.trace import trace
from corpusmill.report.tokens.verify import verify
from corpusmill.tokenize.append import append
from corpusmill.tokenize.tokenizer_stage import TokenizerStage
from corpusmill.tokenize.tokens_stage import TokensStage


def placed(folder: str) -> Iterator[dict[str, Any]]:
    """Yields the row of each document in the indexes of a run's or a set's shards, with its split and shard."""
    root = Storage(folder)
    for split, path in split_folders(root).items():
        shards = TokenShards(root.path(path))
        for number in range(len(shards.shards)):
            yield from (row | {"split": split, "shard": number} for row in shards.index(number).to_pylist())


def tokenized(run, execute, **options):
    execute(run, TokenizerStage(TokenizerStage.Config(**options)))
    execute(run, TokensStage(TokensStage.Config(shard_tokens=8_000, validation_share=0.1, pack_lengths=[256])))
    return run


@pytest.fixture(scope="module")
def folders(tmp_path_factory, publish_run, make_documents, execute, english, foreign):
    """Returns a set to which two runs were appended, and the folder of the second."""
    folder = tmp_path_factory.mktemp("sets")
    table = make_documents([*english[:40], *foreign[:20]])
    first = tokenized(publish_run([table.slice(0, 30)], folder / "first"), execute, vocab_size=600)
    file = first.path("tokenizer/tokenizer.json")
    second = tokenized(publish_run([table.slice(30)], folder / "second"), execute, vocab_size=32_768, file=file)
    for run in (first, second):
        append(str(folder / "set"), run.root)
    return folder / "set", folder / "second"


def test_a_set_leads_to_the_documents_of_the_runs_that_were_appended(folders, english, foreign, corpusmill):
    folder, _ = folders
    for text, run in ((english[3], "first"), (foreign[7], "second")):
        places = [row for row in placed(str(folder)) if row["utf8_bytes"] == len(text.encode())]
        found = [(row, trace(str(folder), row["shard"], row["first"] + 40, row["split"])) for row in places]
        row, traced = next((row, one) for row, one in found if one.around and text.startswith(one.around.before[:200]))
        assert traced.notes == [] and traced.document.id == row["id"] and traced.run.endswith(f"/{run}")
        assert text.encode()[traced.around.first :].startswith(traced.around.raw)
    code, out, _ = corpusmill("trace", folder, "--shard", row["shard"], "--token", row["first"], "--split", row["split"])
    assert code == 0 and b"second" not in out.split(b"URL")[0]


def test_a_set_is_verified_with_the_texts_of_its_runs(folders, tmp_path):
    folder, second = folders
    checks = verify(str(folder), every=True)
    assert [(check.faults, check.notes) for check in checks] == [([], [])] * 2
    assert sum(check.compared for check in checks) == sum(check.documents for check in checks) == 60
    (check,) = verify(str(folder / "train"), every=True)
    assert check.compared == check.documents and not check.faults
    away = second.rename(second.with_name("away"))
    faults = [sentence for check in verify(str(folder)) for sentence in check.faults]
    away.rename(second)
    assert faults and all("second" in sentence and "no such file" in sentence for sentence in faults)


def test_documents_that_a_mixture_repeats_or_leaves_out(make_run, make_documents, execute, english):
    """Every copy has its address, with its number; a document that no component takes is in no shard."""
    texts = [f"{text} unmistakable{number}." for number, text in enumerate(english[:40])]
    documents = make_documents(texts, language=["en"] * 30 + ["xx"] * 10)
    run = make_run([documents])
    execute(run, TokenizerStage(TokenizerStage.Config(vocab_size=600)))
    component = {"name": "english", "where": {"language": "en"}, "weight": 1, "max_epochs": 3}
    mixture = {"budget_tokens": 10_000_000, "components": [component]}
    execute(run, TokensStage(TokensStage.Config(shard_tokens=8_000, validation_share=0.1, mixture=mixture)))
    rows = list(placed(run.root))
    for number, id_ in enumerate(documents["id"].to_pylist()):
        places = [row for row in rows if row["id"] == id_]
        held_out = any(place["split"] == "validation" for place in places)
        assert sorted(place["copy"] for place in places) == ([] if number >= 30 else [0] if held_out else [0, 1, 2])
        for place in places:
            traced = trace(run.root, place["shard"], place["first"], place["split"])
            assert traced.document.copy == place["copy"] and traced.document.id == id_ and traced.notes == []
            assert texts[number].encode().startswith(traced.around.raw)
    assert [check.faults for check in verify(run.root, every=True)] == [[], []]
