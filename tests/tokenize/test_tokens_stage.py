"""The tokens stage: every token of every document is there once, in an order that depends on ids and the seed alone."""

import json

import numpy as np
import pyarrow as pa
import pytest

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.schemas import REPORT
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.special_tokens import EOT_ID
from corpusmill.pipeline.tokenshards import TokenShards
from corpusmill.tokenize.encode import Encoder
from corpusmill.tokenize.tokenizer_stage import TokenizerStage
from corpusmill.tokenize.tokens_stage import TokensStage


def tokens_stage(**options):
    return TokensStage(TokensStage.Config(**options))


@pytest.fixture
def mill(make_run, execute):
    """Runs both stages over shards of documents and returns the run."""

    def make(shards, name="run", **options):
        run = make_run(shards, name)
        execute(run, TokenizerStage(TokenizerStage.Config(vocabulary_size=600)))
        execute(run, tokens_stage(**options))
        return run

    return make


def splits(run):
    return {split: TokenShards(run.path(f"tokens/{split}")) for split in ("train", "validation")}


def content(run):
    """The documents of both splits in order: id, and its tokens as bytes."""
    found = {}
    for split, shards in splits(run).items():
        shards.verify()
        found[split] = [(a.id, shards.tokens(a.shard)[a.first : a.first + a.tokens].tolist()) for a in shards.documents_of(0, shards.total)]
    return found


def report(run):
    names = sorted(path for path in run.list_files("tokens/report"))
    return pa.concat_tables(read_table(run, name) for name in names)


@pytest.fixture
def documents(make_documents, english, foreign):
    return make_documents(["", *english[:150], *foreign[:20], "", "<|endoftext|> is text here"])


def test_every_token_of_every_document_is_there_once(mill, documents):
    run = mill([documents.slice(0, 70), documents.slice(70)], shard_tokens=20_000, validation_share=0.1)
    encoder = Encoder.read(run, "tokenizer/tokenizer.json")
    found = content(run)
    wanted = {
        name: [*encoder.encode(text), EOT_ID] for name, text in zip(documents["id"].to_pylist(), documents["text"].to_pylist()) if text
    }
    both = found["train"] + found["validation"]
    assert len(both) == len(wanted) and dict(both) == wanted
    assert 5 <= len(found["validation"]) <= 30
    assert [name for name, _ in both] != list(wanted)
    sizes = [shard.tokens for shard in splits(run)["train"].shards]
    assert len(sizes) > 2 and max(sizes) - min(sizes) < 4_000
    assert {shards.description.tokenizer_sha256 for shards in splits(run).values()} == {encoder.sha256}


def test_every_token_leads_to_its_text(mill, documents):
    run = mill([documents.slice(0, 70), documents.slice(70)], shard_tokens=30_000)
    shards = splits(run)["train"]
    decode = Encoder.read(run, "tokenizer/tokenizer.json").tokenizer.decode
    for position in np.linspace(0, shards.total - 1, 40, dtype=int).tolist():
        found = shards.locate(*shards.shard_of(position))
        row = read_table(run, found.data_file).slice(found.data_row, 1).to_pylist()[0]
        ids = shards.tokens(found.shard)[found.first : found.first + found.tokens - 1]
        assert decode(ids.tolist(), skip_special_tokens=False) == row["text"]
        assert found.utf8_bytes == len(row["text"].encode())
        assert [getattr(found, name) for name in ("id", "url", "source", "offset", "length")] == [
            row[name] for name in ("id", "url", "source", "offset", "length")
        ]


def test_one_report_row_for_every_document(mill, documents):
    run = mill([documents.slice(0, 70), documents.slice(70)], shard_tokens=20_000, validation_share=0.1)
    table = report(run)
    assert table.schema.names[: len(REPORT)] == REPORT.names
    rows = {row["id"]: row for row in table.to_pylist()}
    assert table.num_rows == documents.num_rows == len(rows)
    index = {split: {a.id: a for a in shards.documents_of(0, shards.total)} for split, shards in splits(run).items()}
    for name, url, text in zip(*(documents[column].to_pylist() for column in ("id", "url", "text"))):
        row = rows[name]
        assert (row["url"], row["kept"], row["failed"]) == (url, bool(text), [] if text else ["empty"])
        assert (row["chars_in"], row["chars_out"], row["utf8_bytes"]) == (len(text), len(text), len(text.encode()))
        if text:
            found = index[row["split"]][name]
            assert (row["shard"], row["first"], row["tokens"]) == (found.shard, found.first, found.tokens)
        else:
            assert (row["split"], row["shard"], row["first"], row["tokens"]) == (None, None, None, 0)


def token_files(run):
    """All tokens; indexes say which data file each document is from, so they differ where the layout does."""
    return {path: run.read_bytes(path) for path in run.list_files("tokens") if path.endswith(".bin") and "encoded" not in path}


def test_layout_of_the_documents_plays_no_part(mill, documents):
    backwards = documents.take(list(range(documents.num_rows - 1, -1, -1)))
    one = mill([documents], "one", shard_tokens=20_000, validation_share=0.1)
    many = mill(
        [backwards.slice(0, 3), backwards.slice(0, 0), backwards.slice(3, 90), backwards.slice(93)],
        "many",
        shard_tokens=20_000,
        validation_share=0.1,
    )
    assert token_files(one) == token_files(many)
    assert report(one).equals(report(many))


def test_the_seed_decides_order_and_split(mill, documents):
    found = [content(mill([documents], f"run{n}", seed=seed, validation_share=0.1)) for n, seed in enumerate((0, 0, 1))]
    assert found[0] == found[1] != found[2]
    assert {name for name, _ in found[0]["validation"]} != {name for name, _ in found[2]["validation"]}


def test_unshuffled_documents_stay_in_the_order_of_their_files(mill, documents):
    run = mill([documents.slice(0, 70), documents.slice(70)], shuffle=False, validation_share=0, shard_tokens=20_000)
    found = content(run)
    assert [name for name, _ in found["train"]] == [n for n, text in zip(*(documents[c].to_pylist() for c in ("id", "text"))) if text]
    assert found["validation"] == [] and len(splits(run)["train"].shards) > 2


def test_no_cluster_of_duplicates_lies_in_both_splits(mill, make_documents, english):
    clusters = [f"c{n % 40}" if n % 3 else None for n in range(150)]
    table = make_documents(english[:150], kept_id=clusters)
    found = content(mill([table], validation_share=0.3))
    split_of = {name: split for split, documents in found.items() for name, _ in documents}
    by_cluster = {}
    for name, cluster in zip(table["id"].to_pylist(), clusters):
        by_cluster.setdefault(cluster or name, set()).add(split_of[name])
    assert all(len(found) == 1 for found in by_cluster.values())
    assert {"train", "validation"} == set(split_of.values())


def test_two_documents_give_one_for_validation(mill, make_documents, english):
    found = content(mill([make_documents(["".join(english[:30]), "A short one."])], validation_share=0.001))
    assert [len(documents) for documents in found.values()] == [1, 1]


def test_equal_ids_are_both_there(mill, documents):
    found = content(mill([documents, documents.slice(10, 20)]))
    assert sum(map(len, found.values())) == documents.num_rows - 2 + 20


def test_finished_work_is_not_done_again_and_lost_work_is_done_with_equal_bytes(mill, documents, execute):
    run = mill([documents.slice(0, 70), documents.slice(70)], shard_tokens=20_000)
    options = {"shard_tokens": 20_000}
    files = {path: run.read_bytes(path) for path in run.list_files("tokens") if not path.endswith("manifest.jsonl")}
    assert execute(run, tokens_stage(**options)).performed == 0
    run.remove("tokens/train/tokens-00001.bin")
    run.remove("tokens/encoded/encode-00001.parquet")
    assert execute(run, tokens_stage(**options)).performed == 2
    assert {path: run.read_bytes(path) for path in run.list_files("tokens") if not path.endswith("manifest.jsonl")} == files


def test_plan_is_stated(mill, documents):
    run = mill([documents], validation_share=0.1)
    plan = json.loads(run.read_bytes("tokens/plan.json"))
    assert (plan["dtype"], plan["vocabulary_size"], plan["parts"]) == ("uint16", 600, ["encoded/encode-00000"])


def test_documents_without_text_are_refused(mill, make_run, make_documents, execute, english):
    run = mill([make_documents(english[:30])])
    empty = make_run([make_documents(["", ""])], "empty")
    for name in ("tokenizer.json", "manifest.jsonl"):
        empty.write_bytes(f"tokenizer/{name}", run.read_bytes(f"tokenizer/{name}"))
    with pytest.raises(InputError, match="hold no text"):
        execute(empty, tokens_stage())


def test_without_a_finished_tokenizer_there_is_one_sentence(make_run, make_documents, execute):
    with pytest.raises(InputError, match="the stage tokenizer is not finished"):
        execute(make_run([make_documents(["x"])]), tokens_stage())
