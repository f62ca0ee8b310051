"""What the stage `pretrain` does: load, train, measure, leave a model folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from corpusmill.pipeline.engine import Engine
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.progress import Progress
from corpusmill.pipeline.shards import Content
from corpusmill.pipeline.special_tokens import END_OF_TEXT, EOT_ID
from corpusmill.pipeline.stage import Output
from corpusmill.pipeline.tokenreader import TokenShards
from corpusmill.pipeline.tokenshards import SHARDS_FILE
from corpusmill.train.bits import Batch, Bits, measure, token_bytes
from corpusmill.train.checkpoint import model_of, save_model, save_tokenizer
from corpusmill.train.device import deterministic
from corpusmill.train.launch import launch
from corpusmill.train.loader import WindowLoader, evaluation_batches, to_device
from corpusmill.train.loop import FitResult, fit
from corpusmill.train.model import new_model
from corpusmill.train.objective import Share, TokenObjective
from corpusmill.train.packed import PackedLoader
from corpusmill.train.parallel.computation import Computation
from corpusmill.train.parallel.layout import Layout
from corpusmill.train.state import read_weights
from corpusmill.train.template import template_files
from corpusmill.train.tokenizer_file import read_tokenizer

if TYPE_CHECKING:
    from corpusmill.train.pretrain import PretrainConfig

#: Windows of a forward pass that measures: a constant, as sums in another order differ in their last bits.
EVALUATION_BATCH = 16
#: The name in the log by which states are best.
SCORE = "validation_bits_per_byte"


def pretrain(config: "PretrainConfig", run: str, identity: str, progress: Progress, engine: Engine | None = None) -> Output:
    """Trains in the working folder `pretrain/checkpoints/<identity>`; the output names the finished model's files there."""
    work = Path(run) / "pretrain" / "checkpoints" / identity[:16]
    arguments = {"config": config.model_dump(mode="json"), "run": run, "work": str(work)}
    metrics = launch(f"{__name__}:train", arguments, config.parallel, config.device, progress, folder=work / "processes", engine=engine)
    files: dict[str, Content] = {f"model/{path.name}": path for path in sorted((work / "model").iterdir())}
    files["metrics.json"] = json.dumps(metrics, indent=2).encode() + b"\n"
    warnings = [] if metrics["validation"] else ["no validation tokens, so bits per byte were not measured"]
    return Output(files, rows_in=metrics["tokens"], kept=metrics["tokens"], counts={"skipped_steps": metrics["skipped"]}, warnings=warnings)


def train(layout: Layout, progress: Progress | None, config: dict[str, Any], run: str, work: str) -> dict[str, Any]:
    """What every process does; the first one leaves the folder `work/model` and returns what `metrics.json` holds."""
    from corpusmill.train.pretrain import PretrainConfig

    return _Job(PretrainConfig.model_validate(config), Path(run), Path(work), layout).train(progress)


def _validation(folder: Path, sha256: str) -> TokenShards | None:
    """The validation tokens; None where the run has held none out."""
    if not (folder / SHARDS_FILE).is_file():
        return None
    shards = TokenShards(folder, tokenizer_sha256=sha256, end_of_text_id=EOT_ID)
    return shards if len(shards) else None


class _Job(TokenObjective):
    """One process's part of a pre-training: its batches, and what is measured around the loop."""

    def __init__(self, config: "PretrainConfig", run: Path, work: Path, layout: Layout):
        self.config, self.run, self.work, self.layout = config, run, work, layout
        self.tokenizer, sha256 = read_tokenizer(run / "tokenizer" / "tokenizer.json")
        self.tokens = TokenShards(run / "tokens" / "train", tokenizer_sha256=sha256, end_of_text_id=EOT_ID)
        self.validation = _validation(run / "tokens" / "validation", sha256)
        self.arch = config.model.architecture(self.tokens.description.vocabulary_size)
        self.sizes = np.zeros(self.arch.vocab_size, np.int64)
        sizes = token_bytes(self.tokenizer)[: self.arch.vocab_size]
        self.sizes[: len(sizes)] = sizes
        kind = PackedLoader if config.packing == "documents" else WindowLoader
        self.loader = kind(self.tokens, config.model.context, config.batch, config.seed, config.document_mask)

    def train(self, progress: Progress | None) -> dict[str, Any]:
        model = new_model(self.arch, self.config.seed, self.layout.device)
        best = self.config.export == "best"
        if best and not self.validation:
            raise InputError(f"{self.run / 'tokens'}: pretrain.export: best needs validation tokens, and there are none.")
        texts = template_files(self.config.model.context, end_token=END_OF_TEXT)
        if self.layout.is_main:
            save_tokenizer({"tokenizer.json": self.tokenizer, **texts}, self.work / "tokenizer")
        loop = self.config.loop.model_copy(update={"keep_best": max(self.config.loop.keep_best, best)})
        result = fit(
            model, self, loop, layout=self.layout, state=self.work / "state",
            log=self.run / "pretrain" / "logs" / "train.jsonl", describe=self.loader.documents,
            evaluate=self.glance if self.validation else None, evaluate_every=self.config.evaluate_every, score=SCORE,
            progress=progress, title="pretrain",
        )  # fmt: skip
        states, spread = result.states, self.layout.world > 1
        saved = states.best() if best else states.latest() if spread else None
        if best and saved:
            states.load_weights(saved, result.computation.parameters)
        with deterministic(self.config.loop.threads):
            bits = self.measure(result.computation, None) if self.validation else None
        if self.layout.is_main:
            whole = model_of(self.arch, read_weights(saved.path)) if saved and spread else model
            save_model(whole, self.work / "model", self.work / "tokenizer")
        self.layout.barrier()
        return _metrics(self.arch.parameters(), result, len(self.tokens), bits)

    def batches(self, step: int, share: Share) -> Iterator[Batch]:
        first, last = share.bounds(self.config.batch)
        size = self.config.micro_batch or last - first
        for begin in range(first, last, size):
            yield to_device(self.loader.load(step, begin, min(begin + size, last)), self.layout.device)

    def glance(self, computation: Computation) -> dict[str, float]:
        return {SCORE: self.measure(computation, self.config.evaluate_windows).per_byte}

    def measure(self, computation: Computation, windows: int | None) -> Bits:
        if self.validation is None:
            raise InputError("there are no validation tokens.")
        batches = evaluation_batches(self.validation, self.config.model.context, EVALUATION_BATCH, self.config.document_mask, windows)
        return measure(computation.nats, self.layout.device, batches, self.sizes)


def _metrics(parameters: int, result: FitResult, corpus: int, bits: Bits | None) -> dict[str, Any]:
    """What `metrics.json` says: no times, so equal runs have equal files."""
    return {
        "parameters": parameters,
        "steps": result.steps,
        "tokens": result.tokens,
        "epochs": result.tokens / corpus,
        "loss": result.loss,
        "skipped": result.skipped,
        "validation": bits and {
            "bits_per_byte": bits.per_byte,
            "nats_per_token": bits.nats_per_token,
            "tokens": bits.tokens,
            "utf8_bytes": bits.bytes,
        },
    }  # fmt: skip
