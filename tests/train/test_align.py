"""The stage on a small run: preferences are learned, the first loss is ln 2, killing changes nothing."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from corpusmill.pipeline.errors import CorpusmillError, InputError, NothingKept
from corpusmill.train import align, reference
from corpusmill.train.align import AlignConfig, AlignStage
from corpusmill.train.losses import LOSSES, orpo, simpo
from corpusmill.train.options import ParallelConfig
from corpusmill.train.sft import SftConfig, SftStage

QUICK = {
    "batch": 8,
    "held_out": 0.2,
    "evaluate_every": 0,
    "epochs": 6,
    "loop": {"threads": 1, "steps": 40, "save_every": 10, "optimizer": {"lr": 3e-3}},
}
LN_2 = float(np.log(np.float32(2)))
SFT = SftStage(SftConfig.model_validate({"batch": 4, "loop": {"threads": 1, "steps": 20, "optimizer": {"lr": 2e-2, "muon_lr": 0.02}}}))


def stage(**changes) -> AlignStage:
    built = {} if "files" in changes else {"per_document": 1}
    return AlignStage(AlignConfig.model_validate({**QUICK, **built, **changes}))


def steps_of(run) -> list[dict]:
    return [json.loads(line) for line in run.child("align").read_bytes("logs/train.jsonl").splitlines()]


def metrics_of(run) -> dict:
    return json.loads(run.child("align").read_bytes("metrics.json"))


def test_the_recipe_knows_every_loss():
    assert set(AlignConfig.model_fields["loss"].annotation.__args__) == {*LOSSES, "kto"}
    assert set(align.REFERENCE_FREE) == {*orpo.LOSSES, *simpo.LOSSES}


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


@pytest.mark.parametrize("batch", [8, 7])
def test_the_first_loss_is_exactly_ln_2(pretrained_run, execute, batch):
    execute(pretrained_run, stage(nll_weight=1, batch=batch, loop={"threads": 1, "steps": 1}))
    first = steps_of(pretrained_run)[0]
    assert first["preference_loss"] == (LN_2 if batch == 8 else pytest.approx(LN_2, abs=1e-7))  # a sum of 7 is rounded
    assert first["loss"] == pytest.approx(math.log(2) + math.log(600), abs=1e-4)  # an untrained model knows only its vocabulary
    assert first["margin"] == first["kl"] == 0


def test_plain_dpo_begins_at_ln_2(pretrained_run, execute):
    execute(pretrained_run, stage(nll_weight=0, loop={"threads": 1, "steps": 1}))
    assert steps_of(pretrained_run)[0]["loss"] == LN_2


def test_without_sft_it_starts_from_the_pretrained_model(pretrained_run, execute):
    done = execute(pretrained_run, stage(loop={"threads": 1, "steps": 1}))
    assert any(ref.path.startswith("pretrain/model/") for ref in done.manifest.tasks["model"].inputs)


def test_killed_and_started_again_it_gives_the_same_bytes(pretrained_run, execute, tree, tmp_path, monkeypatch):
    from corpusmill.train.state import States

    execute(pretrained_run, stage())
    undisturbed = tree(tmp_path / "run")
    pretrained_run.remove_folder("align")
    save = States.save

    def save_and_die(self, step, *rest):
        save(self, step, *rest)
        if step == 20:
            raise KeyboardInterrupt

    monkeypatch.setattr(States, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        execute(pretrained_run, stage())
    monkeypatch.undo()
    execute(pretrained_run, stage())
    assert tree(tmp_path / "run") == undisturbed


def test_the_reference_is_measured_once(pretrained_run, execute, monkeypatch):
    execute(pretrained_run, stage(loop={"threads": 1, "steps": 1}))

    def refuse(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(reference, "measured", refuse)
    execute(pretrained_run, stage(loop={"threads": 1, "steps": 2}))
    with pytest.raises(CorpusmillError, match="measured again"):
        execute(pretrained_run, stage(loop={"threads": 1, "steps": 2}, seed=9))
    names = {path.name for path in Path(pretrained_run.path("align/checkpoints")).glob("reference-*")}
    assert len(names) == 2  # the training pairs' and the held-out pairs'


def test_the_reference_is_known_by_how_it_is_computed(pretrained_run, execute):
    """Log-probabilities of other batches, shapes or types differ in their last bits."""
    from corpusmill.train.parallel.layout import ParallelDims
    from corpusmill.train.preference import Alignment
    from corpusmill.train.tuning import StartModel

    execute(pretrained_run, stage(pairs=10, loop={"threads": 1, "steps": 0}))
    pairs = pq.read_table(pretrained_run.path("align/data/pairs.parquet"))
    start = StartModel("pretrain/model", pretrained_run.path("pretrain/model"))
    keys = []

    def key_of(device: str = "cpu", precision: str = "auto", **sizes: int) -> list:
        dims = ParallelDims(ParallelConfig(**sizes), torch.device("cpu"))
        aligned = Alignment(stage(loop={**QUICK["loop"], "precision": precision}).config, start, pairs, dims)
        aligned.dims = replace(dims, device=torch.device(device))
        aligned.objective.measure_reference = lambda references, _: keys.append(list(references.key))
        aligned.measure_reference(pretrained_run.root, "weights")
        return keys[-1]

    assert key_of() == key_of(precision="fp32") != key_of(precision="bf16")
    others = [key_of(replicate=2), key_of(tensor=2), key_of(pipeline=2), key_of("cuda"), key_of("cuda", "fp32")]
    assert len({str(key) for key in [key_of(), *others]}) == 6


def test_files_take_the_place_of_documents(pretrained_run, execute, tmp_path):
    path = tmp_path / "own.jsonl"
    rows = [{"prompt": f"Number {n}?", "chosen": f"It is {n}.", "rejected": f"Who cares about {n}"} for n in range(40)]
    rows += [{"prompt": "Same?", "chosen": "Yes. ", "rejected": "Yes."}, {"prompt": "Long?", "chosen": "Yes.", "rejected": "No. " * 400}]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    done = execute(pretrained_run, stage(files=[str(path)]))
    row = done.manifest.tasks["pairs"]
    assert (row.rows_in, row.kept, row.counts) == (42, 40, {"equal": 1, "too_long": 1})
    metrics = metrics_of(pretrained_run)
    assert metrics["held_out_before"]["preference_accuracy"] < 1 and metrics["held_out_after"]["preference_accuracy"] == 1
    report = pq.read_table(pretrained_run.path("align/report/part-00000.parquet")).to_pylist()
    assert report[40]["failed"] == ["equal"] and report[41]["failed"] == ["too_long"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "chosen": "b"}, r"own\.jsonl:1: no pair: `rejected` is missing"),
        ({"chosen": "a", "rejected": "b"}, r"own\.jsonl:1: no pair: it has neither `prompt` nor `instruction`"),
        ({"prompt": "a", "chosen": 3, "rejected": "b"}, r"own\.jsonl:1: `chosen` is a int, expected text"),
        (
            {"prompt": "a", "chosen": "b", "rejected": "b"},
            r"none of 1 pairs can be learned from \(equal 1\)\. The first was dropped: chosen and",
        ),
    ],
)
def test_bad_files_are_one_sentence(pretrained_run, execute, tmp_path, row, message):
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(NothingKept if "none of 1 pairs" in message else InputError, match=message):
        execute(pretrained_run, stage(files=[str(path)]))


def test_a_reference_that_is_not_finite_is_refused(pretrained_run, execute):
    from safetensors.torch import load_file, save_file

    weights = Path(pretrained_run.path("pretrain/model/model.safetensors"))
    tensors = load_file(weights)
    tensors["model.norm.weight"].fill_(float("nan"))
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(CorpusmillError, match="not finite"):
        execute(pretrained_run, stage())
