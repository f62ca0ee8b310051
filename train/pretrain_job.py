"""What the stage `pretrain` does: load, train, measure, leave a model folder."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.shards import Content
from corpusmill.pipeline.special_tokens import END_OF_TEXT, EOT_ID
from corpusmill.pipeline.stage import Output
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train.bits import Batch
from corpusmill.train.checkpoint import model_of, save_model, save_tokenizer
from corpusmill.train.continuations import Continuations
from corpusmill.train.device import deterministic
from corpusmill.train.launch import launch
from corpusmill.train.loader import WindowLoader, to_device
from corpusmill.train.loop import FitResult, fit
from corpusmill.train.model import blank_model
from corpusmill.train.objective import Share, TokenObjective
from corpusmill.train.packed import PackedLoader
from corpusmill.train.parallel.computation import Computation
from corpusmill.train.parallel.layout import Layout
from corpusmill.train.state import read_weights
from corpusmill.train.template import template_files
from corpusmill.train.tokenizer_file import read_tokenizer
from corpusmill.train.validation import Validation, report
from corpusmill.train.workplace import LOG, Workplace

if TYPE_CHECKING:
    from corpusmill.pipeline.runner import StageRun
    from corpusmill.train.pretrain import PretrainConfig

#: The name in the log by which states are best.
SCORE = "validation_bits_per_byte"


def pretrain(config: "PretrainConfig", run: "StageRun", place: Workplace) -> Output:
    """Trains in the working folder `pretrain/checkpoints/<identity>`; the output names the finished model's files there."""
    arguments = {"config": config.model_dump(mode="json"), "run": run.run.root, "work": place.work}
    metrics = launch(
        f"{__name__}:train", arguments, config.parallel, config.device, run.progress, folder=place.processes, store=place.store,
        engine=run.engine, title="pretrain", log=place.log_file, steps=config.loop.steps,
    )  # fmt: skip
    files: dict[str, Content] = {f"model/{path.name}": path for path in place.left()}
    warnings = metrics.pop("warnings")
    files["metrics.json"] = json.dumps(metrics, indent=2).encode() + b"\n"
    return Output(files, rows_in=metrics["tokens"], kept=metrics["tokens"], counts={"skipped_steps": metrics["skipped"]}, warnings=warnings)


def train(layout: Layout, progress: Progress | None, config: dict[str, Any], run: str, work: str) -> dict[str, Any]:
    """What every process does; the first one leaves the folder `work/model` and returns what `metrics.json` holds."""
    from corpusmill.train.pretrain import PretrainConfig

    storage = Storage(run)
    place = Workplace(work, storage.path(f"pretrain/{LOG}"))
    return _Job(PretrainConfig.model_validate(config), storage, place, layout).train(progress)


class _Job(TokenObjective):
    """One process's part of a pre-training: its batches, and what is measured around the loop."""

    def __init__(self, config: "PretrainConfig", run: Storage, place: Workplace, layout: Layout):
        self.config, self.run, self.place, self.layout = config, run, place, layout
        self.z_loss = config.z_loss
        self.tokenizer, sha256 = read_tokenizer(run.child("tokenizer"))
        self.tokens = TokenShards(run.path("tokens/train"), tokenizer_sha256=sha256, end_of_text_id=EOT_ID)
        folder = run.path("tokens/validation")
        self.validation = Validation.open(folder, self.tokenizer, sha256, config.model.context, config.document_mask)
        self.arch = config.model.architecture(self.tokens.description.vocabulary_size)
        self.final: dict[str, Any] | None = None  # the score after the last step
        self.warnings = (
            [] if self.validation else [f"{folder}: no validation tokens, so nothing was evaluated; see tokens.validation_share"]
        )
        self.continuations: Continuations | None = None
        if self.validation and self._samples():
            self.continuations = Continuations(self.validation, self.tokenizer, config.samples, config.seed)
        kind = PackedLoader if config.packing == "documents" else WindowLoader
        self.loader = kind(self.tokens, config.model.context, config.batch, config.seed, config.document_mask)

    def train(self, progress: Progress | None) -> dict[str, Any]:
        model = blank_model(self.arch)
        best = self.config.export == "best"
        if best and not self.validation:
            raise InputError(f"{self.run.path('tokens')}: pretrain.export: best needs validation tokens, and there are none.")
        if self.layout.is_main:
            texts = template_files(self.config.model.context, end_token=END_OF_TEXT)
            save_tokenizer({"tokenizer.json": self.tokenizer, **texts}, self.place.folder / "tokenizer")
            self.place.keep("tokenizer")
            self.place.fetch_logs()
        loop = self.config.loop.model_copy(update={"keep_best": max(self.config.loop.keep_best, best)})
        result = fit(
            model, self, loop, layout=self.layout, seed=self.config.seed, state=self.place.states,
            log=self.place.log_file, describe=self.documents,
            evaluate=self.evaluate if self.validation else None, evaluate_every=self.config.evaluate_every, score=SCORE,
            progress=progress, title="pretrain",
        )  # fmt: skip
        states, spread = result.states, self.layout.world > 1
        saved = states.best() if best else states.latest() if spread else None
        if best and saved and saved.step < result.steps:
            states.load_weights(saved, result.computation.parameters)
            self.final = None
        if self.validation and self.final is None:  # of that state; or it was killed after the last step
            with deterministic(self.config.loop.threads):
                self.measure(self.validation, result.computation, 0)
        if self.layout.is_main:
            whole = model_of(self.arch, read_weights(saved.path)) if saved and spread else model
            save_model(whole, self.place.folder / "model", self.place.folder / "tokenizer")
        self.place.leave(self.layout)
        return {**_metrics(self.arch.parameters(), result, len(self.tokens), self.final), "warnings": self.warnings}

    def batches(self, step: int, share: Share) -> Iterator[Batch]:
        for begin, end in share.pieces(self.config.batch, self.config.micro_batch):
            yield to_device(self.loader.load(step, begin, end), self.layout.device)

    def documents(self, step: int, share: Share, piece: int) -> list[str]:
        """The ids of the documents in a micro-batch."""
        return self.loader.documents(step, *share.pieces(self.config.batch, self.config.micro_batch)[piece])

    def evaluate(self, computation: Computation, done: int) -> dict[str, Any]:
        """What goes into the log: the whole score at the end, one of some windows before where the configuration says so."""
        assert self.validation is not None
        line = self.measure(self.validation, computation, 0 if done == self.config.loop.steps else self.config.evaluate_windows)
        if self.continuations and self.layout.is_main:
            with torch.compiler.set_stance("force_eager") if self.config.loop.compile else nullcontext():
                line["samples"] = self.continuations.write(computation.model)  # type: ignore[arg-type]
        return line

    def measure(self, validation: Validation, computation: Computation, windows: int) -> dict[str, Any]:
        sums = validation.sums(computation, self.layout.device, self.layout.share, windows)
        score, groups = sums.score(), validation.by_group(sums)
        self.final = None if windows else report(score, groups)
        names = {"low": score.low, "high": score.high, "nats_per_token": score.nats_per_token}
        by = {kind: {name: some.bits_per_byte for name, some in of.items()} for kind, of in groups.items()}
        return {SCORE: score.bits_per_byte, **{f"validation_{name}": value for name, value in names.items()}, "validation_by": by}

    def _samples(self) -> bool:
        """Whether texts can be sampled: one process must have the whole model."""
        whole = self.config.parallel.whole
        if self.config.samples and not whole:
            self.warnings.append("no texts were sampled while the model was trained, as no process had all of it")
        return bool(self.config.samples) and whole


def _metrics(parameters: int, result: FitResult, corpus: int, validation: dict[str, Any] | None) -> dict[str, Any]:
    """What `metrics.json` says: no times, so equal runs have equal files."""
    return {
        "parameters": parameters,
        "steps": result.steps,
        "tokens": result.tokens,
        "epochs": result.tokens / corpus,
        "loss": result.loss,
        "skipped": result.skipped,
        "validation": validation,
    }
