"""What pre-training looks at on the way: scores, and how the model goes on with held-out texts."""

import json
from pathlib import Path

import pytest
from launch_runs import run_with_tokens, train

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.train.continuations import GIVEN, Continuations
from corpusmill.train.validation import Validation

ALONE = {"parallel": {}}
STEPS = {"steps": 12, "save_every": 4, "warmup": 2, "threads": 1}


@pytest.fixture
def run(tmp_path: Path, tokenizer_json, finish, documents_of) -> Storage:
    return run_with_tokens(tmp_path / "run", tokenizer_json, finish, documents_of)


def lines(run: Storage, name: str) -> list[dict]:
    return [json.loads(line) for line in run.read_bytes(f"pretrain/logs/{name}.jsonl").splitlines()]


def test_samples_go_on_with_the_beginnings_of_held_out_documents(run: Storage, documents_of) -> None:
    train(run, **ALONE, samples=2)
    held_out = TokenShards(run.path("tokens/validation")).documents_of(0, 1)[0].id
    texts = {row["id"]: row["text"] for row in documents_of(range(40)).to_pylist()}
    found = lines(run, "samples")
    assert [line["step"] for line in found] == [5, 11] and all(len(line["samples"]) == 2 for line in found)
    assert found[0]["samples"][0]["document"] == held_out
    for line in found:
        for sample in line["samples"]:
            prompt = sample["prompt"]
            assert prompt and texts[sample["document"]].startswith(prompt) and len(prompt) < len(texts[sample["document"]]) / 2
    assert {s["prompt"] for s in found[0]["samples"]} == {s["prompt"] for s in found[1]["samples"]}
    train(run, **ALONE, samples=0)  # what is shown on the way is no part of what is trained
    assert lines(run, "samples") == found


def test_prompts_are_at_most_half_of_a_document_and_no_more_than_there_are(run: Storage, tokenizer_json: bytes) -> None:
    shards = TokenShards(run.path("tokens/validation"))
    validation = Validation.open(shards.storage.root, tokenizer_json, shards.description.tokenizer_sha256, 32, True)
    assert validation
    count = sum(shard.documents for shard in shards.shards)
    every = Continuations(validation, tokenizer_json, 1000, seed=1)
    assert len(every.documents) == len({a.id for a in every.documents}) == count
    assert all(len(prompt) == min(GIVEN, a.tokens // 2) for a, prompt in zip(every.documents, every.prompts))


def test_looks_on_the_way_may_be_short_and_the_last_one_is_whole(run: Storage) -> None:
    train(run, **ALONE)
    log, whole = lines(run, "train"), json.loads(run.read_bytes("pretrain/metrics.json"))["validation"]
    looked = [line for line in log if "validation_bits_per_byte" in line]
    assert [line["step"] for line in looked] == [5, 11]
    for line in looked:
        assert line["validation_low"] <= line["validation_bits_per_byte"] <= line["validation_high"]
    assert [looked[1][f"validation_{name}"] for name in ("bits_per_byte", "low", "high")] == [
        whole[name] for name in ("bits_per_byte", "low", "high")
    ]
    assert whole["documents"] == sum(shard.documents for shard in TokenShards(run.path("tokens/validation")).shards)
    assert set(whole["by"]) <= {"language", "source", "host"}


def test_without_validation_training_goes_on_with_a_warning(run: Storage) -> None:
    run.remove_folder("tokens/validation")
    row = train(run, **ALONE).manifest.tasks["model"]
    assert len(row.warnings) == 1 and "no validation tokens, so nothing was evaluated; see tokens.validation_share" in row.warnings[0]
    assert not run.exists("pretrain/logs/samples.jsonl") and "validation_bits_per_byte" not in lines(run, "train")[-1]
    with pytest.raises(InputError, match=r"^pretrain\.loop\.keep_best: no state can be the best one, as there is no validation data"):
        train(run, **ALONE, loop={**STEPS, "steps": 13, "keep_best": 2})


@pytest.mark.long
def test_a_model_in_parts_says_why_it_wrote_nothing(run: Storage) -> None:
    row = train(run, parallel={"shard": 2}).manifest.tasks["model"]
    assert row.warnings == ["no texts were sampled while the model was trained, as no process had all of it"]
    assert not run.exists("pretrain/logs/samples.jsonl") and len(lines(run, "speed")) == 12


def test_copies_of_a_model_write_what_one_process_writes_of_the_same_weights(run: Storage) -> None:
    train(run, **ALONE, loop={**STEPS, "steps": 0})
    train(run, parallel={"replicate": 2}, loop={**STEPS, "steps": 1})
    (sample,) = lines(run, "samples")
    assert sample["step"] == 0 and len(sample["samples"]) == 3
