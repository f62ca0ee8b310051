"""Tests pipelines: the cut into stages, refusals, and every schedule against one process in float64."""

from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from parallel_runs import Case, Rows, alone, check_equal, fresh, run
from ranks import run_ranks

from corpusmill.pipeline.errors import InputError
from corpusmill.train.options import Architecture, LoopConfig, ParallelConfig
from corpusmill.train.parallel import ParallelDims
from corpusmill.train.parallel.model import prepare
from corpusmill.train.parallel.pipeline import cut, split_layers

# ---- split -------------------------------------------------------------------------------------------


@given(layers=st.integers(1, 10), stages=st.integers(1, 5), vocab=st.integers(1, 600))
def test_no_other_split_has_a_cheaper_dearest_stage(layers: int, stages: int, vocab: int) -> None:
    arch = Architecture(vocab_size=vocab, layers=layers, width=16, heads=4, kv_heads=2, head_dim=4, ffn=24, context=16)
    if layers < stages:
        with pytest.raises(InputError, match=f"^parallel.pipeline: {stages} stages need as many layers, and the model has {layers}.$"):
            split_layers(arch, stages)
        return
    layer = 16 * 4 * (4 + 4 + 2 + 2) + 3 * 16 * 24  # q, o, k, v; gate, up, down

    def dearest(ends: list[int]) -> float:
        costs = [layer * (end - begin) for begin, end in zip([0, *ends], ends)]
        costs[0] += vocab * 16 / 3
        costs[-1] += vocab * 16
        return max(costs)

    found = split_layers(arch, stages)
    assert [n for part in found for n in part] == list(range(layers)) and all(found)
    assert dearest([part.stop for part in found]) == min(dearest([*c, layers]) for c in combinations(range(1, layers), stages - 1))


@pytest.mark.parametrize(
    ("arch", "loop", "sentence"),
    [
        ({"tied": True}, {}, "a head that is tied to the embedding can't be on another stage"),
        ({"layers": 3}, {}, "4 stages need as many layers, and the model has 3"),
        ({"layers": 4}, {"compile": True}, "loop.compile: a zero-bubble schedule computes a backward pass in two halves"),
    ],
)
def test_what_a_pipeline_cannot_do_is_one_sentence(arch: dict[str, Any], loop: dict[str, Any], sentence: str) -> None:
    case = Case(parallel={"pipeline": 2, "schedule": "zero-bubble"}, arch=arch, loop=loop)
    dims = ParallelDims(ParallelConfig.model_validate(case.parallel), torch.device("cpu"))
    with pytest.raises(InputError, match=sentence):
        cut(fresh(case), dims, case.config)


# ---- pipeline ----------------------------------------------------------------------------------------

# A model whose layers are on two or four ranks, under every schedule, compared with one process in float64.


def case(parallel: dict[str, Any], **changes: Any) -> Case:
    loop = {"optimizer": {"kind": "adamw"}, "clip": 0.1, "threads": 1}
    return Case(**{"parallel": parallel, "arch": {"layers": 4}, "micro": 2, "documents": True, "loop": loop} | changes)


def in_fp32(precision: str) -> dict[str, Any]:
    """The same sums in the same order: equal to the last bit."""
    return {"dtype": torch.float32, "loop": {"optimizer": {"kind": "adamw"}, "clip": 0.1, "threads": 1, "precision": precision}}


CASES = {
    "1f1b, Muon": case({"pipeline": 2}, loop={"optimizer": {"kind": "muon"}}),
    "interleaved, unequal layers, some logits": case(
        {"pipeline": 2, "schedule": "interleaved"}, arch={"layers": 5}, documents=False, logits=300
    ),
    "zero-bubble": case({"pipeline": 2, "schedule": "zero-bubble"}, micro=1),
    "zero-bubble, some logits": case({"pipeline": 2, "schedule": "zero-bubble"}, micro=1, logits=300),
    "bf16-params": case({"pipeline": 2}, **in_fp32("bf16-params")),
    "zero-bubble, adapters": case({"pipeline": 2, "schedule": "zero-bubble"}, lora={"rank": 3, "alpha": 6}),
    "again": case({"pipeline": 2, "schedule": "zero-bubble"}, micro=1),
}
MUON = {"optimizer": {"kind": "muon"}, "clip": 0.1, "threads": 1}
SHARDS, TENSOR = {"pipeline": 2, "shard": 2}, {"pipeline": 2, "tensor": 2, "schedule": "zero-bubble"}
FOUR = {
    "shards interleaved": case({**SHARDS, "schedule": "interleaved", "zero": 1}, micro=1),
    "shards zero-bubble muon": case({**SHARDS, "schedule": "zero-bubble"}, micro=1, loop=MUON),
    "tensor zero-bubble, norms of queries and keys": case(TENSOR, arch={"layers": 4, "qk_norm": True}),
    "copies 1f1b, NaN in one micro-batch": case({"pipeline": 2, "replicate": 2}, micro=1, poison=2),
}
EIGHT = {
    "shards tensor 1f1b muon": case({**SHARDS, "tensor": 2}, micro=1, loop=MUON, arch={"layers": 2}),
    "copies shards interleaved": case({**SHARDS, "replicate": 2, "schedule": "interleaved"}, micro=1),
}
GROUPS = {2: CASES, 4: FOUR, 8: EIGHT}


@cache
def found(processes: int) -> dict[str, dict[str, Any]]:
    """Runs all cases of a number of processes in the same ones."""
    return dict(zip(GROUPS[processes], run(*GROUPS[processes].values())))


@cache
def on_one(processes: int) -> dict[str, dict[str, Any]]:
    """Returns the results of one process: in 16 bits with the same micro-batches, for the same bits."""
    cases = GROUPS[processes]
    exact = {name: each for name, each in cases.items() if each.dtype == torch.float64}
    rounded = {name: replace(each, parallel={}) for name, each in cases.items() if name not in exact}
    return dict(zip(exact, alone(*exact.values()))) | (dict(zip(rounded, run(*rounded.values()))) if rounded else {})


def named(processes: int, *marks: Any) -> list[Any]:
    return [pytest.param(processes, name, marks=marks) for name in GROUPS[processes]]


@pytest.mark.parametrize(("processes", "name"), [*named(2), *named(4, pytest.mark.long), *named(8, pytest.mark.long)])
def test_every_schedule_equals_one_process(processes: int, name: str) -> None:
    one = on_one(processes)[name]
    assert max(line["grad_norm"] for line in one["lines"] if "skipped" not in line) > 0.1  # so that gradients are really clipped
    assert one["skipped"] == (GROUPS[processes][name].poison >= 0)
    check_equal(found(processes)[name], one)


def test_another_run_gives_the_same_bits() -> None:
    first, second = found(2)["zero-bubble"], found(2)["again"]
    assert first["lines"] == second["lines"] and torch.equal(first["sums"], second["sums"])
    assert all(torch.equal(tensor, second["weights"][key]) for key, tensor in first["weights"].items())


def refusals() -> list[str]:
    """Returns the errors of a pipeline of two for steps that it can't take."""

    def refusal(schedule: str, micro: int, rows: int = 8) -> str:
        config = ParallelConfig.model_validate({"pipeline": 2, "schedule": schedule})
        step = case({}, micro=micro, rows=rows)
        model = fresh(step)
        parallel_model = prepare(model, ParallelDims.distributed(config, torch.device("cpu")), LoopConfig())
        with pytest.raises(InputError) as caught:
            parallel_model.backward(Rows(step, model.arch), 0)
        return str(caught.value)

    said = [refusal("1f1b", 8), refusal("zero-bubble", 1, rows=7), refusal("1f1b", 3)]
    dist.barrier()
    return said


def test_steps_that_a_pipeline_cannot_take_are_refused_in_a_sentence() -> None:
    for few, odd, uneven in run_ranks(refusals, 2):
        begin = "micro_batch: a step has {} micro-batches on each copy of the model, and the schedule {} on 2 ranks needs {}."
        assert few == begin.format(1, "'1f1b'", "2 or more") and odd == begin.format(7, "'zero-bubble'", "a multiple of 2")
        assert uneven == "micro_batch: the micro-batches of a pipeline must have equally many rows, so it has to divide a rank's rows."
