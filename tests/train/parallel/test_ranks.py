"""The harness of the parallel tests: results by rank, errors with their rank, and an end for what would hang."""

import os
import time

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks

from corpusmill.pipeline.errors import InputError


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
    time.sleep(60)


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
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"ranks \[0, 1\] of 2 did not end in 2 seconds"):
        run_ranks(hangs, 2, timeout=2)
    assert time.monotonic() - started < 20
