"""The loop: exact resume, skipped steps, gradients per valid target."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from objectives import Goal

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.train.architecture import Architecture
from corpusmill.train.loop import FitResult, fit
from corpusmill.train.model import Llama, initialise
from corpusmill.train.objective import StepLoss
from corpusmill.train.options import LoopConfig, OptimizerConfig

ARCH = Architecture(vocab_size=31, layers=2, width=16, heads=2, kv_heads=1, head_dim=8, ffn=24, context=16)


def fresh() -> Llama:
    model = Llama(ARCH)
    initialise(model, 7)
    return model


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(31, (6, 13), generator=torch.Generator().manual_seed(step))
    return ids[:, :-1], ids[:, 1:].clone()


def loss_of(model: Llama, ids: torch.Tensor, targets: torch.Tensor) -> StepLoss:
    logits = model(ids).flatten(0, 1)
    total = F.cross_entropy(logits, targets.flatten(), ignore_index=-100, reduction="sum")
    count = int((targets != -100).sum())
    return StepLoss(total, count, {"right": float((logits.argmax(-1) == targets.flatten()).sum())})


def right_loss(model: Llama, step: int) -> StepLoss:
    return loss_of(model, *batch(step))


def goal_of(function: Callable[[Llama, int], StepLoss]) -> Goal:
    return Goal(function, ("right",))


OBJECTIVE = goal_of(right_loss)


def run(folder: Path, goal: Goal = OBJECTIVE, *, model: Llama | None = None, **options: object) -> tuple[Llama, FitResult]:
    model = model or fresh()
    config = LoopConfig.model_validate({"steps": 12, "save_every": 4, "warmup": 2, "threads": 1, **options})
    return model, fit(
        model, goal, config, state=folder / "state", log=folder / "train.jsonl", evaluate=lambda c, done: {"seen": 1.5}, evaluate_every=5
    )


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


class Killed(BaseException):
    """As abrupt as a signal: nothing in the loop may catch it."""


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_killed_at_any_step_and_resumed_gives_the_same_bits(tmp_path: Path, kind: str) -> None:
    options = {"optimizer": {"kind": kind}}
    whole, result = run(tmp_path / "whole", **options)
    for kill in (0, 3, 4, 6, 11, 12):
        folder = tmp_path / f"killed-{kill}"

        def dying(model: Llama, step: int, kill: int = kill) -> StepLoss:
            if step == kill:
                raise Killed
            return right_loss(model, step)

        if kill < 12:
            with pytest.raises(Killed):
                run(folder, goal_of(dying), **options)
        again, resumed = run(folder, **options)
        assert resumed.resumed_from == (kill // 4 * 4 if kill < 12 else 0)
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters())), kill
        assert (folder / "train.jsonl").read_bytes() == (tmp_path / "whole" / "train.jsonl").read_bytes()
        assert (resumed.loss, resumed.count, resumed.skipped) == (result.loss, result.count, 0)
    state = "state/step-00000012"
    for name in ("shard-00000-of-00001.safetensors", "state.json"):
        assert (tmp_path / "whole" / state / name).read_bytes() == (tmp_path / "killed-6" / state / name).read_bytes()


def test_a_finished_training_is_taken_over_without_a_step(tmp_path: Path) -> None:
    whole, first = run(tmp_path)

    def forbidden(model: Llama, step: int) -> StepLoss:
        raise AssertionError(step)

    again, second = run(tmp_path, goal_of(forbidden))
    assert second.resumed_from == 12 and second.loss == first.loss
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters()))


def test_lines_hold_loss_rate_norm_metrics_and_evaluations(tmp_path: Path) -> None:
    run(tmp_path)
    log = lines(tmp_path)
    assert [line["step"] for line in log] == list(range(12))
    assert log[0]["loss"] == pytest.approx(torch.tensor(31.0).log().item()) and log[0]["count"] == 72
    assert [line["step"] for line in log if "seen" in line] == [4, 9, 11] and 0 <= log[3]["right"] <= 1


def gradient(goal: Goal, tmp_path: Path, name: str) -> list[torch.Tensor]:
    """The gradient that one plain step of size 1 followed, from the change of the weights (Adam's first step hides it)."""
    model = fresh()
    before = [p.detach().clone() for p in model.parameters()]
    options = {"steps": 1, "clip": 0, "warmup": 0, "schedule": "constant"}
    config = LoopConfig.model_validate({**options, "optimizer": OptimizerConfig(kind="adamw", eps=1e6, lr=1e6, weight_decay=0)})
    fit(model, goal, config, state=tmp_path / name, log=tmp_path / f"{name}.jsonl")
    return [b - p.detach() for b, p in zip(before, model.parameters())]


def test_micro_batches_of_uneven_counts_give_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    def masked() -> tuple[torch.Tensor, torch.Tensor]:
        ids, targets = batch(0)
        targets[0, 3:] = targets[4] = -100
        return ids, targets

    def piece(model: Llama, step: int, number: int) -> StepLoss:
        ids, targets = masked()
        rows = (slice(0, 1), slice(1, 4), slice(4, 5), slice(5, 6))[number]  # the third has no target at all
        return loss_of(model, ids[rows], targets[rows])

    whole = gradient(goal_of(lambda model, step: loss_of(model, *masked())), tmp_path, "whole")
    for a, b in zip(whole, gradient(Goal(piece, ("right",), pieces=4), tmp_path, "pieces")):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-6)
    assert max(float(g.abs().max()) for g in whole) > 1e-3


def test_a_batch_without_targets_gives_zero_gradient_and_no_nan(tmp_path: Path) -> None:
    def empty(model: Llama, step: int) -> StepLoss:
        ids, targets = batch(step)
        return loss_of(model, ids, torch.full_like(targets, -100))

    assert all(not g.any() for g in gradient(goal_of(empty), tmp_path, "empty"))
    model, result = run(tmp_path, goal_of(empty))
    assert result.skipped == 0 and result.count == 0 and all(p.isfinite().all() for p in model.parameters())
    assert lines(tmp_path)[0]["loss"] == 0


def poisoned(steps: set[int], factor: float) -> Goal:
    def goal(model: Llama, step: int) -> StepLoss:
        part = right_loss(model, step)
        return StepLoss(part.total * factor, part.count, part.metrics) if step in steps else part

    return goal_of(goal)


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_batch_that_is_not_finite_is_skipped_counted_and_named(tmp_path: Path, factor: float) -> None:
    model, config = fresh(), LoopConfig(steps=8, save_every=4, threads=1)
    result = fit(
        model,
        poisoned({3, 5}, factor),
        config,
        state=tmp_path / "s",
        log=tmp_path / "train.jsonl",
        describe=lambda s, share, piece: [f"doc{s}"],
    )
    assert result.skipped == 2 and all(p.isfinite().all() for p in model.parameters())
    assert {line["step"]: line["documents"] for line in lines(tmp_path) if "skipped" in line} == {3: ["doc3"], 5: ["doc5"]}


def test_a_skipped_step_leaves_weights_and_moments_as_they_were(tmp_path: Path) -> None:
    before = fresh()
    model, _ = run(tmp_path, poisoned(set(range(9)), float("nan")), model=fresh(), steps=9)
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), model.parameters()))


def test_a_spike_is_skipped_and_an_earlier_nan_does_not_hide_it(tmp_path: Path) -> None:
    _, result = run(tmp_path, poisoned({10, 30}, 50.0), steps=40)
    skipped = [line for line in lines(tmp_path) if "skipped" in line]
    assert [line["step"] for line in skipped] == [30] and "is a spike" in skipped[0]["skipped"]  # at 10 there is no past to judge by
    _, result = run(tmp_path / "off", poisoned({30}, 50.0), steps=40, spike=0)
    assert result.skipped == 0


def test_too_many_skips_in_a_row_stop_the_run_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CorpusmillError, match=r"^train: 3 steps in a row had to be skipped; at step 6 the loss is nan\."):
        run(tmp_path, poisoned({4, 5, 6, 7}, float("nan")), max_skips=3)


def test_the_state_of_another_configuration_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(InputError, match="state of another configuration"):
        run(tmp_path, clip=0.5)


def test_a_log_that_was_cut_inside_a_line_is_mended(tmp_path: Path) -> None:
    run(tmp_path)
    whole = (tmp_path / "train.jsonl").read_bytes()
    (tmp_path / "train.jsonl").write_bytes(whole + b'{"step": 12, "lo')
    run(tmp_path)
    assert (tmp_path / "train.jsonl").read_bytes() == whole
    shutil.rmtree(tmp_path / "state")
    run(tmp_path)
    assert (tmp_path / "train.jsonl").read_bytes() == whole
