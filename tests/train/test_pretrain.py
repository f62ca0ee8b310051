"""Tests the intermediate results of pre-training: scores, and the model's continuations of held-out texts."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from launch_runs import run_with_tokens, train
from pydantic import ValidationError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.manifest import Manifest, TaskRow
from corpusmill.pipeline.packing import plan
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import Content, publish
from corpusmill.pipeline.special_tokens import EOT_ID, SPECIAL_TOKENS
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import (
    INDEX,
    SHARDS_FILE,
    PackingFile,
    ShardSet,
    TokenShard,
    TokenShards,
    plan_bytes,
    plan_name,
    shard_contents,
    shard_names,
)
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train import pretrain_job
from corpusmill.train.losses import StepLoss
from corpusmill.train.pretrain import PretrainStage
from corpusmill.train.pretrain_job import GIVEN, Continuations
from corpusmill.train.validation import Validation

# ---- continuations -----------------------------------------------------------------------------------

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
    train(run, **ALONE, samples=0)  # intermediate outputs have no influence on the training
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


# ---- pretrain ----------------------------------------------------------------------------------------

# The stage as a run performs it: model folder, metrics, resume, refusals.

CONFIG = {
    "model": {"context": 32, "layers": 1, "width": 16, "heads": 2, "kv_heads": 1, "head_dim": 8, "ffn": 16},
    "loop": {"steps": 30, "save_every": 5, "threads": 1, "warmup": 2},
    "batch": 4,
    "evaluate_every": 10,
    "evaluate_windows": 2,
}


def finish_stage(pretrained: Storage, name: str, files: dict[str, Content]) -> None:
    storage = pretrained.child(name)
    manifest = Manifest(storage)
    outputs = [publish(storage, path, content) for path, content in files.items()]
    manifest.append(TaskRow("x", digest_of(files), [], "c", "c", 0, 0, 0, 0, outputs))
    manifest.finish(["x"])


def digest_of(files: dict[str, Content]) -> str:
    return hashlib.sha256("".join(sorted(files)).encode()).hexdigest()


def shards_of(tokenizer: Tokenizer, sha256: str, split: str, texts: list[str]) -> dict[str, Content]:
    rows, tokens = [], list[int]()
    for number, text in enumerate(texts):
        ids = [*tokenizer.encode(text).ids, EOT_ID]
        rows.append({"id": f"{split}{number}", "first": len(tokens), "tokens": len(ids), "utf8_bytes": len(text.encode()), "url": None,
                     "source": None, "offset": None, "length": None, "data_file": "dedup/data/x.parquet", "data_row": number,
                     "text_begin": 0, "copy": 0, "cluster_id": None})  # fmt: skip
        tokens += ids
    array = np.array(tokens, "<u2")
    size = sum(len(text.encode()) for text in texts)
    (file, index), length = shard_names(0), CONFIG["model"]["context"]  # type: ignore[index]
    table, packed = plan(np.array([row["tokens"] for row in rows]), length)
    content = plan_bytes(table)
    plans = (PackingFile(length, plan_name(file, length), packed, len(content), hashlib.sha256(content).hexdigest()),)
    shard = TokenShard(file, index, len(array), len(rows), size, hashlib.sha256(array.tobytes()).hexdigest(), "", plans=plans)
    described = ShardSet("uint16", tokenizer.get_vocab_size(), sha256, split, (shard,), EOT_ID)
    files = {**shard_contents(0, array, pa.Table.from_pylist(rows, schema=INDEX)), SHARDS_FILE: described.to_json(), plans[0].file: content}
    return {f"{split}/{name}": content for name, content in files.items()}


@pytest.fixture
def pretrained(tmp_path: Path) -> Storage:
    """Makes a run whose stages tokenizer and tokens are finished."""
    texts = [" ".join(f"the {word} of number {i} is the {word} again" for word in ("cat", "dog", "house") * 4) for i in range(12)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    content = tokenizer.to_str().encode()
    pretrained, sha256 = Storage(str(tmp_path / "run")), hashlib.sha256(content).hexdigest()
    finish_stage(pretrained, "tokenizer", {"tokenizer.json": content})
    finish_stage(
        pretrained, "tokens", {**shards_of(tokenizer, sha256, "train", texts[2:]), **shards_of(tokenizer, sha256, "validation", texts[:2])}
    )
    return pretrained


def execute(pretrained: Storage, **changes: object) -> StageRun:
    config = PretrainStage.Config.model_validate({**CONFIG, **changes})
    stage_run = StageRun(PretrainStage(config), pretrained, {"pretrain": config}, [], InlineEngine(), Progress(False))
    stage_run.execute()
    return stage_run


def metrics(pretrained: Storage) -> dict:
    return json.loads(pretrained.read_bytes("pretrain/metrics.json"))


def test_a_model_that_has_learned_and_opens_in_transformers(pretrained: Storage) -> None:
    stage_run = execute(pretrained, loop={**CONFIG["loop"], "steps": 80})  # type: ignore[dict-item]
    measured = metrics(pretrained)
    validation = measured["validation"]
    assert measured["steps"] == 80 and measured["tokens"] == 80 * 4 * 32 and measured["skipped"] == 0
    assert validation["utf8_bytes"] == ShardSet.read(pretrained.child("tokens/validation")).utf8_bytes
    assert 0 < validation["bits_per_byte"] < 1.2 < np.log2(300) * validation["tokens"] / validation["utf8_bytes"]
    assert any("bits per byte (" in line for line in stage_run.stage.summary(stage_run).values())
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = pretrained.path("pretrain/model")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([[EOT_ID, *tokenizer("the cat of number", add_special_tokens=False)["input_ids"]]])
    assert tokenizer.eos_token == SPECIAL_TOKENS[EOT_ID] and "num" not in tokenizer.decode(model.generate(ids, max_new_tokens=1)[0, -1:])


def test_killed_and_resumed_gives_the_same_files(pretrained: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def files() -> dict[str, bytes]:
        named = [path for path in pretrained.child("pretrain").list_files() if not path.startswith(("checkpoints/", "logs/speed"))]
        return {path: pretrained.read_bytes(f"pretrain/{path}") for path in named}

    execute(pretrained)
    wanted = files()
    pretrained.remove_folder("pretrain")
    whole = pretrain_job._Job.batches

    def dying(self, step, share):  # type: ignore[no-untyped-def]
        if step == 17:
            raise KeyboardInterrupt
        yield from whole(self, step, share)

    monkeypatch.setattr(pretrain_job._Job, "batches", dying)
    with pytest.raises(KeyboardInterrupt):
        execute(pretrained)
    monkeypatch.undo()
    execute(pretrained)
    found = files()
    assert found == wanted and "model/model.safetensors" in found and found["logs/train.jsonl"].count(b"\n") == 30
    assert found["logs/samples.jsonl"].count(b"\n") == 3 and pretrained.read_bytes("pretrain/logs/speed.jsonl").count(b"\n") == 30
    again = execute(pretrained)
    assert again.performed == 0


def test_micro_batches_give_the_model_of_the_whole_batch_within_rounding(pretrained: Storage) -> None:
    execute(pretrained, loop={**CONFIG["loop"], "steps": 3})  # type: ignore[dict-item]
    whole = metrics(pretrained)["validation"]["bits_per_byte"]
    execute(pretrained, loop={**CONFIG["loop"], "steps": 3}, micro_batch=3)  # type: ignore[dict-item]
    assert metrics(pretrained)["validation"]["bits_per_byte"] == pytest.approx(whole, rel=1e-4)


def test_packed_documents_train_a_model_too(pretrained: Storage) -> None:
    more = {"loop": {**CONFIG["loop"], "steps": 80}, "packing": "documents"}  # type: ignore[dict-item]
    execute(pretrained, **more)
    measured = metrics(pretrained)
    train = TokenShards(pretrained.path("tokens/train"))
    rows = train.packed_rows(0, 32)
    epochs, rest = divmod(80 * 4, rows)
    assert measured["steps"] == 80 and measured["skipped"] == 0 and np.isfinite(measured["loss"])
    assert epochs * len(train) <= measured["tokens"] <= epochs * len(train) + rest * 32 < 80 * 4 * 32  # free places are not counted
    assert 0 < measured["validation"]["bits_per_byte"] < 1.2
    lines = pretrained.read_bytes("pretrain/logs/train.jsonl").splitlines()
    first, last = (json.loads(line)["loss"] for line in (lines[0], lines[-1]))
    assert last < 0.5 * first
    found = []
    for micro_batch in (0, 1):
        execute(pretrained, loop={**CONFIG["loop"], "steps": 3}, packing="documents", micro_batch=micro_batch)  # type: ignore[dict-item]
        found.append(metrics(pretrained)["validation"]["bits_per_byte"])
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def test_other_plans_do_not_redo_a_training(pretrained: Storage) -> None:
    execute(pretrained)
    storage = pretrained.child("tokens")
    manifest = Manifest(storage)
    described = ShardSet.read(storage.child("train"))
    shards = tuple(replace(shard, plans=()) for shard in described.shards)
    changed = publish(storage, f"train/{SHARDS_FILE}", replace(described, shards=shards).to_json())
    row = manifest.tasks["x"]
    kept = [changed if output.path == changed.path else output for output in row.outputs if ".pack-" not in output.path]
    manifest.append(replace(row, outputs=kept))
    manifest.finish(["x"])
    assert execute(pretrained).performed == 0


def test_a_missing_packing_plan_is_a_sentence(pretrained: Storage) -> None:
    with pytest.raises(InputError, match=r"tokens/train: these tokens are not packed into rows of 48; corpusmill tokens RUN --redo --set"):
        execute(pretrained, model={**CONFIG["model"], "context": 48}, packing="documents")  # type: ignore[dict-item]


@pytest.mark.parametrize("packing", ["stream", "documents"])
def test_skipped_steps_name_their_documents(pretrained: Storage, monkeypatch: pytest.MonkeyPatch, packing: str) -> None:
    whole, seen = pretrain_job._Job.loss, [0]

    def poisoned(self, model, batch):  # type: ignore[no-untyped-def]
        part, step = whole(self, model, batch), seen[0]
        seen[0] += 1
        return StepLoss(part.total * float("nan"), part.count) if step in (4, 5) else part

    monkeypatch.setattr(pretrain_job._Job, "loss", poisoned)
    execute(pretrained, packing=packing)
    skipped = [row for row in map(json.loads, pretrained.read_bytes("pretrain/logs/train.jsonl").splitlines()) if "skipped" in row]
    assert [row["step"] for row in skipped] == [4, 5] and metrics(pretrained)["skipped"] == 2
    assert all(name.startswith("train") for row in skipped for name in row["documents"]) and skipped[0]["documents"]
    with pytest.raises(CorpusmillError, match=r"pretrain: 2 steps in a row .* at step 5 the loss is nan \(its documents: train"):
        seen[0] = 0
        execute(pretrained, loop={**CONFIG["loop"], "max_skips": 2}, packing=packing, seed=2)  # type: ignore[dict-item]


def test_no_validation_is_a_warning(pretrained: Storage) -> None:
    pretrained.remove_folder("tokens/validation")
    row = execute(pretrained).manifest.tasks["model"]
    assert row.warnings and metrics(pretrained)["validation"] is None


def test_tokens_of_another_tokenizer_are_refused(pretrained: Storage) -> None:
    changed = json.loads(pretrained.read_bytes("tokenizer/tokenizer.json"))
    changed["truncation"] = None
    pretrained.write_bytes("tokenizer/tokenizer.json", json.dumps(changed).encode())
    with pytest.raises(InputError, match="made by another tokenizer"):
        execute(pretrained)


def test_shards_whose_documents_end_otherwise_are_refused(pretrained: Storage) -> None:
    path = "tokens/validation/shards.json"
    pretrained.write_bytes(path, json.dumps({**json.loads(pretrained.read_bytes(path)), "end_of_text_id": 3}).encode())
    with pytest.raises(InputError, match="documents end with token 3 here, and with 0 in the tokenizers that this project trains"):
        execute(pretrained)


def test_shards_cut_short_and_corpora_too_small_are_sentences(pretrained: Storage) -> None:
    with pytest.raises(InputError, match="training tokens are too few"):
        execute(pretrained, model={**CONFIG["model"], "context": 100_000})  # type: ignore[dict-item]
    path = pretrained.path("tokens/train/tokens-00000.bin")
    Path(path).write_bytes(Path(path).read_bytes()[:-2])
    with pytest.raises(InputError, match=r"tokens-00000\.bin: this token shard is cut short"):
        execute(pretrained)


def test_unfinished_stages_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the stage tokenizer is not finished"):
        execute(Storage(str(tmp_path)))


def test_shapes_that_do_not_fit_are_refused_with_the_recipe() -> None:
    with pytest.raises(ValidationError, match="6 heads can't share 4 key-value heads evenly"):
        PretrainStage.Config.model_validate({"model": {"kv_heads": 4}})
    with pytest.raises(ValidationError, match="odd width"):
        PretrainStage.Config.model_validate({"model": {"head_dim": 7}})
