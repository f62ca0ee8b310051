"""A compiled model through the loop: the losses of the plain one within rounding, and one compilation for all steps."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from low_precision import Rows, fresh
from torch._dynamo.utils import counters

from corpusmill.train.loop import fit
from corpusmill.train.objective import Share
from corpusmill.train.options import LoopConfig


class Documents(Rows):
    """Rows of documents whose lengths are others in each step."""

    def batches(self, step: int, share: Share) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(50 + step)
        for ids, targets, _ in super().batches(step, share):
            yield ids, targets, (torch.rand(ids.shape, generator=generator) < 0.2).cumsum(1)


def losses(folder: Path, objective: Rows, compile: bool, precision: str) -> list[float]:
    config = LoopConfig(steps=6, save_every=6, warmup=0, threads=1, compile=compile, precision=precision)  # type: ignore[arg-type]
    fit(fresh(), objective, config, state=folder / "state", log=folder / "log.jsonl")
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("precision", ["fp32", "bf16-params"])
@pytest.mark.parametrize("kind", [Rows, Documents])
def test_compiled_steps_have_the_losses_of_plain_ones_and_compile_once(
    tmp_path: Path, kind: type[Rows], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = losses(tmp_path / "plain", kind(), False, precision)
    from torch import nn

    plain = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: plain(self, backend="aot_eager"))  # traced in full, without a C++ compiler
    torch._dynamo.reset()
    counters.clear()
    found = losses(tmp_path / "compiled", kind(), True, precision)
    assert found == pytest.approx(wanted, rel=1e-4 if precision == "fp32" else 0.01)  # Muon makes much of the last bits
    graphs = counters["stats"]["unique_graphs"]
    assert 1 <= graphs <= 2, dict(counters["stats"])  # one layer's code serves all layers and steps
    assert not counters["recompile_limit"] and not counters["graph_break"], dict(counters["graph_break"])
