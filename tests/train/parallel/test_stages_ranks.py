"""Tests that the score of held-out text is the same for any number of processes and any layout of model and rows."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parallel_runs import SHAPE, Case, check_equal, fresh, in_float64, run
from ranks import run_ranks
from small_models import random_model
from token_sets import write_token_set

from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.train import align_job, sft_job
from corpusmill.train.align import AlignConfig, AlignStage
from corpusmill.train.align_pairs import PreferencePair, pairs_table
from corpusmill.train.finetune import start_from
from corpusmill.train.model import RMSNorm
from corpusmill.train.model_folder import save_model
from corpusmill.train.options import ParallelConfig
from corpusmill.train.parallel.dims import ParallelDims
from corpusmill.train.parallel.model import prepare
from corpusmill.train.sft import SftConfig, SftStage
from corpusmill.train.template import template_files
from corpusmill.train.tuning import StartModel
from corpusmill.train.validation import TextSums, Validation

# ---- validation ranks --------------------------------------------------------------------------------

TWO = [{"replicate": 2}, {"shard": 2}, {"shard": 2, "zero": 2}, {"tensor": 2}, {"pipeline": 2}]
FOUR = [{"replicate": 2, "pipeline": 2}, {"shard": 2, "tensor": 2}]
CPU = torch.device("cpu")


def measured(folder: str, layouts: list[dict]) -> list[TextSums]:
    """Returns the sums of full and short evaluations on each layout."""
    RMSNorm.forward = in_float64  # type: ignore[method-assign]
    found = []
    for parallel in layouts:
        dims = ParallelDims.distributed(ParallelConfig.model_validate(parallel), CPU) if parallel else ParallelDims.single(CPU)
        case = Case(parallel)
        parallel_model = prepare(fresh(case), dims, case.config)
        sizes = np.minimum(np.arange(SHAPE["vocab_size"]), 3)
        validation = Validation(TokenShards(folder), sizes, int(SHAPE["context"]), document_mask=True)
        found += [validation.sums(parallel_model, CPU, dims.share, windows, batch=4) for windows in (0, 5)]
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


# ---- tuning ranks ------------------------------------------------------------------------------------

# Instruction tuning and alignment on every kind of layout, against one process in float64: losses, gradient norms, all logged values.

LOOP = {"threads": 1, "steps": 4, "warmup": 1, "save_every": 2, "optimizer": {"kind": "adamw"}}
CONFIGS: dict[str, Any] = {
    "sft_job": {"batch": 4, "per_document": 1, "evaluate_every": 2, "held_out": 0.2, "loop": LOOP},
    "align_job": {"batch": 4, "pairs": 30, "per_document": 1, "evaluate_every": 2, "held_out": 0.2, "loop": LOOP},
}
LAYOUTS: dict[int, dict[str, dict[str, Any]]] = {
    1: {"one": {}},
    2: {
        "copies": {"replicate": 2},
        "shards": {"shard": 2},
        "shared moments": {"shard": 2, "zero": 1},
        "tensor": {"tensor": 2},
        "pipeline": {"pipeline": 2, "micro_batch": 2},
    },
    4: {"shards x tensor": {"shard": 2, "tensor": 2}, "pipeline x shards": {"pipeline": 2, "shard": 2, "micro_batch": 1}},
}


def on_layouts(run: str, folder: str, layouts: dict[str, dict[str, Any]]) -> None:
    """Runs both trainings on each layout; each leaves its log and metrics in a folder of its name."""
    RMSNorm.forward = in_float64  # type: ignore[method-assign]
    for module in (sft_job, align_job):
        module.start_from = lambda *args: start_from(*args).double()  # type: ignore[attr-defined]
        stage = "sft" if module is sft_job else "align"
        for name, options in layouts.items():
            parallel = {key: value for key, value in options.items() if key != "micro_batch"}
            dims = ParallelDims.distributed(ParallelConfig.model_validate(parallel), torch.device("cpu"))
            kind = module.__name__.rpartition(".")[2]
            config = {**CONFIGS[kind], "micro_batch": options.get("micro_batch", 0), "parallel": parallel}
            work = Path(folder) / name / kind
            metrics = module.train(dims, None, config, run, f"{run}/pretrain/model", "pretrain/model", str(work / "work"))
            if dims.is_main:
                (work / "metrics.json").write_text(json.dumps(metrics))
                (Path(run) / stage / "logs" / "train.jsonl").rename(work / "train.jsonl")
            dims.barrier()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, make_pretrained_run: Any, execute: Any) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    run = make_pretrained_run(folder)
    quick = {"loop": {**LOOP, "steps": 0}}
    execute(run, SftStage(SftConfig.model_validate(CONFIGS["sft_job"] | quick)))
    execute(run, AlignStage(AlignConfig.model_validate(CONFIGS["align_job"] | quick)), earlier=("ingest", "pretrain"))
    for processes, layouts in LAYOUTS.items():
        run_ranks(on_layouts, processes, run.root, str(folder), layouts)
    return folder


def read(folder: Path, dims: str, kind: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    place = folder / dims / kind
    return [json.loads(line) for line in (place / "train.jsonl").read_text().splitlines()], json.loads((place / "metrics.json").read_text())


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("dims", [name for processes, names in LAYOUTS.items() for name in names if processes > 1])
def test_a_layout_equals_one_process(trained: Path, dims: str, kind: str) -> None:
    (lines, metrics), (expected, alone) = read(trained, dims, kind), read(trained, "one", kind)
    assert len(lines) == 4 and lines[-1]["loss"] < lines[0]["loss"]
    for line, other in zip(lines, expected, strict=True):
        assert line == pytest.approx(other, rel=1e-9, abs=1e-9)
    assert flat(metrics) == pytest.approx(flat(alone), rel=1e-9, abs=1e-9)


def flat(metrics: dict[str, Any]) -> dict[str, float]:
    """Returns the figures of `metrics.json`, those of a section under `section.name`."""
    sections = {key: value for key, value in metrics.items() if isinstance(value, dict)}
    inside = {f"{section}.{name}": figure for section, figures in sections.items() for name, figure in figures.items()}
    return inside | {key: value for key, value in metrics.items() if isinstance(value, int | float)}


def test_the_first_preference_loss_is_ln_2_on_every_layout(trained: Path) -> None:
    for layouts in LAYOUTS.values():
        for dims in layouts:
            assert read(trained, dims, "align_job")[0][0]["preference_loss"] == pytest.approx(math.log(2), abs=1e-6)


# ---- align ranks -------------------------------------------------------------------------------------

# Alignment on several processes: the losses and rewards are those of one.

ALIGN_SHAPE = {"vocab_size": 600, "layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "head_dim": 8, "ffn": 64, "context": 80}
CONFIG = {
    "batch": 4, "micro_batch": 1, "epochs": 9, "beta": 0.05, "held_out": 0.2,
    "loop": {"threads": 1, "steps": 4, "warmup": 0, "spike": 0, "optimizer": {"lr": 1e-3}},
}  # fmt: skip


def pairs() -> Any:
    turns = [("user", "Tell me about mill {}."), ("assistant", "Mill {} grinds{}."), ("assistant", "The cart turns{}{}")]
    made = []
    for n in range(11):
        prompt, chosen, rejected = ([{"role": role, "content": text.format(n, " the grain" * (n % 3))}] for role, text in turns)
        made.append(PreferencePair(f"pair {n}", None, "file", n % 5 == 4, prompt, chosen, rejected))
    return pairs_table(made)


def align(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Returns the log and the metrics of a training, in its own folder below that of the model."""
    from corpusmill.train.align_job import AlignmentJob
    from corpusmill.train.checkpoint_dir import CheckpointDir

    made = AlignConfig.model_validate(config)
    dims = (
        ParallelDims.distributed(made.parallel, torch.device("cpu"))
        if made.parallel.world > 1
        else ParallelDims.single(torch.device("cpu"))
    )
    work = folder / json.dumps(config["parallel"]).translate(str.maketrans('{}" :', "_____")) / made.loss
    aligned = AlignmentJob(made, StartModel("model", str(folder / "model")), pairs(), dims)
    aligned.measure_reference()
    metrics = aligned.train(CheckpointDir(str(work), str(work / "log.jsonl")))
    return {"metrics": metrics, "lines": [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]}


def every(folder: Path, configs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [align(folder, config) for config in configs]


ALIGN_LAYOUTS = [("sigmoid", {"replicate": 2}), ("sigmoid", {"pipeline": 2}), ("simpo", {"tensor": 2})]


@pytest.fixture(scope="module")
def found(tokenizer_json, tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("aligned")
    save_model(random_model(**ALIGN_SHAPE), folder / "model", {"tokenizer.json": tokenizer_json, **template_files(80)})
    configs = [{**CONFIG, "loss": loss, "parallel": parallel} for loss, parallel in ALIGN_LAYOUTS]
    on_ranks = run_ranks(every, 2, folder, configs)[0]
    alone = {loss: align(folder, {**CONFIG, "loss": loss, "parallel": {}}) for loss in ("sigmoid", "simpo")}
    return {"ranks": on_ranks, "alone": alone}


@pytest.mark.parametrize("number", range(len(ALIGN_LAYOUTS)), ids=[f"{loss} {next(iter(parallel))}" for loss, parallel in ALIGN_LAYOUTS])
def test_a_layout_changes_nothing(found, number):
    many, one = found["ranks"][number], found["alone"][ALIGN_LAYOUTS[number][0]]
    assert len(many["lines"]) == 4
    for line, expected in zip(many["lines"], one["lines"], strict=True):
        assert line == pytest.approx(expected, rel=1e-4, abs=1e-6)
    for side in ("held_out_before", "held_out_after"):
        assert many["metrics"][side] == pytest.approx(one["metrics"][side], rel=1e-4, abs=1e-6)


# ---- lora ranks --------------------------------------------------------------------------------------

# Adapters of a model that is copied, sharded, spread or cut, against one process in float64.

LORA_LAYOUTS = {
    "copies": {"replicate": 2},
    "ZeRO-3": {"shard": 2},
    "tensor": {"tensor": 2},
    "zero-bubble": {"pipeline": 2, "schedule": "zero-bubble"},
}
ONE = Case(loop={"optimizer": {"kind": "adamw"}}, lora={"rank": 3, "alpha": 6}, arch={"layers": 4}, micro=2, documents=True)


@pytest.mark.parametrize("layouts", [["copies", "ZeRO-3"], pytest.param(["tensor", "zero-bubble"], marks=pytest.mark.long)])
def test_loss_gradients_and_five_steps_equal_one_process(layouts: list[str]) -> None:
    (one,) = run(ONE)
    assert len(one["weights"]) == 4 * 7 * 2 and all(name.endswith((".lora_A", ".lora_B")) for name in one["weights"])
    for many in run(*(replace(ONE, parallel=LORA_LAYOUTS[name]) for name in layouts)):
        check_equal(many, one)
