"""Compares models that are copied, sharded or spread over a tensor group with one process in float64; refuses what has no equal shares."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from parallel_runs import SHAPE, Case, Rows, alone, check_close, check_equal, fresh, run, whole
from pydantic import ValidationError
from ranks import run_ranks
from small_models import new_model

from corpusmill.train.checkpoint import save_model
from corpusmill.train.data import Batch, DataShare
from corpusmill.train.loop import fit
from corpusmill.train.model import blank_model
from corpusmill.train.options import Architecture, LoopConfig, ParallelConfig
from corpusmill.train.parallel import ParallelDims, local_of
from corpusmill.train.parallel.model import optimizer_of, prepare
from corpusmill.train.pretrain import PretrainConfig

ADAMW, MUON = {"optimizer": {"kind": "adamw"}}, {"optimizer": {"kind": "muon"}}
FULL, LORA = {"qk_norm": True, "tied": True}, {"rank": 3, "alpha": 6}
TWO = {
    "copies, Muon, documents, micro-batches": Case({"replicate": 2}, loop=MUON, micro=2, documents=True),
    "ZeRO-1, Muon, tied, micro-batches": Case({"shard": 2, "zero": 1}, loop=MUON, arch={"tied": True}, micro=3),
    "ZeRO-2, Muon, an odd count of unequal shards, micro-batches, documents": Case(
        {"shard": 2, "zero": 2}, loop=MUON, arch={"layers": 3, "ffn": 41}, micro=1, documents=True
    ),
    "ZeRO-3, AdamW, vocabulary that 2 does not divide, layers computed again, NaN on one rank": Case(
        {"shard": 2}, loop={**ADAMW, "checkpointing": True}, arch={"vocab_size": 51}, poison=1
    ),
    "tensor, Muon, QK-norm, tied, odd vocabulary, micro-batches, layers and logits computed again, NaN": Case(
        {"tensor": 2},
        loop={**MUON, "checkpointing": True},
        arch={**FULL, "vocab_size": 51},
        micro=4,
        documents=True,
        poison=1,
        logits=2 * 16 * 51,
    ),
    "ZeRO-3, adapters": Case({"shard": 2}, loop=ADAMW, lora=LORA, micro=2, documents=True),
}
FOUR = {"copies of shards, AdamW, micro-batches": Case({"replicate": 2, "shard": 2}, loop=ADAMW, micro=1)}
MORE = {
    "tensor, a head for each of four": Case({"tensor": 4}, loop=MUON, arch={"kv_heads": 4}),
    "shards, tensor, Muon, micro-batches": Case({"shard": 2, "tensor": 2}, loop=MUON, arch=FULL, documents=True, micro=2),
    "copies, tensor, Muon, NaN on one": Case({"replicate": 2, "tensor": 2}, loop=MUON, arch={"qk_norm": True}, poison=1),
}
TENSOR = {"tensor, adapters": Case({"tensor": 2}, loop=ADAMW, lora=LORA, micro=2, documents=True)}
THREE = {"rows that three ranks share": Case({"shard": 3}, loop=MUON, rows=9, micro=2, documents=True)}
GROUPS = [TWO, FOUR, MORE, THREE, TENSOR]


@cache
def results(group: int) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Runs all cases of a group in the same processes, which are warm then, and each on one process."""
    cases = GROUPS[group]
    return dict(zip(cases, zip(run(*cases.values()), alone(*cases.values()))))


def named(group: int, *marks: Any) -> list[Any]:
    return [pytest.param(group, name, marks=marks) for name in GROUPS[group]]


@pytest.mark.parametrize(("group", "name"), [case for number in range(5) for case in named(number, *[pytest.mark.long] * (number > 1))])
def test_loss_gradients_and_steps_equal_one_process(group: int, name: str) -> None:
    case, (many, one) = GROUPS[group][name], results(group)[name]
    assert one["lines"][0]["grad_norm"] > case.config.clip  # so gradients are really clipped
    assert all(".lora_" in weight for weight in one["weights"]) == bool(case.lora)
    assert one["skipped"] == (case.poison >= 0)
    check_equal(many, one)


def test_other_processes_give_the_same_bits() -> None:
    name = "copies, Muon, documents, micro-batches"
    (first, _), (second,) = results(0)[name], run(TWO[name])
    assert first["lines"] == second["lines"] and first["norm"] == second["norm"]
    assert all(torch.equal(tensor, second["weights"][key]) for key, tensor in first["weights"].items())


class Stopped(BaseException):
    """Ends a training as abruptly as a signal."""


def straight_and_stopped(case: Case, folder: Path) -> list[dict[str, torch.Tensor]]:
    """Returns the weights of a whole training, and of one that ends after its fourth step and resumes from the state after its third."""

    class UntilFour(Rows):
        def batches(self, step: int, share: DataShare) -> Iterator[Batch]:
            if step == 4:
                raise Stopped
            return super().batches(step, share)

    dims = ParallelDims.distributed(ParallelConfig(**case.parallel), torch.device("cpu"))
    found = []
    for kind, place, begin in ((Rows, "straight", 0), (UntilFour, "stopped", None), (Rows, "stopped", 3)):
        model = fresh(case)
        with suppress(Stopped):
            files = {"state": folder / place / "state", "log": folder / place / "log.jsonl"}
            result = fit(model, kind(case, model.arch), case.config, dims=dims, **files)
            assert result.resumed_from == begin
            found.append({name: whole(p.detach()) for name, p in result.parallel_model.parameters.items()})
    return found


def test_a_run_that_was_stopped_has_the_bits_of_one_that_was_not(tmp_path: Path) -> None:
    """With four copies, the order of a sum depends on its place in DDP's buckets, which change after the first backward pass."""
    case = Case({"replicate": 4}, loop={**ADAMW, "steps": 5, "save_every": 3, "async_save": False}, dtype=torch.float32, arch={"layers": 6})
    for straight, resumed in run_ranks(straight_and_stopped, 4, case, tmp_path):
        assert all(torch.equal(resumed[name], expected) for name, expected in straight.items())


@pytest.mark.parametrize(("kind", "tolerance"), [("shard", 0.03), pytest.param("tensor", 0.05, marks=pytest.mark.long)])
def test_lower_precision_stays_as_close_as_its_rounding(kind: str, tolerance: float) -> None:
    case = Case({kind: 2}, loop={**ADAMW, "precision": "bf16-params"}, dtype=torch.float32, micro=2)
    check_close(run(case)[0], run(replace(case, parallel={}))[0], tolerance)


def held(*cases: Case) -> list[dict[str, int]]:
    """Returns how many numbers a rank has of weights, gradients and moments, by case."""
    found = []
    for case in cases:
        dims = ParallelDims.distributed(ParallelConfig(**case.parallel), torch.device("cpu"))
        model = fresh(case)
        parallel_model = prepare(model, dims, case.config)
        optimizer = optimizer_of(parallel_model, case.config.optimizer)
        parallel_model.backward(Rows(case, model.arch), 0)
        weights = [local_of(p).numel() for p in parallel_model.parameters.values()]
        grads = [local_of(p.grad).numel() for p in parallel_model.parameters.values() if p.grad is not None]
        moments = [local_of(t).numel() for name, t in optimizer.state().items() if name.endswith("exp_avg")]
        found.append({"weights": sum(weights), "grads": sum(grads), "moments": sum(moments)})
    return found


def test_ranks_have_a_share_of_what_is_shared() -> None:
    every = sum(p.numel() for p in fresh(Case()).parameters())
    ranks = run_ranks(held, 2, *(Case({"shard": 2, "zero": zero}, loop=ADAMW) for zero in (1, 2, 3)))
    for shared, parts in zip((["moments"], ["weights", "grads", "moments"], ["weights", "grads", "moments"]), zip(*ranks)):
        for kind in ("weights", "grads", "moments"):
            assert sum(part[kind] for part in parts) == (every if kind in shared else 2 * every)
            if kind in shared:
                assert max(part[kind] for part in parts) < 0.55 * every


def odd_length(case: Case) -> torch.Tensor:
    dims = ParallelDims.distributed(ParallelConfig(**case.parallel), torch.device("cpu"))
    ids = torch.arange(22).reshape(2, 11)
    parallel_model = prepare(fresh(case), dims, case.config)
    nats = parallel_model.nats(ids, ids + 1, torch.tensor([[0] * 4 + [1] * 7, [2] * 11]))
    return nats if dims.rank == 0 else torch.tensor([local_of(p).numel() for p in parallel_model.parameters.values()])


def test_evaluation_takes_rows_that_the_ranks_do_not_divide_and_weights_are_halved() -> None:
    sizes_of_one = [p.numel() for p in fresh(Case()).parameters() if p.dim() == 2]
    nats, sizes = run_ranks(odd_length, 2, Case({"tensor": 2}))
    (expected,) = run_ranks(odd_length, 1, Case())
    torch.testing.assert_close(nats, expected, rtol=1e-10, atol=1e-12)
    assert sorted(sizes.tolist())[-len(sizes_of_one) :] == sorted(size // 2 for size in sizes_of_one)


LAYOUTS: list[tuple[bool, dict[str, Any]]] = [
    (False, {"shard": 2, "tensor": 2}),
    (False, {"pipeline": 2, "shard": 2}),
    (True, {"tensor": 4}),
]


def arch(tied: bool) -> Architecture:
    return Architecture.model_validate({**SHAPE, "kv_heads": 4, "vocab_size": 51, "qk_norm": True, "tied": tied})


def begun(folder: Path) -> list[dict[str, torch.Tensor]]:
    """Returns a rank's weights on each layout, gathered: initial ones, and those of a model folder."""
    found = []
    for tied, parallel in LAYOUTS:
        dims = ParallelDims.distributed(ParallelConfig(**parallel), torch.device("cpu"))
        for start in (5, folder / str(tied)):
            parallel_model = prepare(blank_model(arch(tied)), dims, LoopConfig(), start)
            found.append({name: whole(p.detach()) for name, p in parallel_model.parameters.items()})
    return found


def test_every_layout_begins_with_the_weights_of_one_process(tmp_path: Path) -> None:
    given = {tied: new_model(arch(tied), 6) for tied in (False, True)}
    for tied, model in given.items():
        save_model(model, tmp_path / str(tied))
    wanted = [model for tied, _ in LAYOUTS for model in (new_model(arch(tied), 5), given[tied])]
    for model, results in zip(wanted, zip(*run_ranks(begun, 4, tmp_path)), strict=True):
        expected = {name: p.detach() for name, p in model.named_parameters()}
        assert set().union(*results) == set(expected)
        for weights in results:
            assert all(torch.equal(values, expected[name]) for name, values in weights.items())


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"parallel": {"tensor": 3}}, "the model's ffn 512 can't be shared out by 3 tensor ranks evenly"),
        ({"parallel": {"replicate": 2, "shard": 3}}, r"a batch of 16 rows can't be shared out by 6 ranks \(replicate x shard\) evenly"),
    ],
)  # fmt: skip
def test_what_ranks_cannot_share_out_is_one_sentence(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        PretrainConfig.model_validate(config)
