"""Tests pre-training as a stage of a run: model, scores, continuations of held-out texts, and refusals."""

import json
import math
from pathlib import Path

import pytest
import torch
from launch_runs import PRETRAIN, make_tokens, train
from pydantic import ValidationError

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.special_tokens import EOT_ID, SPECIAL_TOKENS
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.train import pretrain_job
from corpusmill.train.losses import StepLoss
from corpusmill.train.pretrain import PretrainStage

# ---- continuations -----------------------------------------------------------------------------------

ALONE = {"parallel": {}}
STEPS = {"steps": 12, "save_every": 4, "warmup": 2, "threads": 1}


@pytest.fixture
def run(token_run: Storage) -> Storage:
    return token_run


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
    train(run, **ALONE, samples=0)  # intermediate outputs have no influence on the training
    assert lines(run, "samples") == found


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


# ---- pretrain ----------------------------------------------------------------------------------------

# The model that the stage leaves, and what it refuses.


def metrics(run: Storage) -> dict:
    return json.loads(run.read_bytes("pretrain/metrics.json"))


def test_a_model_that_has_learned_and_opens_in_transformers(run: Storage) -> None:
    done = train(run, **ALONE, loop={**STEPS, "steps": 80})
    measured, validation = metrics(run), metrics(run)["validation"]
    assert measured["steps"] == 80 and measured["tokens"] == 80 * 4 * 32 and measured["skipped"] == 0
    assert validation["utf8_bytes"] == TokenShards(run.path("tokens/validation")).utf8_bytes
    assert 0 < validation["bits_per_byte"] < 0.6 * math.log2(600) * validation["tokens"] / validation["utf8_bytes"]
    assert any("bits per byte (" in line for line in done.stage.summary(done).values())
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = run.path("pretrain/model")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([[EOT_ID, *tokenizer("The old miller grinds the grain.", add_special_tokens=False)["input_ids"]]])
    assert tokenizer.eos_token == SPECIAL_TOKENS[EOT_ID] and float(model(ids, labels=ids).loss.detach()) < 0.6 * math.log(600)


def test_packed_documents_train_a_model_too(run: Storage) -> None:
    make_tokens(run, pack_lengths=[32])
    train(run, **ALONE, loop={**STEPS, "steps": 80}, packing="documents")
    measured, tokens = metrics(run), TokenShards(run.path("tokens/train"))
    epochs, rest = divmod(80 * 4, tokens.packed_rows(0, 32))
    assert measured["steps"] == 80 and measured["skipped"] == 0
    assert epochs * len(tokens) <= measured["tokens"] <= epochs * len(tokens) + rest * 32 < 80 * 4 * 32  # free places are not counted
    log = lines(run, "train")
    assert log[-1]["loss"] < 0.6 * log[0]["loss"]
    found = []
    for micro_batch in (0, 1):
        train(run, **ALONE, loop={**STEPS, "steps": 3}, packing="documents", micro_batch=micro_batch)
        found.append(metrics(run)["validation"]["bits_per_byte"])
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def test_other_plans_do_not_redo_a_training(run: Storage) -> None:
    train(run, **ALONE)
    make_tokens(run, pack_lengths=[48])
    assert train(run, **ALONE).performed == 0


def test_skipped_steps_name_their_documents(run: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tokens(run, pack_lengths=[32])
    whole, seen = pretrain_job._Job.loss, [0]

    def poisoned(self, model, batch):  # type: ignore[no-untyped-def]
        part, step = whole(self, model, batch), seen[0]
        seen[0] += 1
        return StepLoss(part.total * float("nan"), part.count) if step in (4, 5) else part

    monkeypatch.setattr(pretrain_job._Job, "loss", poisoned)
    train(run, **ALONE)
    skipped = [line for line in lines(run, "train") if "skipped" in line]
    assert [line["step"] for line in skipped] == [4, 5] and metrics(run)["skipped"] == 2
    assert all(len(name) == 32 for line in skipped for name in line["documents"]) and skipped[0]["documents"]
    with pytest.raises(CorpusmillError, match=r"pretrain: 2 steps in a row .* at step 5 the loss is nan \(its documents: 0000"):
        seen[0] = 0
        train(run, **ALONE, loop={**STEPS, "max_skips": 2}, packing="documents", seed=2)


def test_tokens_of_another_tokenizer_are_refused(run: Storage) -> None:
    changed = json.loads(run.read_bytes("tokenizer/tokenizer.json"))
    changed["truncation"] = None
    run.write_bytes("tokenizer/tokenizer.json", json.dumps(changed).encode())
    with pytest.raises(InputError, match="made by another tokenizer"):
        train(run, **ALONE)


def test_shards_whose_documents_end_otherwise_are_refused(run: Storage) -> None:
    path = "tokens/validation/shards.json"
    run.write_bytes(path, json.dumps({**json.loads(run.read_bytes(path)), "end_of_text_id": 3}).encode())
    with pytest.raises(InputError, match="documents end with token 3 here, and with 0 in the tokenizers that this project trains"):
        train(run, **ALONE)


def test_shards_cut_short_corpora_too_small_and_unfinished_stages_are_sentences(run: Storage, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="training tokens are too few"):
        train(run, **ALONE, model={**PRETRAIN["model"], "context": 100_000})
    path = Path(run.path("tokens/train/tokens-00000.bin"))
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(InputError, match=r"tokens-00000\.bin: this token shard is cut short"):
        train(run, **ALONE)
    with pytest.raises(InputError, match="the stage tokenizer is not finished"):
        train(Storage(str(tmp_path / "none")))


def test_shapes_that_do_not_fit_are_refused_with_the_recipe() -> None:
    with pytest.raises(ValidationError, match="6 heads can't share 4 key-value heads evenly"):
        PretrainStage.Config.model_validate({"model": {"kv_heads": 4}})
    with pytest.raises(ValidationError, match="odd width"):
        PretrainStage.Config.model_validate({"model": {"head_dim": 7}})
