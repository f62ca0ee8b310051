"""Makes a run with token shards, small enough for several training processes in a test, and names the files of such a training."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stage_runs import perform

from corpusmill.pipeline.engine import Engine
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.run import RUN_FILE, Plan, describe
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.storage import Storage
from corpusmill.tokenize.tokens_stage import TokensStage
from corpusmill.train.pretrain import PretrainStage

PRETRAIN = {
    "model": {"context": 32, "layers": 2, "width": 16, "heads": 2, "kv_heads": 1, "head_dim": 8, "ffn": 16},
    "loop": {"steps": 12, "save_every": 4, "warmup": 2, "precision": "fp32"},
    "batch": 4,
    "evaluate_every": 6,
    "evaluate_windows": 2,
    "parallel": {"replicate": 2},
    "device": "cpu",
}
#: Files that are equal to the byte in equal trainings.
FILES = ("metrics.json", "logs/train.jsonl", "model/model.safetensors", "model/config.json")


def make_tokens(run: Storage, **changes: Any) -> None:
    config = TokensStage.Config.model_validate({"validation_share": 0.1, **changes})
    perform(run, TokensStage(config), earlier=["ingest", "tokenizer"])


def run_with_tokens(folder: Path, tokenizer_json: bytes, finish: Callable[..., None], documents_of: Callable[[range], Any]) -> Storage:
    """Makes a run whose stages before `pretrain` are finished, so that the command line can continue it."""
    run = Storage(str(folder))
    finish(run, "ingest", {"data/part-00000.parquet": documents_of(range(40))})
    finish(run, "tokenizer", {"tokenizer.json": tokenizer_json})
    make_tokens(run)
    run.write_bytes(RUN_FILE, describe(Plan(str(folder), {"pretrain": PretrainStage.Config.model_validate(PRETRAIN)}, [])))
    return run


def on_store(s3: Any, run: Storage, url: str) -> Storage:
    """Makes a run with the same tokens on a store, where a manifest has another form."""
    for stage in ("ingest", "tokenizer", "tokens"):
        s3.upload(Path(run.path(stage)), f"{url}/{stage}")
        given, manifest = Manifest(run.child(stage)), Manifest(Storage(f"{url}/{stage}"))
        for row in given.rows():
            manifest.append(row)
        manifest.finish(given.plan or [])
    return Storage(url)


def train(run: Storage, engine: Engine | None = None, **changes: Any) -> StageRun:
    return perform(run, PretrainStage(PretrainStage.Config.model_validate({**PRETRAIN, **changes})), engine=engine)


def left(run: Storage) -> dict[str, bytes]:
    return {path: run.read_bytes(f"pretrain/{path}") for path in FILES}


def command(*arguments: object, torchrun: int = 0) -> list[str]:
    """Returns `corpusmill ...` as a command under torchrun with `processes` processes."""
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={torchrun}"] if torchrun else []
    return [sys.executable, *launcher, "-m", "corpusmill", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
