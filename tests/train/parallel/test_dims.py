"""Tests which process has which part."""

import os
import time
from typing import Any

import pytest
import torch
import torch.distributed as dist
from parallel_runs import SHAPE
from pydantic import ValidationError
from ranks import run_ranks
from small_models import new_model

from corpusmill.pipeline.errors import InputError
from corpusmill.train.model import blank_model
from corpusmill.train.options import Architecture, LoopConfig, ParallelConfig
from corpusmill.train.parallel.data import whole
from corpusmill.train.parallel.dims import ParallelDims
from corpusmill.train.parallel.model import prepare
from corpusmill.train.pretrain import PretrainConfig

# ---- layout ------------------------------------------------------------------------------------------

CPU = torch.device("cpu")


def describe(*layouts: dict[str, int]) -> list[tuple]:
    found = []
    for sizes in layouts:
        dims = ParallelDims.distributed(ParallelConfig(**sizes), CPU)
        dims.barrier()
        mesh = dims.submesh("replicate", "shard")
        found.append((dims.rank, dims.kinds, dims.share.index, dims.share.of, dims.index("tensor"), mesh and mesh.mesh.tolist()))
    return found


def test_ranks_and_rows_of_each_layout() -> None:
    layouts = {"shard": 2, "tensor": 2}, {"replicate": 2, "shard": 2}, {"pipeline": 2, "shard": 2}
    tensor, hybrid, pipeline = zip(*run_ranks(describe, 4, *layouts))
    assert [entry[:5] for entry in tensor] == [(rank, ("shard", "tensor"), rank // 2, 2, rank % 2) for rank in range(4)]
    assert [entry[5] for entry in tensor] == [[0, 2], [1, 3], [0, 2], [1, 3]]  # tensor ranks are neighbours and see the same rows
    assert [entry[2:4] for entry in hybrid] == [(rank, 4) for rank in range(4)]  # rows are shared by copies and shards
    assert hybrid[0][5] == [[0, 1], [2, 3]]
    assert [entry[2:4] for entry in pipeline] == [(0, 2), (1, 2), (0, 2), (1, 2)]  # stages of a pipeline see the same rows


def test_another_number_of_processes_is_one_sentence() -> None:
    with pytest.raises(InputError, match="shard 3, tensor 1.* needs 3 processes, but 2 were started"):
        run_ranks(describe, 2, {"shard": 3})


def test_one_process_has_all() -> None:
    dims = ParallelDims.single(CPU)
    dims.barrier()
    assert (dims.share.index, dims.share.of, dims.is_main, dims.kinds, dims.submesh("shard")) == (0, 1, True, (), None)


# ---- ranks -------------------------------------------------------------------------------------------

# The harness of the parallel tests: results by rank, errors with their rank, and an end for processes that hang.


def summed(value: float) -> tuple[int, torch.Tensor, int]:
    total = torch.tensor([value * (dist.get_rank() + 1)])
    dist.all_reduce(total)
    return dist.get_rank(), total, torch.get_num_threads()


def fails_on_one(rank: int) -> None:
    if dist.get_rank() == rank:
        raise InputError(f"only rank {rank} can't")
    dist.barrier()


def dies_on_one(rank: int) -> None:
    if dist.get_rank() == rank:
        os._exit(7)
    dist.barrier()


def hangs() -> None:
    time.sleep(600)


def test_results_come_by_rank() -> None:
    assert run_ranks(summed, 3, 1.5) == [(rank, torch.tensor([9.0]), 1) for rank in range(3)]


def test_the_error_of_a_rank_is_raised_with_its_trace_while_others_wait() -> None:
    with pytest.raises(InputError, match="only rank 1 can't") as caught:
        run_ranks(fails_on_one, 2, 1)
    assert "on rank 1" in caught.value.__notes__[0] and "in fails_on_one" in caught.value.__notes__[0]


def test_a_rank_that_dies_is_named() -> None:
    with pytest.raises(RuntimeError, match="rank 1 ended with 7 and no result"):
        run_ranks(dies_on_one, 2, 1)


def test_what_hangs_is_killed_in_time() -> None:
    with pytest.raises(TimeoutError, match=r"ranks \[0, 1\] of 2 did not end in 1 seconds"):
        run_ranks(hangs, 2, timeout=1)


# ---- begin -------------------------------------------------------------------------------------------

# Layouts refused before anything starts, and models that are distributed before they have weights.

LAYOUTS: list[tuple[bool, dict[str, Any]]] = [
    (False, {"shard": 4, "zero": 1}),
    (False, {"shard": 2, "tensor": 2}),
    (False, {"pipeline": 2, "shard": 2}),
    (False, {"pipeline": 2, "tensor": 2}),
    (True, {"tensor": 4}),
    (True, {"replicate": 2, "shard": 2}),
]


def arch(tied: bool) -> Architecture:
    return Architecture.model_validate({**SHAPE, "kv_heads": 4, "vocab_size": 51, "qk_norm": True, "tied": tied})


def begun() -> list[dict[str, torch.Tensor]]:
    """Returns a rank's weights on each layout, gathered."""
    found = []
    for tied, parallel in LAYOUTS:
        dims = ParallelDims.distributed(ParallelConfig(**parallel), torch.device("cpu"))
        parallel_model = prepare(blank_model(arch(tied)), dims, LoopConfig(), seed=5)
        found.append({name: whole(p.detach()) for name, p in parallel_model.parameters.items()})
    return found


def test_every_layout_begins_with_the_weights_of_one_process() -> None:
    for (tied, _), results in zip(LAYOUTS, zip(*run_ranks(begun, 4))):
        expected = {name: p.detach() for name, p in new_model(arch(tied), 5).named_parameters()}
        assert set().union(*results) == set(expected)
        for weights in results:
            assert all(torch.equal(values, expected[name]) for name, values in weights.items())


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"parallel": {"tensor": 4}}, "the model's heads 6 can't be shared out by 4 tensor ranks evenly"),
        ({"parallel": {"tensor": 2}}, "the model's kv_heads 3 can't be shared out by 2 tensor ranks evenly"),
        ({"parallel": {"tensor": 3}}, "the model's ffn 512 can't be shared out by 3 tensor ranks evenly"),
        ({"parallel": {"tensor": 2}, "model": {"preset": "0.8m", "context": 63}}, "the model's context 63 can't be shared out by 2 "),
        ({"parallel": {"replicate": 2, "shard": 3}}, r"a batch of 16 rows can't be shared out by 6 ranks \(replicate x shard\) evenly"),
    ],
)  # fmt: skip
def test_what_ranks_cannot_share_out_is_one_sentence(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        PretrainConfig.model_validate(config)
