"""A step that one rank alone finds dangerous is skipped by all, and leaves every weight and moment as it was."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from parallel_runs import SHAPE
from ranks import run_ranks

from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.train.architecture import Architecture
from corpusmill.train.loop import fit
from corpusmill.train.model import Llama, initialise
from corpusmill.train.objective import Share, StepLoss, TokenObjective
from corpusmill.train.options import LoopConfig, ParallelConfig
from corpusmill.train.parallel.layout import ParallelDims
from corpusmill.train.shards import local_of
from corpusmill.train.state import States

#: Steps before the poisoned ones: so many that the guards have something to judge by.
HEALTHY = 22
LAYOUTS: dict[str, dict[str, Any]] = {"copies": {"replicate": 2}, "shards": {"shard": 2}}


class Poisoned(TokenObjective):
    """Random rows; from step HEALTHY on those of the last share are bad, in `steps` steps."""

    def __init__(self, poison: str, steps: int):
        self.poison, self.steps = poison, steps

    def batches(self, step: int, share: Share) -> Iterator[Any]:
        ids = torch.randint(SHAPE["vocab_size"], (4, 17), generator=torch.Generator().manual_seed(step))
        begin, end = share.bounds(4)
        bad = HEALTHY <= step < HEALTHY + self.steps and share.index == share.of - 1
        targets = ids[begin:end, 1:].clone()
        if self.poison == "masked" and step >= HEALTHY:
            targets[:] = -100
        yield (ids[begin:end, :-1], targets, None), bad

    def loss(self, model: Llama, batch: Any) -> StepLoss:
        tokens, bad = batch
        part = super().loss(model, tokens)
        if bad and self.poison == "nan":
            return StepLoss(part.total * float("nan"), part.count)
        if bad and self.poison == "spike":
            return StepLoss(part.total * 50, part.count)
        if bad and self.poison == "explodes":
            return StepLoss(part.total.detach() + 1e5 * (part.total - part.total.detach()), part.count)
        return part


def named(step: int, share: Share, piece: int) -> list[str]:
    return [f"{step}/{share.index} of {share.of}/{piece}"]


def train(folder: str, parallel: dict[str, Any], kind: str, poison: str, steps: int, bad: int, max_skips: int = 10) -> dict[str, Any]:
    """What this rank has of weights and moments after so many steps, and the log."""
    dims = ParallelDims.distributed(ParallelConfig.model_validate(parallel), torch.device("cpu"))
    model = Llama(Architecture.model_validate(SHAPE))
    initialise(model, 1)
    config = LoopConfig.model_validate(
        {"steps": steps, "save_every": 10**6, "schedule": "constant", "optimizer": {"kind": kind}, "max_skips": max_skips}
    )
    found: dict[str, Any] = {}

    def keep(self: States, step: int, tensors: dict[str, torch.Tensor], record: Any, score: Any = None) -> None:
        found["tensors"] = {name: local_of(t).detach().clone() for name, t in tensors.items()}

    States.save = keep  # type: ignore[method-assign, assignment]
    files = {"state": Path(folder) / "state", "log": Path(folder) / "log.jsonl"}
    result = fit(model, Poisoned(poison, bad), config, dims=dims, describe=named, **files)
    return found | {"skipped": result.skipped, "count": result.count}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("dims", "kind"), [("copies", "muon"), ("shards", "adamw")])
@pytest.mark.parametrize(
    ("poison", "reason"), [("nan", "loss is nan"), ("spike", "loss .* is a spike"), ("explodes", "gradient norm .* is a spike")]
)
def test_a_bad_step_on_one_rank_is_skipped_by_both(tmp_path: Path, dims: str, kind: str, poison: str, reason: str) -> None:
    parallel = LAYOUTS[dims]
    before = run_ranks(train, 2, str(tmp_path / "before"), parallel, kind, poison, HEALTHY, 0)
    after = run_ranks(train, 2, str(tmp_path / "after"), parallel, kind, poison, HEALTHY + 2, 2)
    for old, new in zip(before, after):
        assert new["skipped"] == 2 and old["skipped"] == 0 and new["count"] == old["count"]
        assert all(torch.equal(t, new["tensors"][name]) for name, t in old["tensors"].items())
        assert all(t.isfinite().all() for t in new["tensors"].values())
    if dims == "copies":
        assert all(torch.equal(t, after[1]["tensors"][name]) for name, t in after[0]["tensors"].items())
    skipped = [line for line in lines(tmp_path / "after") if "skipped" in line]
    assert [line["step"] for line in skipped] == [HEALTHY, HEALTHY + 1] and all(re.search(reason, line["skipped"]) for line in skipped)
    blamed = ["1 of 2/0"] if poison == "nan" else ["0 of 2/0", "1 of 2/0"]
    assert skipped[0]["documents"] == [f"{HEALTHY}/{place}" for place in blamed]


def test_a_step_without_targets_on_any_rank_has_no_gradient(tmp_path: Path) -> None:
    for result in run_ranks(train, 2, str(tmp_path), {"shard": 2}, "adamw", "masked", HEALTHY + 2, 2):
        assert result["skipped"] == 0 and all(t.isfinite().all() for t in result["tensors"].values())
    assert [(line["loss"], line["grad_norm"], line["count"]) for line in lines(tmp_path)[HEALTHY:]] == [(0.0, 0.0, 0)] * 2


def test_all_ranks_stop_together_after_too_many_skips(tmp_path: Path) -> None:
    with pytest.raises(CorpusmillError, match=rf"3 steps in a row had to be skipped; at step {HEALTHY + 2} the loss is nan"):
        run_ranks(train, 2, str(tmp_path), {"replicate": 2}, "adamw", "nan", HEALTHY + 9, 9, 3, timeout=60)
