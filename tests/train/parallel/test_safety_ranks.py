"""Tests that a step which one rank alone finds dangerous is skipped by all, and leaves every weight and moment unchanged."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from parallel_runs import SHAPE
from ranks import run_ranks

from corpusmill.train.checkpoint import States
from corpusmill.train.data import DataShare
from corpusmill.train.loop import fit
from corpusmill.train.model import Llama, Objective, StepLoss, initialise
from corpusmill.train.options import Architecture, LoopConfig, ParallelConfig
from corpusmill.train.parallel import ParallelDims, local_of

#: Steps before the poisoned ones, enough for the guards to judge by.
HEALTHY = 22
LAYOUTS: dict[str, dict[str, Any]] = {"copies": {"replicate": 2}, "shards": {"shard": 2}}


class Poisoned(Objective):
    """Random rows; from step HEALTHY on, those of the last share are bad, for `steps` steps."""

    def __init__(self, poison: str, steps: int):
        self.poison, self.steps = poison, steps

    def batches(self, step: int, share: DataShare) -> Iterator[Any]:
        ids = torch.randint(SHAPE["vocab_size"], (4, 17), generator=torch.Generator().manual_seed(step))
        ((begin, end),) = share.micro_batches(4, 0)
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
        if bad and self.poison == "explodes":
            return StepLoss(part.total.detach() + 1e5 * (part.total - part.total.detach()), part.count)
        return part


def named(step: int, share: DataShare, piece: int) -> list[str]:
    return [f"{step}/{share.index} of {share.of}/{piece}"]


def train(folder: str, parallel: dict[str, Any], kind: str, poison: str, bad: int) -> dict[str, Any]:
    """Takes HEALTHY steps and `bad` poisoned ones. Returns this rank's weights and moments before and after the poisoned ones, and the
    number of targets trained on.
    """
    dims = ParallelDims.distributed(ParallelConfig.model_validate(parallel), torch.device("cpu"))
    model = Llama(Architecture.model_validate(SHAPE))
    initialise(model, 1)
    config = LoopConfig.model_validate({"steps": HEALTHY + bad, "save_every": HEALTHY, "schedule": "constant", "optimizer": {"kind": kind}})
    saved: list[dict[str, Any]] = []

    def keep(self: States, step: int, tensors: dict[str, torch.Tensor], record: Any, score: Any = None) -> None:
        copies = {name: local_of(t).detach().clone() for name, t in tensors.items()}
        saved.append({"tensors": copies, "count": record["train_state"]["count"], "skipped": record["train_state"]["skipped"]})

    States.save = keep  # type: ignore[method-assign, assignment]
    files = {"state": Path(folder) / "state", "log": Path(folder) / "log.jsonl"}
    fit(model, Poisoned(poison, bad), config, dims=dims, describe=named, **files)
    before, after = saved
    return {"before": before, "after": after}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("dims", "kind", "poison", "reason"),
    [
        ("shards", "adamw", "nan", "loss is nan"),
        ("copies", "muon", "explodes", "gradient norm .* is a spike"),
    ],
)
def test_a_bad_step_on_one_rank_is_skipped_by_both(tmp_path: Path, dims: str, kind: str, poison: str, reason: str) -> None:
    ranks = run_ranks(train, 2, str(tmp_path), LAYOUTS[dims], kind, poison, 2)
    for rank in ranks:
        old, new = rank["before"], rank["after"]
        assert new["skipped"] == 2 and old["skipped"] == 0 and new["count"] == old["count"] > 0
        assert all(torch.equal(t, new["tensors"][name]) for name, t in old["tensors"].items())
        assert all(t.isfinite().all() for t in new["tensors"].values())
    if dims == "copies":
        first, second = (rank["after"]["tensors"] for rank in ranks)  # with Muon, each has the moments of the weights that it updates
        shared = first.keys() & second.keys()
        assert {name for name in first if name.startswith("model/")} == shared
        assert all(torch.equal(first[name], second[name]) for name in shared)
    skipped = [line for line in lines(tmp_path) if "skipped" in line]
    assert [line["step"] for line in skipped] == [HEALTHY, HEALTHY + 1] and all(re.search(reason, line["skipped"]) for line in skipped)
    blamed = ["1 of 2/0"] if poison == "nan" else ["0 of 2/0", "1 of 2/0"]
    assert skipped[0]["documents"] == [f"{HEALTHY}/{place}" for place in blamed]


def test_a_step_without_targets_on_any_rank_has_no_gradient(tmp_path: Path) -> None:
    for rank in run_ranks(train, 2, str(tmp_path), {"shard": 2}, "adamw", "masked", 2):
        assert rank["after"]["skipped"] == 0 and all(t.isfinite().all() for t in rank["after"]["tensors"].values())
    assert [(line["loss"], line["grad_norm"], line["count"]) for line in lines(tmp_path)[HEALTHY:]] == [(0.0, 0.0, 0)] * 2
