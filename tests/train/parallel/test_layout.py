"""Which process has which part."""

import pytest
import torch
from ranks import run_ranks

from corpusmill.pipeline.errors import InputError
from corpusmill.train.options import ParallelConfig
from corpusmill.train.parallel.layout import ParallelDims

CPU = torch.device("cpu")


def describe(sizes: dict[str, int]) -> tuple:
    dims = ParallelDims.distributed(ParallelConfig(**sizes), CPU)
    dims.barrier()
    mesh = dims.submesh("replicate", "shard")
    return dims.rank, dims.kinds, dims.share.index, dims.share.of, dims.index("tensor"), mesh and mesh.mesh.tolist()


def test_tensor_ranks_are_neighbours_and_see_the_same_rows() -> None:
    found = run_ranks(describe, 4, {"shard": 2, "tensor": 2})
    assert [entry[:5] for entry in found] == [(rank, ("shard", "tensor"), rank // 2, 2, rank % 2) for rank in range(4)]
    assert [entry[5] for entry in found] == [[0, 2], [1, 3], [0, 2], [1, 3]]


def test_rows_are_shared_by_copies_and_shards() -> None:
    found = run_ranks(describe, 4, {"replicate": 2, "shard": 2})
    assert [entry[2:4] for entry in found] == [(rank, 4) for rank in range(4)]
    assert found[0][5] == [[0, 1], [2, 3]]


def test_stages_of_a_pipeline_see_the_same_rows() -> None:
    found = run_ranks(describe, 4, {"pipeline": 2, "shard": 2})
    assert [entry[2:4] for entry in found] == [(0, 2), (1, 2), (0, 2), (1, 2)]


def test_another_number_of_processes_is_one_sentence() -> None:
    with pytest.raises(InputError, match="shard 3, tensor 1.* needs 3 processes, but 2 were started"):
        run_ranks(describe, 2, {"shard": 3})


def test_one_process_has_all() -> None:
    dims = ParallelDims.single(CPU)
    dims.barrier()
    assert (dims.share.index, dims.share.of, dims.is_main, dims.kinds, dims.submesh("shard")) == (0, 1, True, (), None)
