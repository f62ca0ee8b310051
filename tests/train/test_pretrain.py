"""Tests pre-training as a stage of a run: model, scores, continuations of held-out texts, and refusals."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from launch_runs import FILES, PRETRAIN, make_tokens, train
from pydantic import ValidationError
from unhashed import forget_hashes

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.special_tokens import EOT_ID, SPECIAL_TOKENS
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.train import launch, pretrain_job
from corpusmill.train.checkpoint import load_model, save_model
from corpusmill.train.data import WindowLoader
from corpusmill.train.model import Llama, StepLoss, initialise
from corpusmill.train.options import Architecture
from corpusmill.train.pretrain import PretrainStage

# ---- continuations -----------------------------------------------------------------------------------

ALONE = {"parallel": {}}
STEPS = {"precision": "fp32", "steps": 12, "save_every": 4, "warmup": 2, "threads": 1}


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
    forget_hashes(run, "tokens")
    row = train(run, **ALONE).manifest.tasks["model"]
    assert len(row.warnings) == 1 and "no validation tokens, so nothing was evaluated; see tokens.validation_share" in row.warnings[0]
    assert not run.exists("pretrain/logs/samples.jsonl") and "validation_bits_per_byte" not in lines(run, "train")[-1]
    with pytest.raises(InputError, match=r"^pretrain\.loop\.keep_best: no state can be the best one, as there is no validation data"):
        train(run, **ALONE, loop={**STEPS, "steps": 13, "keep_best": 2})


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
    forget_hashes(run, "tokenizer")
    with pytest.raises(InputError, match="made by another tokenizer"):
        train(run, **ALONE)


def test_shards_cut_short_corpora_too_small_and_unfinished_stages_are_sentences(run: Storage, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="training tokens are too few"):
        train(run, **ALONE, model={**PRETRAIN["model"], "context": 100_000})
    path = Path(run.path("tokens/train/tokens-00000.bin"))
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(InputError, match=r"tokens-00000\.bin: this file is not the one that was written"):
        train(run, **ALONE)
    forget_hashes(run, "tokens")
    with pytest.raises(InputError, match=r"tokens-00000\.bin: this token shard is cut short"):
        train(run, **ALONE)
    with pytest.raises(InputError, match="the stage tokenizer is not finished"):
        train(Storage(str(tmp_path / "none")))


# ---- branches, given models, phases ------------------------------------------------------------------

WEIGHTS = "pretrain/model/model.safetensors"


def test_the_best_state_is_never_one_of_another_training(run: Storage) -> None:
    for steps in (20, 30):
        loop = {**STEPS, "steps": steps, "schedule": "constant"}
        train(run, **ALONE, evaluate_every=0, export="best", loop=loop)
        assert len(lines(run, "train")) == steps and all("branched_from" not in line for line in lines(run, "train"))


@pytest.mark.long
def test_two_processes_that_branch_off_at_the_end_publish_the_weights_of_that_state(run: Storage) -> None:
    train(run, evaluate_every=0, loop={**STEPS, "steps": 8, "schedule": "constant"})
    whole = run.read_bytes(WEIGHTS)
    train(run, evaluate_every=0, loop={**STEPS, "steps": 8, "decay_fraction": 0.01})  # which is no step of 8
    assert run.read_bytes(WEIGHTS) == whole and metrics(run)["tokens"] == 8 * 4 * 32


def test_a_given_model_is_trained_further(run: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(run, **ALONE)
    given, moved = tmp_path / "given", json.loads(run.read_bytes("pretrain/metrics.json"))["validation"]
    shutil.copytree(run.path("pretrain/model"), given)
    shutil.copytree(run.path("pretrain/model"), tmp_path / "again")
    options = {**ALONE, "loop": {**STEPS, "warmup": 0}, "evaluate_every": 0}
    train(run, **options, model=str(given))
    log, first = lines(run, "train"), load_model(given)
    loader = WindowLoader(TokenShards(run.path("tokens/train")), 32, 4, 1, True)
    ids, targets, segments = loader.load(0)
    assert log[0]["loss"] == pytest.approx(first(ids, segments, targets=targets).mean().item(), rel=1e-5)
    assert metrics(run)["validation"]["bits_per_byte"] < moved["bits_per_byte"]
    assert json.loads(run.read_bytes("pretrain/model/config.json")) == json.loads((given / "config.json").read_bytes())
    train(run, **options, model={"folder": str(given), "context": 16})
    assert metrics(run)["tokens"] == 12 * 4 * 16
    with pytest.raises(InputError, match=r"pretrain\.model\.context: rows of 64 tokens are longer than the model's context of 32\."):
        train(run, **options, model={"folder": str(given), "context": 64})
    tokenizer = json.loads((tmp_path / "again" / "tokenizer.json").read_bytes())
    tokenizer["model"]["merges"].pop()
    (tmp_path / "again" / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(
        InputError, match=r"^pretrain\.model: the tokenizer of .*again is not the one that made the tokens in .*tokens/train "
    ):
        train(run, **options, model=str(tmp_path / "again"))
    with pytest.raises(InputError, match=r"^pretrain\.model: .*nothing is no model folder, as it has no config\.json\.$"):
        train(run, **options, model=str(tmp_path / "nothing"))
    with pytest.raises(ValidationError, match="so layers can't be given"):
        PretrainStage.Config.model_validate({"model": {"folder": str(given), "layers": 3}})


def test_a_model_with_another_end_of_text_is_trained_further(tmp_path: Path, tokenizer_json: bytes, finish, documents_of) -> None:
    """Published tokenizers have their end of text elsewhere than ours: documents end there, and samples too."""
    changed = json.loads(tokenizer_json)
    last = max(changed["model"]["vocab"].values()) + 1
    changed["added_tokens"].append({**changed["added_tokens"][0], "id": last, "content": "<eos>"})
    content = json.dumps(changed).encode()
    other = Storage(str(tmp_path / "other"))
    finish(other, "ingest", {"data/part-00000.parquet": documents_of(range(40))})
    finish(other, "tokenizer", {"tokenizer.json": content})
    make_tokens(other, end_of_text="<eos>")
    with pytest.raises(InputError, match=f"documents end with token {last} here, and with 0"):
        train(other, **ALONE)
    model = Llama(Architecture(vocab_size=last + 9, layers=1, width=16, heads=2, kv_heads=1, head_dim=8, ffn=16, context=32))
    initialise(model, 0)
    save_model(model, tmp_path / "given", {"tokenizer.json": content})
    train(other, **ALONE, model=str(tmp_path / "given"))
    assert lines(other, "samples")[0]["samples"] and metrics(other)["validation"]["tokens"] > 0
    ids, _, segments = WindowLoader(TokenShards(other.path("tokens/train")), 32, 4, 1, True).load(0)
    ends = ids == last
    assert ends.any() and bool((segments.diff(dim=1) != 0)[:, :].eq(ends[:, 1:]).all())


PHASES = [{"steps": 8}, {"steps": 12, "schedule": "linear"}]


def test_phases_on_the_same_tokens_are_the_schedule_that_they_make_together(run: Storage) -> None:
    """A constant phase of 8 steps and a linear one of 12 are `wsd` of 20 steps whose last 60% fall in a line."""
    train(run, **ALONE, evaluate_every=0, loop={**STEPS, "steps": 20})
    whole, log = run.read_bytes(WEIGHTS), lines(run, "train")
    run.remove_folder("pretrain")
    train(run, **ALONE, evaluate_every=0, loop={**STEPS_OF_PHASES}, phases=PHASES)
    assert run.read_bytes(WEIGHTS) == whole
    phased = lines(run, "train")
    assert [line["phase"] for line in phased] == [1] * 8 + [2] * 12
    assert [(line["loss"], line["lr"]) for line in phased] == [(line["loss"], line["lr"]) for line in log]


STEPS_OF_PHASES = {name: value for name, value in STEPS.items() if name != "steps"}


@pytest.fixture
def other(tmp_path: Path, tokenizer_json: bytes, finish, documents_of) -> Storage:
    """Makes another run with tokens of the same tokenizer."""
    found = Storage(str(tmp_path / "better"))
    finish(found, "ingest", {"data/part-00000.parquet": documents_of(range(50, 80))})
    finish(found, "tokenizer", {"tokenizer.json": tokenizer_json})
    make_tokens(found)
    return found


@pytest.mark.parametrize("parallel", [{}, pytest.param({"replicate": 2}, marks=pytest.mark.long)], ids=str)
def test_a_phase_reads_other_tokens_in_their_own_order_and_a_killed_one_resumes(
    run: Storage, other: Storage, parallel: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    phases = [
        {"steps": 5},
        {"steps": 6, "tokens": other.root, "schedule": "linear", "peak": 0.5, "min_lr": 0.1},
        {"steps": 2, "peak": 0.05},
    ]
    options = {"parallel": parallel, "loop": {**STEPS_OF_PHASES, "save_every": 3}, "phases": phases, "samples": 0}
    seen, batches = [], pretrain_job._Job.batches

    def noted(self, step, share, kill=None):  # type: ignore[no-untyped-def]
        if step == kill:
            raise KeyboardInterrupt
        for batch in batches(self, step, share):
            seen.append((step, batch[0]))
            yield batch

    monkeypatch.setattr(pretrain_job._Job, "batches", noted)
    train(run, **options)
    wanted = {path: run.read_bytes(f"pretrain/{path}") for path in (*FILES, "model/tokenizer.json")}
    if not parallel:
        own, better = (WindowLoader(TokenShards(r.path("tokens/train")), 32, 4, 1, True) for r in (run, other))
        order = [(own, n) for n in range(5)] + [(better, n) for n in range(6)] + [(own, n) for n in (5, 6)]
        assert [step for step, _ in seen] == list(range(13))
        assert all(torch.equal(ids, loader.load(n)[0]) for (_, ids), (loader, n) in zip(seen, order, strict=True))
        assert [line["lr"] for line in lines(run, "train")][5:] == pytest.approx(
            [0.003 * 0.5 * (0.1 + 0.9 * (1 - n / 6)) for n in range(6)] + [0.003 * 0.05] * 2
        )
    log = lines(run, "train")
    assert {line["step"]: line["reads"] for line in log if "reads" in line}.keys() == {0, 5, 11}
    assert (
        log[5]["reads"].startswith(f"{other.root}/tokens/train (sha256 ") and log[0]["reads"] == log[11]["reads"] == "the run's own tokens"
    )
    assert [(phase["reads"], phase["steps"]) for phase in metrics(run)["phases"]] == [
        ("the run's own tokens", 5), (other.root, 6), ("the run's own tokens", 2),
    ]  # fmt: skip
    run.remove_folder("pretrain")
    if parallel:  # rank 1 kills itself in step 6, of the second phase, and all start again
        marker, real = tmp_path / "died", launch.launch
        monkeypatch.setattr(
            launch, "launch",
            lambda job, arguments, *rest, **named: real("launched:train_and_die", {**arguments, "marker": str(marker)}, *rest, **named),
        )  # fmt: skip
        train(run, **options)
        assert marker.exists()
    else:
        monkeypatch.setattr(pretrain_job._Job, "batches", lambda self, step, share: noted(self, step, share, kill=8))
        with pytest.raises(KeyboardInterrupt):
            train(run, **options)
        monkeypatch.setattr(pretrain_job._Job, "batches", noted)
        train(run, **options)
    assert {path: run.read_bytes(f"pretrain/{path}") for path in wanted} == wanted


def test_wrong_tokens_of_a_phase_are_refused_before_anything_is_trained(run: Storage, other: Storage, tmp_path: Path) -> None:
    options = {**ALONE, "loop": STEPS_OF_PHASES}
    with pytest.raises(InputError, match=r"^pretrain\.phases: .*none has no token shards for training"):
        train(run, **options, phases=[{"steps": 2}, {"steps": 2, "tokens": str(tmp_path / "none")}])
    path = "tokens/train/shards.json"
    other.write_bytes(path, json.dumps({**json.loads(other.read_bytes(path)), "tokenizer_sha256": "0" * 64}).encode())
    with pytest.raises(InputError, match=r"better/tokens/train/shards\.json: these tokens were made by another tokenizer"):
        train(run, **options, phases=[{"steps": 2}, {"steps": 2, "tokens": other.root}])
    assert not run.exists("pretrain/logs/train.jsonl")
