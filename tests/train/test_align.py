"""Tests alignment: log-probabilities against torch's own, one sequence at a time; and the stage."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from unhashed import forget_hashes

from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.train import losses
from corpusmill.train.align import NOBODY, Numbered, PairBatch, counted, summed_logps
from corpusmill.train.loop import LOSS_FLOOR, refusal
from corpusmill.train.model import Llama, initialise
from corpusmill.train.options import Architecture
from corpusmill.train.template import Encoded
from corpusmill.train.tuning import AlignConfig, AlignStage, SftConfig, SftStage

# ---- logprobs ----------------------------------------------------------------------------------------


@pytest.fixture
def model() -> Llama:
    model = Llama(Architecture(vocab_size=99, layers=2, width=16, heads=2, kv_heads=1, head_dim=8, ffn=32, context=32))
    initialise(model, 0)
    for seed, parameter in enumerate(model.parameters()):
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(seed))
    return model


def some() -> list[Encoded]:
    generator = np.random.default_rng(0)
    return [Encoded(generator.integers(4, 99, n).astype(np.int32), np.arange(n) >= 3) for n in (6, 20, 11)]


def collate(sequences: list[Encoded], context: int, **form) -> PairBatch:
    return Numbered(sequences, context, **form).collate(range(len(sequences)))


def sum_logps(model: Llama, batch: PairBatch) -> torch.Tensor:
    return summed_logps(model(batch.ids, batch.segments, targets=batch.labels[..., 0]), batch.owners, batch.counts)


def test_sums_are_those_of_each_sequence_alone(model):
    batch = collate(some(), 32)
    assert int((batch.labels[..., 1] != NOBODY).sum()) == 5 + 19 + 10
    assert batch.counts.tolist() == [3, 17, 8] and counted(batch.labels)[3].tolist() == [0, 4, 8]
    for sequence, found in zip(some(), sum_logps(model.double(), batch)):
        ids = torch.from_numpy(sequence.ids.astype(np.int64))[None]
        logps = torch.log_softmax(model(ids[:, :-1]), -1)[0].gather(1, ids[0, 1:, None])[:, 0]
        torch.testing.assert_close(found, logps[2:].sum(), rtol=1e-12, atol=0)


def test_rows_of_a_pipeline_are_alike_and_give_the_same(model):
    model = model.double()
    packed, fixed = collate(some(), 32), Numbered(some(), 32, fixed=True)
    batch = fixed.collate([2, 0, 1])
    assert packed.ids.shape[0] < 3 and batch.ids.shape == (3, 32)
    assert (counted(batch.labels)[3] % 3).tolist() == [2, 0, 1]
    torch.testing.assert_close(sum_logps(model, batch), sum_logps(model, packed)[[2, 0, 1]], rtol=1e-12, atol=0)


def test_rows_of_a_gpu_have_few_shapes_and_give_the_same(model):
    packed, few = collate(some() * 2, 32), collate(some() * 2, 32, few=True)
    assert (len(packed.ids), few.ids.shape) == (3, (4, 32))
    assert torch.equal(sum_logps(model.double(), few), sum_logps(model, packed))
    assert collate(some()[:1], 200, few=True).ids.shape == (1, 128)


# ---- align -------------------------------------------------------------------------------------------

# The stage on a small run: preferences are learned, the first loss is ln 2, a kill changes nothing.

QUICK = {
    "batch": 8,
    "held_out": 0.2,
    "evaluate_every": 0,
    "epochs": 6,
    "loop": {"threads": 1, "steps": 40, "save_every": 10, "optimizer": {"lr": 3e-3}},
}
ONE_STEP = {"threads": 1, "steps": 1}
LN_2 = float(np.log(np.float32(2)))
SFT = SftStage(SftConfig.model_validate({"batch": 4, "loop": {"threads": 1, "steps": 20, "optimizer": {"lr": 2e-2, "muon_lr": 0.02}}}))


def stage(**changes) -> AlignStage:
    built = {} if "files" in changes else {"per_document": 1}
    return AlignStage(AlignConfig.model_validate({**QUICK, **built, **changes}))


def steps_of(run) -> list[dict]:
    return [json.loads(line) for line in run.child("align").read_bytes("logs/train.jsonl").splitlines()]


def metrics_of(run) -> dict:
    return json.loads(run.child("align").read_bytes("metrics.json"))


def test_preferences_of_held_out_pairs_are_learned(pretrained_run, execute):
    done = execute(pretrained_run, SFT, stage())
    metrics = metrics_of(pretrained_run)
    before, after = metrics["held_out_before"], metrics["held_out_after"]
    assert before["loss"] == pytest.approx(math.log(2), abs=1e-4) and before["accuracy"] < 1
    assert after["margin"] > 0.1 and after["loss"] < before["loss"]
    assert after["chosen_tokens"] == before["chosen_tokens"]
    assert "held-out rewards" in done.stage.summary(done)
    pairs = pq.read_table(pretrained_run.path("align/data/pairs.parquet")).to_pylist()
    assert {pair["kind"] for pair in pairs} == {"other", "repeated", "shuffled"}
    assert pq.read_table(pretrained_run.path("align/report/part-00000.parquet")).num_rows == 80


def test_the_first_loss_is_exactly_ln_2_also_without_sft(pretrained_run, execute):
    done = execute(pretrained_run, stage(nll_weight=1, loop=ONE_STEP))
    assert any(ref.path.startswith("pretrain/model/") for ref in done.manifest.tasks["model"].inputs)
    first = steps_of(pretrained_run)[0]
    assert first["preference_loss"] == LN_2
    assert first["loss"] == pytest.approx(math.log(2) + math.log(600), abs=1e-4)  # an untrained model knows only its vocabulary
    assert first["margin"] == first["kl"] == 0


def test_killed_and_started_again_it_gives_the_same_bytes(pretrained_run, killed_and_resumed):
    killed_and_resumed(pretrained_run, stage(loop={**QUICK["loop"], "steps": 4, "save_every": 2}))


def test_files_take_the_place_of_documents(pretrained_run, execute, tmp_path):
    path = tmp_path / "own.jsonl"
    rows = [{"prompt": f"Number {n}?", "chosen": f"It is {n}.", "rejected": f"Who cares about {n}"} for n in range(40)]
    rows += [{"prompt": "Same?", "chosen": "Yes. ", "rejected": "Yes."}, {"prompt": "Long?", "chosen": "Yes.", "rejected": "No. " * 400}]
    rows += [{"prompt": "Silent?", "chosen": "Yes.", "rejected": " "}]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    done = execute(pretrained_run, stage(files=[str(path)]))
    row = done.manifest.tasks["pairs"]
    assert (row.rows_in, row.kept, row.failed) == (43, 40, {"equal": 1, "too_long": 1, "empty": 1})
    metrics = metrics_of(pretrained_run)
    assert metrics["held_out_before"]["preference_accuracy"] < 1 and metrics["held_out_after"]["preference_accuracy"] == 1
    report = pq.read_table(pretrained_run.path("align/report/part-00000.parquet")).to_pylist()
    assert report[40]["failed"] == ["equal"] and report[42]["failed"] == ["empty"]


def test_a_reference_that_is_not_finite_is_refused(pretrained_run, execute):
    weights = Path(pretrained_run.path("pretrain/model/model.safetensors"))
    tensors = load_file(weights)
    tensors["model.norm.weight"].fill_(float("nan"))
    save_file(tensors, weights, {"format": "pt"})
    forget_hashes(pretrained_run, "pretrain")
    with pytest.raises(CorpusmillError, match="not finite"):
        execute(pretrained_run, stage())


def test_a_loss_without_a_reference_measures_none(pretrained_run, execute):
    execute(pretrained_run, stage(loss="simpo", loop={**QUICK["loop"], "steps": 8}))
    metrics, first = metrics_of(pretrained_run), steps_of(pretrained_run)[0]
    before, after = metrics["held_out_before"], metrics["held_out_after"]
    assert "kl" not in first
    uniform = math.log(600)  # nats a token of an untrained model
    assert first["preference_loss"] == pytest.approx(math.log1p(math.e), abs=1e-5)
    assert first["reward_chosen"] == pytest.approx(-uniform * metrics["beta"], rel=1e-5)
    assert after["loss"] < before["loss"] and after["margin"] > before["margin"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"label_smoothing": 0.1}, "label_smoothing is for the losses conservative and robust, and the loss is sigmoid"),
        ({"loss": "orpo", "nll_weight": 0.1}, "nll_weight is 0 with the loss orpo"),
        ({"loss": "simpo", "beta": "inf"}, "finite number"),
    ],
)
def test_an_option_that_the_loss_does_not_have_is_refused(given, message):
    with pytest.raises(ValidationError, match=message):
        AlignConfig.model_validate(given)


# ---- hard batches ------------------------------------------------------------------------------------


def late_losses(seed: int) -> list[float]:
    """Returns the losses of 400 steps late in a run of DPO, 16 pairs each: most margins are wide, one pair in fifty is hard."""
    generator = np.random.default_rng(seed)
    hard = generator.random((400, 16)) < 0.02
    margins = np.where(hard, generator.normal(-6, 4, hard.shape), generator.normal(6, 1.5, hard.shape))
    return np.logaddexp(0, -margins).mean(1).tolist()


def test_hard_batches_late_in_training_are_no_spikes_and_nan_is() -> None:
    found = [late_losses(seed) for seed in range(5)]
    assert all(min(run) < 0.01 and max(run) > 0.5 for run in found)
    for default, skips in ((AlignConfig().loop.spike, False), (SftConfig().loop.spike, True)):
        recent: list[list[float]] = [[] for _ in found]
        skipped = [refusal(loss, "loss", past, default, LOSS_FLOOR) for past, run in zip(recent, found, strict=True) for loss in run]
        share = sum(reason is not None for reason in skipped) / len(skipped)
        assert (share > 0.01) is skips and (share == 0) is not skips
        assert refusal(math.nan, "loss", recent[0], default, LOSS_FLOOR) == "loss is nan"


def test_log_probabilities_that_are_not_finite_skip_their_step(pretrained_run, execute, monkeypatch):
    calls = iter(range(99))
    sigmoid = losses.LOSSES["sigmoid"]
    monkeypatch.setitem(losses.LOSSES, "sigmoid", lambda pairs, options: sigmoid(pairs, options) * (math.nan if next(calls) == 3 else 1))
    execute(pretrained_run, stage(held_out=0, loop={**ONE_STEP, "steps": 6}))
    lines = steps_of(pretrained_run)
    assert ["skipped" in line for line in lines] == [False, False, False, True, False, False]
    assert lines[3]["skipped"].startswith("loss is nan") and len(set(lines[3]["documents"])) == 8
    assert metrics_of(pretrained_run)["skipped_steps"] == 1
