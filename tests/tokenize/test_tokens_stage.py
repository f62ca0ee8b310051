"""Tests the tokens stage: every token of every document once, in an order that depends on ids and the seed alone."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from token_runs import content, report, splits, tokens_stage

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.schemas import REPORT
from corpusmill.pipeline.special_tokens import EOT_ID
from corpusmill.tokenize.encode import Encoder

OPTIONS = {"shard_tokens": 20_000, "validation_share": 0.1}


@pytest.fixture(scope="module")
def run(shared_mill, documents):
    return shared_mill([documents.slice(0, 70), documents.slice(70)], **OPTIONS)


def test_every_token_of_every_document_is_there_once(run, documents):
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


def test_one_report_row_for_every_document(run, documents):
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
            assert (row["shards"], row["copies"], row["tokens"]) == ([found.shard], 1, found.tokens)
        else:
            assert (row["split"], row["shards"], row["copies"], row["tokens"]) == (None, [], 0, 0)
    assert table["id"].to_pylist() == documents["id"].to_pylist() and set(table["component"].to_pylist()) == {None}


def test_the_seed_decides_order_and_split(run, copy_of, execute):
    other = copy_of(run)
    execute(other, tokens_stage(**OPTIONS, seed=1))
    one, two = content(run), content(other)
    assert [sorted(name for name, _ in found["train"]) for found in (one, two)] != [sorted(name for name, _ in one["train"])] * 2
    orders = [[name for name, _ in found["train"]] for found in (one, two)]
    both = set(orders[0]) & set(orders[1])
    assert len(both) > 50 and [name for name in orders[0] if name in both] != [name for name in orders[1] if name in both]


def test_unshuffled_documents_stay_in_the_order_of_their_files(run, copy_of, execute, documents):
    run = copy_of(run)
    execute(run, tokens_stage(shuffle=False, validation_share=0, shard_tokens=20_000))
    found = content(run)
    assert [name for name, _ in found["train"]] == [n for n, text in zip(*(documents[c].to_pylist() for c in ("id", "text"))) if text]
    assert found["validation"] == [] and len(splits(run)["train"].shards) > 2


def test_the_index_names_the_language_where_documents_have_one(mill, make_documents, english):
    languages = ["en", "de", None] * 10
    table = make_documents(english[:30], language=languages)
    found = {}
    for shards in splits(mill([table])).values():
        found |= {address.id: address.language for address in shards.documents_of(0, shards.total)}
    assert found == {name: language for name, language, text in zip(*(table[c].to_pylist() for c in ("id", "language", "text"))) if text}


def test_finished_work_is_not_done_again_and_lost_work_is_done_with_equal_bytes(run, copy_of, execute):
    run = copy_of(run)
    files = {path: run.read_bytes(path) for path in run.list_files("tokens") if not path.endswith("manifest.jsonl")}
    assert execute(run, tokens_stage(**OPTIONS)).performed == 0
    run.remove("tokens/train/tokens-00001.bin")
    run.remove("tokens/encoded/ingest-1.arrow")
    run.remove("tokens/places/ingest-0.arrow")
    run.remove("tokens/report/ingest-1.parquet")
    assert execute(run, tokens_stage(**OPTIONS)).performed == 4
    assert {path: run.read_bytes(path) for path in run.list_files("tokens") if not path.endswith("manifest.jsonl")} == files


def test_shards_are_packed_by_plan(run, copy_of, execute):
    run = copy_of(run)
    files = {path: run.read_bytes(path) for path in run.list_files("tokens") if path.endswith((".bin", ".parquet"))}
    stage_run = execute(run, tokens_stage(**OPTIONS, pack_lengths=[256, 64]))
    shards = splits(run)
    assert stage_run.performed == 2 * sum(len(found.shards) for found in shards.values()) + 1  # the plans, and shards.json
    assert {path: run.read_bytes(path) for path in files} == files
    for found in shards.values():
        found.verify()
        for packing in found.description.packing():
            rows = sum(check_plan(found, number, packing["length"]) for number in range(len(found.shards)))
            assert packing["rows"] == rows and packing["waste"] == pytest.approx(1 - found.total / (rows * packing["length"]))
    told = stage_run.stage.summary(stage_run)["train packed"]
    assert "rows of 64, " in told and "rows of 256, " in told and told.endswith("% of their places empty")
    assert execute(run, tokens_stage(**OPTIONS, pack_lengths=[64])).performed == 1  # shards.json without the other
    assert not [path for path in run.list_files("tokens") if "pack-256" in path]
    with pytest.raises(ValueError, match="greater than or equal to 8"):
        tokens_stage(pack_lengths=[4])


def check_plan(shards, number, length):
    """Checks that every token of a shard is in one piece, no piece spans two documents, no row is too long; returns the rows."""
    plan, shard = shards.plan(number, length), shards.shards[number]
    order = np.argsort(plan.first)
    assert np.array_equal(np.cumsum(plan.tokens[order]), [*plan.first[order][1:], shard.tokens])
    firsts = shards.index(number)["first"].to_numpy()
    assert np.array_equal(*(np.searchsorted(firsts, place, "right") for place in (plan.first, plan.first + plan.tokens - 1)))
    sizes = np.bincount(plan.row, plan.tokens)
    assert sizes.max() <= length and len(sizes) == shard.plan(length).rows
    return len(sizes)


@pytest.mark.parametrize(("texts", "sentence"), [([["", ""]], "hold no text"), ([], "left no shard of documents")])
def test_documents_without_text_are_refused(run, make_run, make_documents, execute, texts, sentence):
    empty = make_run([make_documents(shard) for shard in texts], "empty")
    for name in ("tokenizer.json", "manifest.jsonl"):
        empty.write_bytes(f"tokenizer/{name}", run.read_bytes(f"tokenizer/{name}"))
    with pytest.raises(InputError, match=sentence):
        execute(empty, tokens_stage())


def test_a_document_once_more_in_the_crawl_lies_behind_itself(mill, documents):
    """Equal ids have one place in the order; their place in the crawl decides."""
    again = documents.slice(10, 20)
    moved = again.set_column(4, again.schema.field("offset"), pa.array(range(5, 25)))
    one = mill([documents, moved], "one")
    two = mill([moved, documents.slice(100), documents.slice(0, 100)], "two")
    assert content(one) == content(two) and sum(map(len, content(one).values())) == documents.num_rows - 2 + 20
    for shards in splits(two).values():
        rows = [(row["id"], row["offset"]) for n in range(len(shards.shards)) for row in shards.index(n).to_pylist()]
        pairs = [(a, b) for a, b in pairwise(rows) if a[0] == b[0]]
        assert all(a[1] < b[1] for a, b in pairs)
    assert sum(len({row["id"] for row in shards.index(0).to_pylist()}) for shards in splits(two).values()) == documents.num_rows - 2
