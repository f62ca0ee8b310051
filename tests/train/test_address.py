"""Tests that the token at (step, row, position) is the one that training saw there."""

import inspect
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.schemas import DOCUMENTS
from corpusmill.pipeline.special_tokens import EOT_ID
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_bytes import TokenBytes
from corpusmill.report.read import RunReader
from corpusmill.report.tokens.trace import trace
from corpusmill.train import pretrain_job
from corpusmill.train.address import token_of_batch
from corpusmill.train.pretrain import PretrainStage

CONFIG = {
    "model": {"context": 48, "layers": 1, "width": 16, "heads": 2, "kv_heads": 1, "head_dim": 8, "ffn": 16},
    "loop": {"steps": 20, "threads": 1, "warmup": 2},
    "batch": 6, "micro_batch": 4, "seed": 5,
}  # fmt: skip
#: Real text, in documents of a few dozen tokens, with characters of several bytes.
TEXTS = [f"{name}: {inspect.getdoc(getattr(str, name))} 東京 🙂" for name in sorted(vars(str)) if not name.startswith("_")]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, finish, execute) -> Storage:
    """Makes a run with finished tokens, in shards smaller than some windows."""
    from corpusmill.tokenize.tokenizer_stage import TokenizerStage
    from corpusmill.tokenize.tokens_stage import TokensStage

    run = Storage(str(tmp_path_factory.mktemp("prepared") / "run"))
    rows = [{"id": f"{n:032x}", "url": f"https://docs.test/{n}", "source": "a.jsonl", "text": text} for n, text in enumerate(TEXTS)]
    finish(run, "ingest", {"data/part-00000.parquet": pa.Table.from_pylist(rows, DOCUMENTS)})
    tokenizer = TokenizerStage(TokenizerStage.Config(vocab_size=512, minimum_frequency=1))
    execute(run, tokenizer, TokensStage(TokensStage.Config(shard_tokens=130, pack_lengths=[48])), earlier=("ingest",))
    run.write_bytes(
        "run.json", json.dumps({"inputs": [], "recipe": {"ingest": {}, "tokenizer": {}, "tokens": {}, "pretrain": CONFIG}}).encode()
    )
    return run


@pytest.fixture
def run(prepared, tmp_path) -> Storage:
    shutil.copytree(prepared.root, tmp_path / "run")
    return Storage(str(tmp_path / "run"))


def trained(run, execute, monkeypatch, config):
    """Returns the ids, targets and segments of all batches that a training used, `[20, 6, 48]` each."""
    seen, whole = [], pretrain_job.to_device

    def note(batch, device):
        seen.append([part.numpy() for part in batch])
        return whole(batch, device)

    monkeypatch.setattr(pretrain_job, "to_device", note)
    monkeypatch.setattr(pretrain_job, "needed", lambda segments: segments)  # also of rows of one document
    execute(run, PretrainStage(PretrainStage.Config.model_validate(config)))
    micro = seen[:40]  # two of each step's batch, of 4 and of 2 rows; then come evaluations
    return [np.concatenate([batch[part] for batch in micro]).reshape(20, 6, 48) for part in range(3)]


def test_batches_of_a_training_are_found_again(run, execute, monkeypatch):
    ids, _, segments = trained(run, execute, monkeypatch, CONFIG)
    table = TokenBytes.read(run, "tokenizer/tokenizer.json")
    for step, row, position in [(s, r, p) for s in (0, 9, 19) for r in (0, 5) for p in (0, 7, 47)]:
        found = token_of_batch(run.root, step, row, position)
        traced = trace(run.root, found.shard, found.token, "train", found.batch, found.notes)
        assert traced.id == ids[step, row, position] and traced.notes == []
        same = segments[step, row, : position + 1] == segments[step, row, position]
        assert found.batch["attends_from"] == int(np.flatnonzero(same)[0])
        inside = segments[step, row] == segments[step, row, position]
        text = traced.around.before + traced.around.characters + traced.around.after
        following = table.join(ids[step, row][inside & (ids[step, row] != EOT_ID)])
        assert traced.special or following in TEXTS[traced.document.data_row].encode()
        assert traced.special or text in TEXTS[traced.document.data_row]


def test_batches_of_packed_documents_are_found_again(run, execute, monkeypatch):
    config = {**CONFIG, "packing": "documents"}
    run.write_bytes("run.json", json.dumps({"inputs": [], "recipe": {"ingest": {}, "tokens": {}, "pretrain": config}}).encode())
    ids, targets, segments = trained(run, execute, monkeypatch, config)
    begins, empty = 0, 0
    for step, row, position in [(s, r, p) for s in (0, 9, 19) for r in (0, 4) for p in (0, 5, 21, 46, 47)]:
        if targets[step, row, position] < 0:
            empty += 1
            with pytest.raises(InputError, match=f"position {position} of this row is empty"):
                token_of_batch(run.root, step, row, position)
            continue
        found = token_of_batch(run.root, step, row, position)
        traced = trace(run.root, found.shard, found.token, "train", found.batch, found.notes)
        piece = np.flatnonzero(segments[step, row] == segments[step, row, position])
        assert found.batch["attends_from"] == int(piece[0])
        if found.notes:
            begins += 1
            assert position == piece[0] and ids[step, row, position] == EOT_ID and traced.id == targets[step, row, position]
            assert traced.around.first == 0
        else:
            assert traced.id == ids[step, row, position]
            assert position == piece[0] or traced.document.id == trace(run.root, found.shard, found.token + 1).document.id
    assert begins > 0 and empty > 0


def test_epochs_and_windows_are_told(run):
    windows = (len(np.concatenate([np.fromfile(p, "<u2") for p in sorted(Path(run.root).glob("tokens/train/*.bin"))])) - 1) // 48
    found = [token_of_batch(run.root, step, row, 0) for step in range(20) for row in range(6)]
    assert [place.batch["epoch"] for place in found] == [sample // windows for sample in range(120)]
    assert found[-1].batch["epoch"] >= 1
    assert len({(place.shard, place.token) for place in found[:windows]}) == windows


def test_what_may_not_belong_together_is_said(run, execute):
    assert token_of_batch(run.root, 0, 0, 0).notes == [
        "pretrain is not finished in this run; this is the order in which it goes through the tokens."
    ]
    execute(run, PretrainStage(PretrainStage.Config.model_validate({**CONFIG, "seed": 6})))
    assert "under another configuration" in token_of_batch(run.root, 0, 0, 0).notes[0]
    execute(run, PretrainStage(PretrainStage.Config.model_validate(CONFIG)))
    assert token_of_batch(run.root, 0, 0, 0).notes == []
    from corpusmill.tokenize.tokens_stage import TokensStage

    execute(run, TokensStage(TokensStage.Config(shard_tokens=130, seed=3)), earlier=("ingest", "tokenizer"))
    stale = RunReader(run.root).stale  # which every view prints first
    assert stale is not None and stale.because == {"pretrain": "tokens was done again after it"}


def test_places_that_are_not_there(run):
    for place, sentence in (((20, 0, 0), "no step 20 .* it has 20"), ((0, 6, 0), "no row 6"), ((0, 0, 48), "no position 48")):
        with pytest.raises(InputError, match=sentence):
            token_of_batch(run.root, *place)
    run.write_bytes("run.json", json.dumps({"inputs": [], "recipe": {"ingest": {}}}).encode())
    with pytest.raises(InputError, match="no stage pretrain"):
        token_of_batch(run.root, 0, 0, 0)
