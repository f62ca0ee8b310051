"""Tests the records of a training in progress: speed, samples, TensorBoard, Weights & Biases, the bar."""

import io
import json
import math
import re
import time
from pathlib import Path

import pytest
import torch
from objectives import Goal
from rich.console import Console
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from corpusmill.pipeline.engine import peak_memory_mb
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train import watch
from corpusmill.train.loop import FitResult, fit
from corpusmill.train.model import Llama, StepLoss, initialise
from corpusmill.train.options import Architecture, LoopConfig, LoraConfig, ModelConfig, ParallelConfig
from corpusmill.train.parallel import ParallelDims
from corpusmill.train.sft import adapt
from corpusmill.train.watch import Watch, flops_per_token, loop_bar, peak_flops

# ---- watch -------------------------------------------------------------------------------------------

ARCH = Architecture(vocab_size=31, layers=2, width=16, heads=2, kv_heads=1, head_dim=8, ffn=24, context=16)
CPU = torch.device("cpu")


def loss(model: Llama, step: int) -> StepLoss:
    ids = torch.randint(31, (6, 13), generator=torch.Generator().manual_seed(step))
    total = torch.nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")
    return StepLoss(total * math.nan if step == 1 else total, 72)


def run(folder: Path, steps: int = 8, function=loss, progress: Progress | None = None, **options: object) -> FitResult:
    model = Llama(ARCH)
    initialise(model, 7)
    config = LoopConfig.model_validate({"steps": steps, "save_every": 3, "warmup": 2, "threads": 1, **options})

    def evaluate(_: object, done: int) -> dict:
        return {
            "validation_bits_per_byte": 1.0 + done,
            "validation_by": {"language": {"en": math.nan}},
            "samples": [{"text": f"after {done}"}],
        }

    return fit(model, Goal(function), config, state=folder / "state", log=folder / "logs" / "train.jsonl", evaluate=evaluate,
               evaluate_every=5, progress=progress)  # fmt: skip


def lines(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / "logs" / name).read_text().splitlines()]


def killed_at(step: int):
    def dying(model: Llama, at: int) -> StepLoss:
        if at == step:
            raise KeyboardInterrupt
        return loss(model, at)

    return dying


def test_speed_and_samples_have_files_of_their_own(tmp_path: Path) -> None:
    result = run(tmp_path)
    speed, samples, log = (lines(tmp_path, name) for name in ("speed.jsonl", "samples.jsonl", "train.jsonl"))
    assert [line["step"] for line in speed] == list(range(8)) and result.tokens == 8 * 72
    for line in speed:
        assert line["tokens_per_second"] == pytest.approx(72 / line["seconds"]) and 0 <= line["waited"] < line["seconds"]
        assert line["flops_per_second"] == pytest.approx(line["tokens_per_second"] * flops_per_token(ARCH)) and "mfu" not in line
        assert 1e7 < line["memory_bytes"] <= peak_memory_mb() << 20
    assert speed[-1]["seconds_left"] == 0 < speed[0]["seconds_left"]
    assert samples == [{"step": 4, "samples": [{"text": "after 5"}]}, {"step": 7, "samples": [{"text": "after 8"}]}]
    assert not {"seconds", "samples"} & {name for line in log for name in line}
    assert log[4]["validation_by"] == {"language": {"en": "nan"}} and log[1]["loss"] == "nan"


def test_parameters_that_multiply_are_those_of_torchtitan() -> None:
    untied, tied = (ModelConfig(preset="10m", context=512, tied=tied).architecture(8192) for tied in (False, True))
    model = Llama(untied)
    without = sum(p.numel() for p in model.parameters()) - model.model.embed_tokens.weight.numel()
    assert flops_per_token(untied) == 6 * without + 12 * 6 * 6 * 64 * 512 == flops_per_token(tied)
    # nanochat's and torchtitan's figure for Llama 3 8B at 8192: 6 N + 12 l d t
    big = ModelConfig(preset="llama3-8b", context=8192).architecture(128256)
    assert flops_per_token(big) == pytest.approx(6 * 7.50e9 + 12 * 32 * 4096 * 8192, rel=1e-3)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4), LoraConfig(rank=2, targets=("v_proj", "down_proj"))])
def test_operations_are_those_that_torch_counts(lora: LoraConfig | None) -> None:
    """torch counts products. The formula has up to 5% more: norms' weights, and below the first adapter gradients that nothing needs."""
    arch = Architecture(vocab_size=301, layers=8, width=32, heads=2, kv_heads=1, head_dim=16, ffn=64, context=4096)
    model = Llama(arch)
    initialise(model, 7)
    if lora:
        adapt(model, lora, 1)
    ids = torch.randint(301, (2, 128))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # whose products torch counts on a CPU
        model(ids, targets=ids).sum().backward()
    adapter = sum(p.numel() for p in model.parameters() if p.requires_grad) if lora else 0
    expected = flops_per_token(arch, 128, adapter) * ids.numel()
    assert 1 < expected / counter.get_total_flops() < (1.05 if lora else 1.01)
    assert expected < flops_per_token(arch, 128) * ids.numel() if lora else expected < flops_per_token(arch) * ids.numel() / 3


@pytest.mark.parametrize(
    "name, peak",
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA L40S", 362e12), ("NVIDIA L4", 121e12),
     ("NVIDIA A10G", None)],
)  # fmt: skip
def test_peaks_by_the_names_that_drivers_report(monkeypatch: pytest.MonkeyPatch, name: str, peak: float | None) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda")) == peak and peak_flops(CPU) is None


def test_mfu_is_the_share_of_the_peak_of_all_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "peak_flops", lambda device: 1e12)
    dims = ParallelDims(ParallelConfig(shard=4), CPU)
    watching = Watch(tmp_path / "log.jsonl", 0, LoopConfig(), dims, flops=1e9, progress=None, title="")
    line = watching.speed(0, tokens=3000, seconds=1.5, waited=0.1)
    assert line["mfu"] == pytest.approx(2000 * 1e9 / 4e12) and line["waited"] == 0.1


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "logs" / "tensorboard"), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_tensorboard_reads_every_step_once_also_of_a_resumed_training(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, function=killed_at(5), log=["tensorboard"])
    run(tmp_path, log=["tensorboard"])
    found, log = scalars(tmp_path), lines(tmp_path, "train.jsonl")
    assert len(list((tmp_path / "logs" / "tensorboard").iterdir())) == 2
    for name in ("loss", "lr", "grad_norm"):
        assert [step for step, _ in found[f"train/{name}"]] == list(range(8))
        assert [v for _, v in found[f"train/{name}"]] == pytest.approx([float(line[name]) for line in log], rel=1e-6, nan_ok=True)
    assert found["validation/bits_per_byte"] == [(4, 6.0), (7, 9.0)]
    for name, steps in (("train", list(range(8))), ("speed", list(range(8))), ("samples", [4, 7])):
        assert [line["step"] for line in lines(tmp_path, f"{name}.jsonl")] == steps
    assert [step for step, _ in found["speed/tokens_per_second"]] == list(range(8)) and "train/validation_by" not in found


def test_trackers_change_nothing_that_is_trained_or_saved(tmp_path: Path) -> None:
    run(tmp_path / "plain")
    run(tmp_path / "shown", log=["tensorboard"])
    states = sorted(path.relative_to(tmp_path / "plain") for path in (tmp_path / "plain" / "state" / "step-00000008").iterdir())
    for path in (Path("logs/train.jsonl"), *states):
        assert (tmp_path / "plain" / path).read_bytes() == (tmp_path / "shown" / path).read_bytes(), path
    assert len(states) > 1
    assert run(tmp_path / "plain", log=["tensorboard"]).resumed_from == 8  # no state of another configuration


@pytest.mark.long
def test_wandb_offline_goes_on_with_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, function=killed_at(5), log=["wandb"])
    run(tmp_path, log=["wandb"])
    known = (tmp_path / "logs" / "wandb-id.txt").read_text()
    written = sorted((tmp_path / "logs" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(written) == 2 and {path.stem for path in written} == {f"run-{known}"}
    deadline = time.monotonic() + 120  # its own process writes them, and on a busy machine ends after this one has gone on
    while not all(b"grad_norm" in path.read_bytes() for path in written):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_bar_tells_the_numbers_within_80_columns() -> None:
    progress = Progress(True)
    progress.console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)

    def shown() -> list[str]:
        """Returns the two lines of the bar as it was drawn last."""
        time.sleep(0.8)  # it is drawn twice a second
        drawn = progress.console.file.getvalue()  # type: ignore[attr-defined]
        return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", line) for line in drawn.splitlines()[-2:]]

    speed = {"mfu": 0.412, "tokens_per_second": 412_345.0, "memory_bytes": 3.21e9, "cuda_bytes": 41.5e9, "seconds_left": 3723.4}
    with loop_bar(progress, "pretrain", 0, 20_000) as show:
        show({"step": 1233, "loss": 3.21, "lr": 6e-4, "validation_bits_per_byte": 1.0567}, speed)
        show({"step": 1234, "loss": math.nan, "lr": 6e-4, "skipped": "loss is nan"}, speed)
        first, second = shown()
        for part in ("pretrain", "1235/20000"):
            assert part in first, part
        for part in ("loss 3.210", "lr 0.0006", "412,345 tok/s", "41.2% MFU", "41.5 GB", "1 skipped"):
            assert part in second, part
        assert second.rstrip().endswith("val 1.057") and max(len(first), len(second)) <= 80
        show({"step": 1235, "loss": 3.0, "lr": 0.0, "validation_bits_per_byte": math.nan}, speed)
        assert shown()[1].rstrip().endswith("val nan")
