"""Compares scores with the functions that pre-training uses, intervals with theory; equal runs give equal bytes."""

import hashlib
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError

from corpusmill.pipeline.special_tokens import EOT_ID
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import INDEX, ShardSet, TokenShard, TokenShards, shard_contents, shard_names
from corpusmill.train.align import AlignConfig, AlignStage, JudgedConfig
from corpusmill.train.align_pairs import PreferencePair, pairs_table
from corpusmill.train.evaluate import EvaluateConfig, EvaluateStage
from corpusmill.train.evaluate_job import Measurement
from corpusmill.train.losses import token_nats
from corpusmill.train.model_folder import load_model
from corpusmill.train.parallel.model import LocalModel
from corpusmill.train.sft import SftConfig, SftStage
from corpusmill.train.validation import Validation, token_bytes

QUICK_LOOP = {"threads": 1, "steps": 4}
EARLIER = ("ingest", "tokens", "pretrain")


def token_folder(encoder, tokenizer_json: bytes, documents: list[dict]) -> dict[str, object]:
    """Returns the files of a validation folder with some documents."""
    ids, rows = [], []
    for number, document in enumerate(documents):
        encoded = [*encoder.tokenizer.encode(document["text"], add_special_tokens=False).ids, EOT_ID]
        size = len(document["text"].encode())
        rows.append(
            {
                "id": document["id"],
                "first": len(ids),
                "tokens": len(encoded),
                "utf8_bytes": size,
                "data_file": "x",
                "data_row": number,
                "text_begin": 0,
                "copy": 0,
            }
        )
        ids += encoded
    index = pa.Table.from_pylist(rows, INDEX)
    files = shard_contents(0, np.array(ids, "<u2"), index)
    total = sum(row["utf8_bytes"] for row in rows)
    shard = TokenShard(*shard_names(0), len(ids), len(rows), total, hashlib.sha256(files[shard_names(0)[0]]).hexdigest(), "")
    described = ShardSet("uint16", 600, hashlib.sha256(tokenizer_json).hexdigest(), "validation", (shard,), EOT_ID)
    return {f"validation/{name}": content for name, content in {**files, "shards.json": described.to_json()}.items()}


@pytest.fixture(scope="module")
def tokens(documents_of, encoder, tokenizer_json) -> dict[str, object]:
    return token_folder(encoder, tokenizer_json, documents_of(range(70, 80)).to_pylist())


@pytest.fixture
def run(pretrained_run, finish, tokens) -> Storage:
    finish(pretrained_run, "tokens", tokens)
    return pretrained_run


@pytest.fixture(scope="module")
def evaluated(make_pretrained_run, tmp_path_factory, finish, tokens, execute):
    run = make_pretrained_run(tmp_path_factory.mktemp("evaluated"))
    finish(run, "tokens", tokens)
    stages = [
        SftStage(SftConfig.model_validate({"batch": 4, "per_document": 1, "loop": QUICK_LOOP})),
        AlignStage(AlignConfig.model_validate({"per_document": 1, "loop": QUICK_LOOP})),
        EvaluateStage(EvaluateConfig(samples=2, max_tokens=8)),
    ]
    return run, execute(run, *stages, earlier=EARLIER)


def scores_of(run: Storage) -> dict:
    return json.loads(run.child("evaluate").read_bytes("scores.json"))


def test_every_model_is_scored_on_all_that_is_held_out(evaluated):
    run, done = evaluated
    scores, samples = scores_of(run), json.loads(run.child("evaluate").read_bytes("samples.json"))
    assert list(scores) == list(samples) == ["align", "pretrain", "sft"]
    for name, score in scores.items():
        bits, preferences = score["bits_per_byte"], score["preferences"]
        assert bits["low"] <= bits["value"] <= bits["high"] and bits["documents"] == 10
        assert preferences["low"] <= preferences["accuracy"] <= preferences["high"]
        assert len(samples[name]) == (2 if name == "pretrain" else 4)
    held_out = {f"{n:032x}" for n in range(70, 80)}
    prompts = json.loads(run.child("evaluate").read_bytes("prompts.json"))
    assert len(prompts) == 2
    assert "bits per byte" in done.stage.summary(done)["sft"]
    examples = json.loads(run.child("sft").read_bytes("metrics.json"))
    assert examples["held_out_examples"] >= len(held_out)


def test_a_model_with_special_tokens_of_its_own_is_measured_on_the_tokens_of_its_parent(run, execute):
    sft = SftStage(SftConfig.model_validate({"batch": 4, "per_document": 1, "template": "llama3", "loop": QUICK_LOOP}))
    execute(run, sft, EvaluateStage(EvaluateConfig(samples=0)), earlier=EARLIER)
    assert run.child("sft/model").read_bytes("tokenizer.json") != run.child("pretrain/model").read_bytes("tokenizer.json")
    scores = scores_of(run)
    assert scores["sft"]["bits_per_byte"]["bytes"] == scores["pretrain"]["bits_per_byte"]["bytes"]
    assert scores["sft"]["bits_per_byte"]["value"] == pytest.approx(scores["pretrain"]["bits_per_byte"]["value"], rel=0.1)  # four steps


def test_bits_per_byte_are_those_of_every_token_in_its_window(evaluated, tokenizer_json):
    run, _ = evaluated
    shards = TokenShards(run.path("tokens/validation"))
    model, sizes = load_model(run.path("sft/model")).double(), token_bytes(tokenizer_json)
    row, nats = [EOT_ID, *shards.window(0, len(shards)).astype(np.int64).tolist()], 0.0
    for start in range(0, len(shards), model.arch.context):
        ids = torch.tensor([row[start : start + model.arch.context + 1]])
        segments = (ids[:, :-1] == EOT_ID).cumsum(1)
        with torch.no_grad():
            lost = torch.nn.functional.cross_entropy(model(ids[:, :-1], segments)[0], ids[0, 1:], reduction="none")
        nats += float(lost[torch.tensor([sizes[t] > 0 for t in ids[0, 1:].tolist()])].sum())
    score = scores_of(run)["sft"]["bits_per_byte"]
    assert score["value"] == pytest.approx(nats / math.log(2) / shards.utf8_bytes, rel=5e-6) and score["bytes"] == shards.utf8_bytes


def test_an_untrained_model_needs_the_bits_of_its_vocabulary(run, execute):
    execute(run, EvaluateStage(EvaluateConfig(samples=0)), earlier=EARLIER)
    shards = TokenShards(run.path("tokens/validation"))
    scores = scores_of(run)["pretrain"]["bits_per_byte"]
    assert scores["value"] == pytest.approx(math.log2(600) * (len(shards) - 10) / scores["bytes"], rel=1e-5)


def test_nats_and_bytes_belong_to_their_documents(evaluated):
    run, _ = evaluated
    shards = TokenShards(run.path("tokens/validation"))
    model = load_model(run.path("sft/model"))
    tokenizer = run.child("sft/model").read_bytes("tokenizer.json")
    validation = Validation(shards, token_bytes(tokenizer), model.arch.context, document_mask=True)
    sums = validation.sums(LocalModel(model, "fp32"), model.device)
    assert sums.sizes.tolist() == shards.index(0)["utf8_bytes"].to_pylist()
    first = shards.window(0, shards.index(0)["tokens"][0].as_py() - 1).astype(np.int64)
    assert len(first) < model.arch.context
    with torch.no_grad():
        alone = token_nats(model(torch.tensor([[EOT_ID, *first[:-1]]])), torch.tensor(first)[None])
    assert sums.nats[0] == pytest.approx(float(alone.sum()), rel=1e-5)


def test_the_batch_does_not_change_the_scores(run, execute, tmp_path):
    found = []
    for batch in (3, 16):
        execute(run, EvaluateStage(EvaluateConfig(samples=1, max_tokens=4, batch=batch)), earlier=EARLIER)
        found.append((scores_of(run), run.child("evaluate").read_bytes("samples.json")))
    assert found[0] == found[1]


def test_without_validation_tokens_there_are_no_bits(pretrained_run, execute):
    execute(pretrained_run, EvaluateStage(EvaluateConfig(samples=1, max_tokens=4)))
    assert scores_of(pretrained_run)["pretrain"] == {"bits_per_byte": None, "preferences": None, "answer_tokens": None}


def test_prompts_are_from_validation_documents_alone(run, execute):
    execute(run, EvaluateStage(EvaluateConfig(samples=40, max_tokens=1)), earlier=EARLIER)
    prompts = json.loads(run.child("evaluate").read_bytes("prompts.json"))
    assert {prompt["document"] for prompt in prompts} == {f"{n:032x}" for n in range(70, 80)}


def test_a_completion_that_stands_alone_is_no_preference(pretrained_run):
    user, good, bad = (
        {"role": role, "content": text} for role, text in (("user", "Mill?"), ("assistant", "It turns."), ("assistant", "No."))
    )
    sides = [([good], [bad]), ([good], []), ([], [bad])]
    table = pairs_table([PreferencePair(f"f:{n}", None, "file", True, [user], *both) for n, both in enumerate(sides)])
    pq.write_table(table, pretrained_run.path("pairs.parquet"))
    found = Measurement(EvaluateConfig(), pretrained_run, "pretrain", True).preferences(pretrained_run, "pairs.parquet")
    assert found is not None and found["pairs"] == 1


@pytest.mark.parametrize("config", [EvaluateConfig, JudgedConfig])
def test_a_temperature_that_can_not_be_drawn_with_is_refused_at_once(config):
    assert config(temperature=0).temperature == 0 and config(temperature=1e-3).temperature == 1e-3
    for temperature in (1e-4, -1, float("inf"), float("nan")):
        with pytest.raises(ValidationError, match="temperature"):
            config(temperature=temperature)
