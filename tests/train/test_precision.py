"""Tests lower precisions: their results, their errors, and the values that stay in fp32."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from low_precision import Rows, fresh, run
from safetensors.torch import load_file
from torch._dynamo.utils import counters

from corpusmill.train import compute
from corpusmill.train.data import DataShare
from corpusmill.train.loop import fit
from corpusmill.train.options import LoopConfig

# ---- precision ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "kind"), [("bf16", "adamw"), ("bf16-params", "muon")])
def test_trainings_in_16_bits_end_near_fp32_and_save_fp32(tmp_path: Path, precision: str, kind: str) -> None:
    options = {"optimizer": {"kind": kind}}
    _, wanted = run(tmp_path / "fp32", "fp32", **options)
    model, result = run(tmp_path / "low", precision, **options)
    assert result.skipped == 0 and result.loss == pytest.approx(wanted.loss, rel=0.01) and result.loss != wanted.loss
    assert all(p.dtype == torch.float32 for p in model.parameters())
    rounded_away = [float((p - p.bfloat16().float()).detach().abs().max()) for p in model.parameters()]
    assert min(rounded_away) > 0  # masters hold values that bf16 can't
    files = list((tmp_path / "low" / "state").rglob("*.safetensors"))
    assert files and all(t.dtype != torch.bfloat16 for file in files for t in load_file(file).values())


def test_updates_that_bf16_would_round_away_are_learned(tmp_path: Path) -> None:
    """Weights near 1 move by 1e-4 a step; the next bf16 is 1/128 away. With bf16 alone they would never change."""
    options = {"optimizer": {"kind": "adamw", "lr": 1e-4, "weight_decay": 0}, "schedule": "constant", "steps": 50, "warmup": 0}
    model, _ = run(tmp_path, "bf16-params", **options)
    moved = (model.model.layers["0"].input_layernorm.weight - 1).detach().abs()
    assert float(moved.max()) > 1e-3


# ---- what `auto` takes -------------------------------------------------------------------------------


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the instruction sets of other processors can't be limited")
@pytest.mark.parametrize("limit", [{"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}])
def test_auto_is_fp32_and_bf16_warns_where_bf16_is_emulated(tmp_path: Path, limit: dict[str, str]) -> None:
    """A limited oneDNN leaves the system's answer about the processor as it was, so this must be measured."""
    script = f"""if True:
        import json, sys
        sys.path.insert(0, {str(Path(run.__code__.co_filename).parent)!r})
        from pathlib import Path
        from low_precision import run
        for name in ("auto", "bf16-params"):
            result = run(Path({str(tmp_path)!r}) / name, name, steps=1, save_every=1)[1]
            print(json.dumps([result.precision, len(result.warnings)]))
    """
    done = subprocess.run([sys.executable, "-c", script], env=os.environ | limit, capture_output=True, text=True, check=True)
    auto, named = (json.loads(line) for line in done.stdout.splitlines())
    assert auto == ["fp32", 0]
    assert named == ["bf16-params", 1] or "ATEN_CPU_CAPABILITY" not in limit  # AVX-512 alone is near the limit of the warning


def test_a_training_goes_on_in_the_precision_with_which_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "bf16_cost", lambda: 0.3)
    model, result = run(tmp_path, "auto", schedule="constant", keep=3)
    assert (result.precision, result.warnings) == ("bf16-params", [])
    assert json.loads((tmp_path / "train.jsonl").read_text().splitlines()[0])["precision"] == "bf16-params"
    log = (tmp_path / "train.jsonl").read_bytes()
    for step in (8, 12):
        shutil.rmtree(tmp_path / "state" / f"step-{step:08}")
    monkeypatch.setattr(compute, "bf16_cost", lambda: 50.0)  # on another machine
    again, resumed = run(tmp_path, "auto", schedule="constant", keep=3)
    assert (resumed.resumed_from, resumed.precision, len(resumed.warnings)) == (4, "bf16-params", 1)
    assert (tmp_path / "train.jsonl").read_bytes() == log
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))


# ---- compiled loop -----------------------------------------------------------------------------------

# A compiled model in the loop: the losses of the plain one within rounding, and one compilation for all steps.


class Documents(Rows):
    """Rows of documents with different lengths in each step."""

    def batches(self, step: int, share: DataShare) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(50 + step)
        for ids, targets, _ in super().batches(step, share):
            yield ids, targets, (torch.rand(ids.shape, generator=generator) < 0.2).cumsum(1)


def losses(folder: Path, objective: Rows, compile: bool, precision: str) -> list[float]:
    config = LoopConfig(steps=6, save_every=6, warmup=0, threads=1, compile=compile, precision=precision)  # type: ignore[arg-type]
    fit(fresh(), objective, config, state=folder / "state", log=folder / "log.jsonl")
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16-params", marks=pytest.mark.long)])
def test_compiled_steps_have_the_losses_of_plain_ones_and_compile_once(
    tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = losses(tmp_path / "plain", Documents(), False, precision)
    from torch import nn

    plain = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: plain(self, backend="aot_eager"))  # traced in full, without a C++ compiler
    torch._dynamo.reset()
    counters.clear()
    found = losses(tmp_path / "compiled", Documents(), True, precision)
    assert found == pytest.approx(wanted, rel=1e-4 if precision == "fp32" else 0.01)  # Muon amplifies the last bits
    graphs = counters["stats"]["unique_graphs"]
    assert 1 <= graphs <= 2, dict(counters["stats"])  # one layer's code serves all layers and steps
    assert not counters["recompile_limit"] and not counters["graph_break"], dict(counters["graph_break"])


@pytest.mark.long
def test_rows_of_all_shapes_and_evaluations_are_traced_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch import nn

    plain, model = nn.Module.compile, fresh()
    monkeypatch.setattr(nn.Module, "compile", lambda self: plain(self, backend="eager"))
    torch._dynamo.reset()
    counters.clear()
    model.switch(compiled=True)
    for documents in (False, True):
        for training in (True, False):
            for rows, length in ((4, 16), (4, 12), (2, 8), (1, 10)):  # as rows of pairs, whose number and length change
                ids = torch.zeros(rows, length, dtype=torch.int64)
                with torch.set_grad_enabled(training):
                    model(ids, torch.arange(length).expand(rows, -1) // 5 if documents else None)
    assert not counters["recompile_limit"] and not counters["graph_break"], dict(counters["graph_break"])
