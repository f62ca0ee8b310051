"""The work of each process of the stage `pretrain`: loads tokens, trains, measures, writes a model folder."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.shards import Content
from corpusmill.pipeline.special_tokens import END_OF_TEXT, EOT_ID, IM_END_ID, IM_START_ID, PAD_ID
from corpusmill.pipeline.stage import Output
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train.checkpoint import read_weights
from corpusmill.train.checkpoint_dir import LOG, CheckpointDir
from corpusmill.train.compute import deterministic
from corpusmill.train.data import Batch, DataShare, PackedLoader, WindowLoader, needed, to_device
from corpusmill.train.generate import Sampling, generate_batch, plain
from corpusmill.train.launch import launch_stage
from corpusmill.train.loop import FitResult, fit
from corpusmill.train.losses import TokenObjective
from corpusmill.train.model import Llama, blank_model
from corpusmill.train.model_folder import model_of, save_model
from corpusmill.train.parallel.dims import ParallelDims
from corpusmill.train.parallel.model import ParallelModel
from corpusmill.train.template import template_files
from corpusmill.train.validation import Validation, read_tokenizer, report

if TYPE_CHECKING:
    from corpusmill.pipeline.runner import StageRun
    from corpusmill.train.pretrain import PretrainConfig


# ---- samples -----------------------------------------------------------------------------------------
#
# While it trains, the model continues the beginnings of a few held-out documents.

#: Most tokens of a document that the model is given (at most half of it), and tokens that it writes.
GIVEN, WRITTEN = 24, 48
TEMPERATURE, TOP_K = 0.7, 50


class Continuations:
    """Continues `count` held-out documents, evenly spread. Equal weights and seeds give equal texts."""

    def __init__(self, validation: Validation, tokenizer: bytes, count: int, seed: int):
        from tokenizers import Tokenizer

        self.tokenizer, self.seed = Tokenizer.from_str(tokenizer.decode()), seed
        shards, starts = validation.shards, validation.starts
        count = min(count, len(starts))
        chosen = starts[np.arange(count) * len(starts) // max(count, 1)]
        self.documents = [shards.documents_of(start, 1)[0] for start in chosen.tolist()]
        self.prompts = [shards.tokens(a.shard)[a.first : a.first + min(GIVEN, a.tokens // 2)].tolist() for a in self.documents]

    def write(self, model: Llama) -> list[dict[str, Any]]:
        """Returns one text for each document: the document's id, the given beginning, and what the model wrote."""
        texts = generate_batch(
            model,
            [[EOT_ID, *prompt] for prompt in self.prompts],
            max_tokens=WRITTEN,
            sampling=Sampling(temperature=TEMPERATURE, top_k=TOP_K, seed=self.seed),
            stop=(EOT_ID,),
            banned=(PAD_ID, IM_START_ID, IM_END_ID),
            tokenizer=self.tokenizer,
        )
        return [
            {"document": document.id, "prompt": plain(self.tokenizer.decode(prompt)), "text": plain(text.text)}
            for document, prompt, text in zip(self.documents, self.prompts, texts, strict=True)
        ]


# ---- the job -----------------------------------------------------------------------------------------

#: The log's name for the score by which the best state is chosen.
SCORE = "validation_bits_per_byte"


def pretrain(config: "PretrainConfig", run: "StageRun", checkpoint_dir: CheckpointDir) -> Output:
    """Trains in the working folder `pretrain/checkpoints/<identity>`. Returns an output that names the finished model's files there."""
    metrics = launch_stage(run, f"{__name__}:train", config, checkpoint_dir)
    files: dict[str, Content] = {f"model/{path.name}": path for path in checkpoint_dir.left()}
    warnings = metrics.pop("warnings")
    files["metrics.json"] = json.dumps(metrics, indent=2).encode() + b"\n"
    return Output(files, rows_in=metrics["tokens"], kept=metrics["tokens"], counts={"skipped_steps": metrics["skipped"]}, warnings=warnings)


def train(dims: ParallelDims, progress: Progress | None, config: dict[str, Any], run: str, work: str) -> dict[str, Any]:
    """Trains on this process. The first process writes the folder `work/model`. Returns the content of `metrics.json`."""
    from corpusmill.train.pretrain import PretrainConfig

    storage = Storage(run)
    checkpoint_dir = CheckpointDir(work, storage.path(f"pretrain/{LOG}"))
    return _Job(PretrainConfig.model_validate(config), storage, checkpoint_dir, dims).train(progress)


class _Job(TokenObjective):
    """One process's part of a pre-training: its batches, its evaluations, and the loop around them."""

    def __init__(self, config: "PretrainConfig", run: Storage, checkpoint_dir: CheckpointDir, dims: ParallelDims):
        self.config, self.run, self.checkpoint_dir, self.dims = config, run, checkpoint_dir, dims
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
        if self.dims.is_main:
            texts = template_files(self.config.model.context, end_token=END_OF_TEXT)
            self.checkpoint_dir.begin({"tokenizer.json": self.tokenizer, **texts})
        loop = self.config.loop.model_copy(update={"keep_best": max(self.config.loop.keep_best, best)})
        result = fit(
            model, self, loop, dims=self.dims, seed=self.config.seed, state=self.checkpoint_dir.states,
            log=self.checkpoint_dir.log_file, describe=self.documents,
            evaluate=self.evaluate if self.validation else None, evaluate_every=self.config.evaluate_every, score=SCORE,
            progress=progress, title="pretrain",
        )  # fmt: skip
        states, spread = result.states, self.dims.world > 1
        saved = states.best() if best else states.latest() if spread else None
        if best and saved and saved.step < result.steps:
            states.load_weights(saved, result.parallel_model.parameters)
            self.final = None
        if self.validation and self.final is None:  # the best state is an earlier one, or the process was killed after the last step
            with deterministic(self.config.loop.threads):
                self.measure(self.validation, result.parallel_model, 0)
        if self.dims.is_main:
            whole = model_of(self.arch, read_weights(saved.path)) if saved and spread else model
            save_model(whole, self.checkpoint_dir.folder / "model", self.checkpoint_dir.folder / "tokenizer")
        self.checkpoint_dir.leave(self.dims)
        return {**_metrics(self.arch.parameters(), result, len(self.tokens), self.final), "warnings": self.warnings}

    def batches(self, step: int, share: DataShare) -> Iterator[Batch]:
        for begin, end in share.micro_batches(self.config.batch, self.config.micro_batch):
            ids, targets, segments = self.loader.load(step, begin, end)
            yield to_device((ids, targets, needed(segments)), self.dims.device)

    def documents(self, step: int, share: DataShare, number: int) -> list[str]:
        """Returns the ids of the documents in a micro-batch."""
        return self.loader.documents(step, *share.micro_batches(self.config.batch, self.config.micro_batch)[number])

    def evaluate(self, parallel_model: ParallelModel, done: int) -> dict[str, Any]:
        """Returns values for the log: after the last step the score over all windows, before that over `evaluate_windows` of them."""
        assert self.validation is not None
        line = self.measure(self.validation, parallel_model, 0 if done == self.config.loop.steps else self.config.evaluate_windows)
        if self.continuations and self.dims.is_main:
            with torch.compiler.set_stance("force_eager") if parallel_model.model.compiled else nullcontext():
                line["samples"] = self.continuations.write(parallel_model.model)  # type: ignore[arg-type]
        return line

    def measure(self, validation: Validation, parallel_model: ParallelModel, windows: int) -> dict[str, Any]:
        sums = validation.sums(parallel_model, self.dims.device, self.dims.share, windows)
        score, groups = sums.score(), validation.by_group(sums)
        self.final = None if windows else report(score, groups)
        names = {"low": score.low, "high": score.high, "nats_per_token": score.nats_per_token}
        by = {kind: {name: some.bits_per_byte for name, some in of.items()} for kind, of in groups.items()}
        return {SCORE: score.bits_per_byte, **{f"validation_{name}": value for name, value in names.items()}, "validation_by": by}

    def _samples(self) -> bool:
        """Whether texts can be sampled: every process must have the whole model."""
        whole = self.config.parallel.whole
        if self.config.samples and not whole:
            self.warnings.append("no texts were sampled while the model was trained, as no process had all of it")
        return bool(self.config.samples) and whole


def _metrics(parameters: int, result: FitResult, corpus: int, validation: dict[str, Any] | None) -> dict[str, Any]:
    """Returns the content of `metrics.json`. It holds no times, so equal runs have equal files."""
    return {
        "parameters": parameters,
        "steps": result.steps,
        "tokens": result.tokens,
        "epochs": result.tokens / corpus,
        "loss": result.loss,
        "skipped": result.skipped,
        "validation": validation,
    }
