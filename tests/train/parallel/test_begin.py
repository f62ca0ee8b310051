"""What is refused before anything starts, and models that are laid out before they have weights."""

from typing import Any

import pytest
import torch
from parallel_runs import SHAPE
from pydantic import ValidationError
from ranks import run_ranks
from small_models import new_model

from corpusmill.train.architecture import Architecture
from corpusmill.train.model import blank_model
from corpusmill.train.options import LoopConfig, ParallelConfig
from corpusmill.train.parallel.layout import ParallelDims
from corpusmill.train.parallel.prepare import prepare
from corpusmill.train.parallel.spread import whole
from corpusmill.train.pretrain import PretrainConfig

LAYOUTS: list[dict[str, Any]] = [
    {"replicate": 4},
    {"shard": 4},
    {"shard": 4, "zero": 1},
    {"tensor": 4},
    {"replicate": 2, "shard": 2},
    {"shard": 2, "tensor": 2},
    {"replicate": 2, "tensor": 2},
    {"pipeline": 2, "shard": 2},
    {"pipeline": 2, "tensor": 2},
]


def begun(sizes: list[dict[str, Any]], arch: Architecture) -> list[dict[str, torch.Tensor]]:
    """A rank's weights on each layout, made whole."""
    found = []
    for parallel in sizes:
        dims = ParallelDims.distributed(ParallelConfig(**parallel), torch.device("cpu"))
        parallel_model = prepare(blank_model(arch), dims, LoopConfig(), seed=5)
        found.append({name: whole(p.detach()) for name, p in parallel_model.parameters.items()})
    return found


@pytest.mark.parametrize("tied", [False, True])
def test_every_layout_begins_with_the_weights_of_one_process(tied: bool) -> None:
    arch = Architecture.model_validate({**SHAPE, "kv_heads": 4, "vocab_size": 51, "qk_norm": True, "tied": tied})
    expected = {name: p.detach() for name, p in new_model(arch, 5).named_parameters()}
    layouts = [sizes for sizes in LAYOUTS if not (tied and "pipeline" in sizes)]
    for results in zip(*run_ranks(begun, 4, layouts, arch)):
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
