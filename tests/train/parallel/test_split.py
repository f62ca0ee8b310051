"""Which layers are a stage, and whose it is."""

from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from parallel_runs import Case, Rows, fresh

from corpusmill.pipeline.errors import InputError
from corpusmill.train.architecture import Architecture
from corpusmill.train.options import ParallelConfig
from corpusmill.train.parallel.layout import ParallelDims
from corpusmill.train.parallel.split import cut, part, split_layers, stages_of


def placed(schedule: str, ranks: int) -> list[list[int]]:
    return stages_of(ParallelConfig.model_validate({"schedule": schedule, "pipeline": ranks}))


def test_stages_go_round_the_ranks_or_down_and_up_again() -> None:
    assert placed("gpipe", 3) == placed("1f1b", 3) == [[0], [1], [2]]
    assert placed("interleaved", 3) == placed("zero-bubble", 3) == [[0, 3], [1, 4], [2, 5]]
    assert placed("zero-bubble-v", 3) == [[0, 5], [1, 4], [2, 3]]


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


def test_parts_one_after_the_other_are_the_model_and_share_its_weights() -> None:
    case = Case(arch={"layers": 6}, documents=True)
    model = fresh(case)
    ids, _, segments = Rows(case, model.arch).rows(0)
    parts = [part(model, layers) for layers in split_layers(model.arch, 4)]
    names = [name for piece in parts for name, _ in piece.named_parameters()]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert all(weight is model.get_parameter(name) for piece in parts for name, weight in piece.named_parameters())
    hidden = ids
    for piece in parts:
        hidden = piece(hidden, segments)
    assert torch.equal(hidden, model(ids, segments))


@pytest.mark.parametrize(
    ("arch", "loop", "sentence"),
    [
        ({"tied": True}, {}, "a head that is tied to the embedding can't be on another stage"),
        ({"layers": 3}, {}, "4 stages need as many layers, and the model has 3"),
        ({"layers": 4}, {"compile": True}, "loop.compile: a zero-bubble schedule computes a backward pass in two halves"),
        ({"layers": 4}, {"precision": "bf16-params"}, "loop.precision: with bf16-params a zero-bubble schedule can't add up"),
    ],
)
def test_what_a_pipeline_cannot_do_is_one_sentence(arch: dict[str, Any], loop: dict[str, Any], sentence: str) -> None:
    case = Case(parallel={"pipeline": 2, "schedule": "zero-bubble"}, arch=arch, loop=loop)
    dims = ParallelDims(ParallelConfig.model_validate(case.parallel), torch.device("cpu"))
    with pytest.raises(InputError, match=sentence):
        cut(fresh(case), dims, case.config)
