"""The score of held-out text is the same for any number of processes, however they share the model and the rows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from parallel_runs import SHAPE, Case, fresh, in_float64
from ranks import run_ranks
from token_sets import write_token_set

from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.train.model import RMSNorm
from corpusmill.train.options import ParallelConfig
from corpusmill.train.parallel.layout import Layout
from corpusmill.train.parallel.prepare import prepare
from corpusmill.train.validation import Sums, Validation

TWO = [{"replicate": 2}, {"shard": 2}, {"shard": 2, "zero": 2}, {"tensor": 2}, {"pipeline": 2}]
FOUR = [{"replicate": 2, "pipeline": 2}, {"shard": 2, "tensor": 2}]
CPU = torch.device("cpu")


def measured(folder: str, layouts: list[dict]) -> list[Sums]:
    """The sums of whole evaluations and glances on each layout."""
    RMSNorm.forward = in_float64  # type: ignore[method-assign]
    found = []
    for parallel in layouts:
        layout = Layout.distributed(ParallelConfig.model_validate(parallel), CPU) if parallel else Layout.single(CPU)
        case = Case(parallel)
        computation = prepare(fresh(case), layout, case.config)
        sizes = np.minimum(np.arange(SHAPE["vocab_size"]), 3)
        validation = Validation(TokenShards(folder), sizes, int(SHAPE["context"]), document_mask=True)
        found += [validation.sums(computation, CPU, layout.share, windows, batch=4) for windows in (0, 5)]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    generator, found = np.random.default_rng(0), tmp_path_factory.mktemp("validation")
    documents = [[*generator.integers(1, SHAPE["vocab_size"], generator.integers(0, 40)).tolist(), 0] for _ in range(20)]
    write_token_set(found, [documents[:9], documents[9:]], vocabulary_size=int(SHAPE["vocab_size"]))
    return str(found)


@pytest.mark.parametrize("world, layouts", [(2, TWO), (4, FOUR)])
def test_any_layout_gives_the_sums_of_one_process_and_all_its_ranks_the_same_bits(folder: str, world: int, layouts: list[dict]) -> None:
    alone = run_ranks(measured, 1, folder, [{}])[0]
    ranks = run_ranks(measured, world, folder, layouts)
    for number, parallel in enumerate(layouts):
        for kind, expected in enumerate(alone):
            found = [rank[2 * number + kind] for rank in ranks]
            for name in ("nats", "tokens", "sizes"):
                first = getattr(found[0], name)
                assert np.allclose(first, getattr(expected, name), rtol=1e-10, atol=0), (parallel, name)
                assert all(np.array_equal(first, getattr(other, name)) for other in found[1:])
    assert Path(folder).is_dir() and alone[0].sizes.sum() > alone[1].sizes.sum() > 0
