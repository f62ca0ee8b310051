"""Tests the loop: batches made ahead in a thread, spikes, exact resume, skipped steps and the log."""

import json
import math
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from objectives import Goal
from parallel_runs import Case, Rows, in_float64
from parallel_runs import fresh as random_model

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.train.data import DataShare
from corpusmill.train.loop import ENOUGH, LOSS_FLOOR, WINDOW, FitResult, Prefetcher, fit, refusal
from corpusmill.train.model import Llama, Objective, RMSNorm, StepLoss, initialise
from corpusmill.train.options import Architecture, LoopConfig

# ---- ahead -------------------------------------------------------------------------------------------

ALONE = DataShare()


class Numbers(Objective):
    """Batches that are their own numbers, `counts` of them in each step."""

    def __init__(self, counts: list[int], broken: int = -1):
        self.counts, self.broken, self.made, self.threads = counts, broken, [], set()

    def batches(self, step: int, share: DataShare) -> Iterator[tuple[int, int, int]]:  # type: ignore[override]
        for number in range(self.counts[step]):
            if step == self.broken:
                raise KeyboardInterrupt
            self.threads.add(threading.current_thread().name)
            self.made.append((step, share.index, number))
            yield step, share.index, number


@settings(deadline=None, max_examples=60)
@given(counts=st.lists(st.integers(0, 4), min_size=1, max_size=6), first=st.integers(0, 5))
def test_all_batches_in_turn_from_any_step_on_and_none_beyond_the_last(counts: list[int], first: int) -> None:
    plain = Numbers(counts)
    with Prefetcher(Numbers(counts), len(counts)) as ahead:
        for step in range(min(first, len(counts) - 1), len(counts)):
            assert list(ahead.batches(step, ALONE)) == list(plain.batches(step, ALONE))
        assert ahead.objective.made == plain.made  # type: ignore[attr-defined]


def test_the_next_batch_is_made_while_one_is_computed() -> None:
    numbers = Numbers([1, 1, 1])
    with Prefetcher(numbers, 3) as ahead:
        for step in range(2):
            assert list(ahead.batches(step, ALONE)) == [(step, 0, 0)]
            deadline = time.monotonic() + 120
            while (step + 1, 0, 0) not in numbers.made:
                assert time.monotonic() < deadline
                time.sleep(0.001)
    assert threading.current_thread().name not in numbers.threads and len(numbers.threads) == 1


def test_what_fails_in_the_thread_is_raised_at_its_own_step() -> None:
    with Prefetcher(Numbers([2, 2, 2], broken=1), 3) as ahead:
        assert len(list(ahead.batches(0, ALONE))) == 2
        with pytest.raises(KeyboardInterrupt):
            list(ahead.batches(1, ALONE))


# ---- guard -------------------------------------------------------------------------------------------

# What counts as a spike.


def judge(recent: list[float], value: float, name: str = "loss", threshold: float = 10.0, floor: float = 0.1) -> str | None:
    return refusal(value, name, recent, threshold, floor)


NORMAL = [4.0 + 0.1 * math.sin(i) for i in range(100)]


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_value_that_is_not_finite_is_refused_and_poisons_nothing(value: float) -> None:
    recent = NORMAL[-WINDOW:]
    for _ in range(200):
        assert judge(recent, value) == f"loss is {value}"
    assert judge(recent, 4.1) is None and judge(recent, 9.0) is not None


def test_a_spike_says_how_far_it_is_above() -> None:
    assert judge(NORMAL[-WINDOW:], 12.0) == "loss 12 is a spike (20.0 deviations above 4)"
    assert judge(NORMAL[-WINDOW:], 5.0) is None and judge(NORMAL[-WINDOW:], 0.1) is None


def test_a_lasting_change_of_level_is_accepted_in_the_end() -> None:
    recent = NORMAL[-WINDOW:]
    assert [judge(recent, 12.0) is None for _ in range(100)][-1] and len(recent) == WINDOW


def test_even_values_few_values_and_no_threshold_never_count() -> None:
    assert judge([4.0] * 50, 4.5) is None
    assert judge([4.0] * 19, 1e9) is None
    assert judge([4.0] * 50, 1e9, threshold=0) is None
    assert judge([0.0] * 50, 0.0) is None


def test_a_loss_that_falls_fast_gives_no_alarm_and_hides_no_spike() -> None:
    """The losses of tinyshakespeare's first steps (4 layers, width 128, Muon) fall about like this: from 4.17 to 2.1 at step 80."""
    generator, recent = random.Random(0), list[float]()
    for step in range(300):
        loss = 1.7 + 2.47 * math.exp(-step / 45) + generator.gauss(0, 0.04)
        if step >= ENOUGH:
            assert judge(list(recent), 3 * loss, floor=LOSS_FLOOR) is not None, step
        assert judge(recent, loss, floor=LOSS_FLOOR) is None, step


@given(st.lists(st.floats(0.1, 10), min_size=WINDOW, max_size=WINDOW), st.lists(st.floats(0, 1e9), max_size=WINDOW // 5), st.randoms())
def test_outliers_hide_no_spike(values: list[float], outliers: list[float], generator: random.Random) -> None:
    """A fifth of the window is arbitrary, and a value 10 deviations above the largest possible measure is still found."""
    mixed = values[len(outliers) :] + outliers
    generator.shuffle(mixed)
    assert judge(mixed, 10 + 10 * 1.05 * 9.9 + 1) is not None


# ---- loop --------------------------------------------------------------------------------------------

# The loop: exact resume, skipped steps, gradients per valid target.

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


def run(
    folder: Path, goal: Goal = OBJECTIVE, *, model: Llama | None = None, others: Sequence[Path] = (), **options: object
) -> tuple[Llama, FitResult]:
    model = model or fresh()
    config = LoopConfig.model_validate({"steps": 12, "save_every": 4, "warmup": 2, "threads": 1, "precision": "fp32", **options})
    return model, fit(
        model, goal, config, state=folder / "state", log=folder / "train.jsonl", evaluate=lambda c, done: {"seen": 1.5}, evaluate_every=5,
        others=[Storage(str(other / "state")) for other in others],
    )  # fmt: skip


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def test_the_mean_over_all_targets_is_followed_and_clipped_as_torch_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an eps of 1e9 Adam takes a plain step of size 1, whose change of the weights is the gradient."""
    monkeypatch.setattr(RMSNorm, "forward", in_float64)
    plain = {"kind": "adamw", "betas": (0.0, 0.0), "eps": 1e9, "lr": 1e9, "weight_decay": 0}
    case = Case(loop={"steps": 1, "warmup": 0, "clip": 0.05, "threads": 1, "optimizer": plain}, micro=3)
    moved, expected = random_model(case), random_model(case)
    objective = Rows(case, moved.arch)
    ids, targets, _ = objective.rows(0)
    logits = expected(ids)
    nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    nats.backward()
    norm = float(torch.nn.utils.clip_grad_norm_(expected.parameters(), case.config.clip))
    fit(moved, objective, case.config, state=tmp_path / "state", log=tmp_path / "train.jsonl")
    (line,) = lines(tmp_path)
    assert line["loss"] == pytest.approx(nats.item(), rel=1e-12) and line["grad_norm"] == pytest.approx(norm, rel=1e-12)
    assert norm > 2 * case.config.clip
    for after, before in zip(moved.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close((before - after).detach(), before.grad, rtol=1e-6, atol=1e-9)


class Killed(BaseException):
    """As abrupt as a signal: nothing in the loop may catch it."""


def test_killed_at_any_step_and_resumed_gives_the_same_bits(tmp_path: Path) -> None:
    options = {"optimizer": {"kind": "muon"}}
    whole, result = run(tmp_path / "whole", **options)
    for kill in (0, 4, 6, 11):
        folder = tmp_path / f"killed-{kill}"

        def dying(model: Llama, step: int, kill: int = kill) -> StepLoss:
            if step == kill:
                raise Killed
            return right_loss(model, step)

        with pytest.raises(Killed):
            run(folder, goal_of(dying), **options)
        again, resumed = run(folder, **options)
        assert resumed.resumed_from == max(step for step in (0, 4, 5, 8) if step <= kill)  # at 5 the rate begins to fall
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters())), kill
        assert (folder / "train.jsonl").read_bytes() == (tmp_path / "whole" / "train.jsonl").read_bytes()
        assert (resumed.loss, resumed.count, resumed.skipped) == (result.loss, result.count, 0)
    state = "state/step-00000012"
    for name in ("shard-00000-of-00001.safetensors", "state.json"):
        assert (tmp_path / "whole" / state / name).read_bytes() == (tmp_path / "killed-6" / state / name).read_bytes()


def test_states_that_a_kill_left_are_removed_though_no_other_is_saved(tmp_path: Path) -> None:
    """The kill came after the last state was written and before the older ones were removed."""
    run(tmp_path, keep=5)
    assert saved_steps(tmp_path) == [4, 5, 8, 12]
    run(tmp_path)
    assert saved_steps(tmp_path) == [5, 8, 12]


def saved_steps(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (folder / "state").iterdir())


@pytest.mark.parametrize("first", [{"steps": 20}, {"steps": 20, "schedule": "constant"}])
def test_another_plan_goes_on_from_the_plateau_with_the_bits_of_a_training_from_scratch(tmp_path: Path, first: dict) -> None:
    """The default `wsd` of 20 steps falls from step 8 on."""
    longer = {"steps": 30, "decay_fraction": 0.3, "decay": "1-sqrt", "min_lr": 0.1}
    run(tmp_path / "first", **first)
    assert saved_steps(tmp_path / "first") == ([16, 20] if "schedule" in first else [8, 16, 20])
    wanted, scratch = run(tmp_path / "scratch", **longer)
    branch, result = run(tmp_path / "branch", others=[tmp_path / "first"], **longer)
    begin = 20 if "schedule" in first else 8
    assert result.resumed_from == begin and scratch.resumed_from == 0
    assert all(torch.equal(a, b) for a, b in zip(wanted.parameters(), branch.parameters()))
    named = lines(tmp_path / "branch")[0]
    assert (
        named.pop("branched_from") == f"first/step-{begin:08d}"
        and [named, *lines(tmp_path / "branch")[1:]] == (lines(tmp_path / "scratch")[begin:])
    )
    run(tmp_path / "branch", others=[tmp_path / "first"], **longer, keep=1)  # its own states come first
    assert saved_steps(tmp_path / "branch") == [21, 30]


def test_after_the_fall_and_with_other_options_no_state_is_taken_over(tmp_path: Path) -> None:
    run(tmp_path / "first", steps=20)
    shutil.rmtree(tmp_path / "first" / "state" / "step-00000008")
    for changes in ({"steps": 30}, {"steps": 20, "clip": 0.5}):
        _, result = run(tmp_path / json.dumps(changes), others=[tmp_path / "first"], **changes)
        assert result.resumed_from == 0


def test_lines_hold_loss_rate_norm_metrics_and_evaluations(tmp_path: Path) -> None:
    run(tmp_path)
    log = lines(tmp_path)
    assert [line["step"] for line in log] == list(range(12))
    assert log[0]["loss"] == pytest.approx(torch.tensor(31.0).log().item()) and log[0]["count"] == 72
    assert [line["step"] for line in log if "seen" in line] == [4, 9, 11] and 0 <= log[3]["right"] <= 1


def poisoned(steps: set[int], factor: float) -> Goal:
    def goal(model: Llama, step: int) -> StepLoss:
        part = right_loss(model, step)
        return StepLoss(part.total * factor, part.count, part.metrics) if step in steps else part

    return goal_of(goal)


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
    with pytest.raises(InputError, match=r"step-00000012: holds the state of another configuration \(.*clip was 1\.0 and is 0\.5\)"):
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
