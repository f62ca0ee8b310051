"""Tests the verification of token shards: no finding on the stage's output, and one sentence for each fault."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpusmill.pipeline.shards import in_parquet
from corpusmill.report.tokens.verify import verify
from corpusmill.tokenize.tokenizer_stage import TokenizerStage
from corpusmill.tokenize.tokens_stage import TokensStage


@pytest.fixture(scope="module")
def made(tmp_path_factory, publish_run, make_documents, execute, english, foreign):
    table = make_documents([*english[:80], "", *foreign[:30]])
    run = publish_run([table.slice(0, 50), table.slice(50)], tmp_path_factory.mktemp("verify") / "run")
    execute(run, TokenizerStage(TokenizerStage.Config(vocab_size=700)))
    execute(run, TokensStage(TokensStage.Config(shard_tokens=20_000, validation_share=0.1)))
    return Path(run.root)


@pytest.fixture
def run(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "run"))


def faults(target, **options):
    return [sentence for check in verify(str(target), **options) for sentence in check.faults]


def forge(folder, number=0, tokens=None, index=None):
    """Writes other tokens or another index for a shard, with matching hashes: only the content is wrong."""
    path = folder / "shards.json"
    described = json.loads(path.read_text())
    shard = described["shards"][number]
    if tokens is not None:
        tokens.tofile(folder / shard["file"])
        shard["sha256"] = hashlib.sha256((folder / shard["file"]).read_bytes()).hexdigest()
    if index is not None:
        (folder / shard["index"]).write_bytes(in_parquet(index))
        shard["index_sha256"] = hashlib.sha256((folder / shard["index"]).read_bytes()).hexdigest()
    path.write_text(json.dumps(described))


def test_what_the_stage_wrote_is_right(made):
    train, validation = verify(str(made), every=True)
    assert train.faults == validation.faults == train.notes == []
    assert (train.compared + validation.compared, train.documents + validation.documents) == (110, 110) and train.shards > 1
    sampled = verify(str(made), sample=3)
    assert [check.compared for check in sampled] == [3 * train.shards, 3 * validation.shards] and not faults(made, sample=0)


def test_one_folder_of_a_run_and_one_that_was_copied_away(made, tmp_path):
    (check,) = verify(f"{made}/tokens/train", every=True)
    assert check.compared == check.documents and not check.notes
    shutil.copytree(made / "tokens/train", tmp_path / "a/b/train")
    (check,) = verify(str(tmp_path / "a/b/train"))
    assert check.compared == 0 and not check.faults and "no tokenizer beside these shards" in check.notes[0]


def test_files_that_are_not_those_that_were_written(run):
    folder = run / "tokens/train"
    shard = folder / "tokens-00000.bin"
    content = shard.read_bytes()
    shard.write_bytes(content[:-10])
    (folder / "tokens-00001.index.parquet").unlink()
    found = faults(run)
    assert len(found) == 2
    assert re.fullmatch(
        rf".*train/tokens-00000.bin: this token shard is cut short \({len(content) - 10} bytes, .* says {len(content)}\)\.", found[0]
    )
    assert found[1].endswith("tokens-00001.index.parquet: this index is missing.")
    shard.write_bytes(content + b"\0\0")
    assert "is too long" in faults(run)[0]
    shard.write_bytes(content[:-1] + b"\1")
    assert faults(run)[0].endswith("tokens-00000.bin: this token shard is not the one that was written (its sha256 differs).")
    shard.unlink()
    assert "this token shard is missing" in faults(run)[0]
    (folder / "shards.json").write_text("{}")
    assert "shards.json: not a description of token shards" in faults(run)[0]


@pytest.fixture
def first(run):
    """Returns the folder, tokens and index of a run's first shard."""
    folder = run / "tokens/train"
    return folder, np.fromfile(folder / "tokens-00000.bin", "<u2"), pq.read_table(folder / "tokens-00000.index.parquet")


@pytest.mark.parametrize(
    ("place", "token", "sentence"),
    [
        ("inside", 700, r"token \d+ is 700, beyond the vocabulary of 700\."),
        ("inside", 2, r"token \d+ is the special token 2 inside a document\."),
        ("end", 300, r"the document that ends with token \d+ ends with 300, not with END_OF_TEXT\."),
    ],
)
def test_tokens_that_can_not_be(run, first, place, token, sentence, monkeypatch):
    from corpusmill.report.tokens import verify as module

    monkeypatch.setattr(module, "STRETCH", 1000)
    folder, tokens, index = first
    row = index.num_rows // 2
    at = index["first"][row].as_py() + (3 if place == "inside" else index["tokens"][row].as_py() - 1)
    tokens[at] = token
    forge(folder, tokens=tokens)
    (found,) = faults(run, sample=0)
    assert re.search(sentence, found) and str(at) in found and "tokens-00000.bin" in found


def test_tokens_of_another_text(run, first):
    folder, tokens, index = first
    row = index.num_rows // 2
    at = index["first"][row].as_py() + 3
    tokens[at] = 300 if tokens[at] != 300 else 301
    forge(folder, tokens=tokens)
    (found,) = faults(run, every=True)
    name, number = index["data_file"][row].as_py(), index["data_row"][row].as_py()
    assert re.search(rf"tokens \d+ to \d+ are not the text of {name}, row {number}\.", found)


def test_an_index_that_does_not_fit(run, first):
    folder, _, index = first
    forge(folder, index=index.slice(1))
    assert "does not cover" in faults(run)[0]
    forge(folder, index=index.set_column(1, index.schema.field("first"), pa.array(index["first"].to_numpy() + 1)))
    assert "does not cover" in faults(run)[0]
    forge(folder, index=index.drop_columns(["url"]))
    assert "not an index of token shards" in faults(run)[0]
    rows = index["data_row"].to_numpy() + 1000
    forge(folder, index=index.set_column(index.schema.get_field_index("data_row"), index.schema.field("data_row"), pa.array(rows)))
    assert re.search(r"ingest-\d\.parquet: it has no row 10\d\d\.", faults(run)[0])


def test_another_tokenizer_or_none(run):
    path = run / "tokenizer/tokenizer.json"
    path.write_text(path.read_text() + " ")
    assert all("made by another tokenizer" in sentence for sentence in faults(run)) and len(faults(run)) == 2
    path.write_text("{}")
    assert "not a byte-level BPE tokenizer" in faults(run)[0]
    path.unlink()
    assert not faults(run) and "no tokenizer beside" in verify(str(run))[0].notes[0]


def test_documents_that_are_damaged_behind_an_intact_footer(run):
    path = run / "ingest/data/ingest-1.parquet"
    content = bytearray(path.read_bytes())
    content[4 : len(content) - 8000] = bytes(len(content) - 8004)
    path.write_bytes(content)
    found = faults(run, every=True)
    assert found and all("ingest-1.parquet: can't be read" in sentence for sentence in found)


def test_the_command(corpusmill, run):
    code, out, err = corpusmill("verify", run / "tokens", "--all")
    assert (code, err) == (0, "") and b"Token shards of" in out and b"holds the tokens of its documents" in out
    (run / "tokens/validation/tokens-00000.bin").unlink()
    code, out, _ = corpusmill("verify", run / "tokens")
    assert code == 1 and out.count(b"Fault: ") == 1
    assert corpusmill("verify", run / "nothing")[0] == 2
