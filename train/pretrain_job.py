"""The work of each process of the stage `pretrain`: loads tokens, trains, measures, writes a model folder."""

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from corpusmill.pipeline.cache import local_model
from corpusmill.pipeline.code import code_for
from corpusmill.pipeline.config import counting, digest
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.shards import Content
from corpusmill.pipeline.special_tokens import END_OF_TEXT, EOT_ID, IM_END_ID, IM_START_ID, PAD_ID
from corpusmill.pipeline.stage import Output
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import SHARDS_FILE, TokenShards
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train.checkpoint import LOG, CheckpointDir, model_of, read_architecture, save_model, tokenizer_files
from corpusmill.train.compute import deterministic
from corpusmill.train.data import Batch, DataShare, PackedLoader, Validation, WindowLoader, makers, needed, read_tokenizer, to_device
from corpusmill.train.generate import Sampling, generate_batch, plain
from corpusmill.train.launch import launch_stage
from corpusmill.train.loop import OWN, FitResult, fit
from corpusmill.train.model import Llama, Objective, blank_model
from corpusmill.train.options import PhasePlan
from corpusmill.train.parallel import ParallelDims
from corpusmill.train.parallel.model import ParallelModel
from corpusmill.train.pretrain import PretrainConfig, tokens_folder
from corpusmill.train.template import template_files

if TYPE_CHECKING:
    from corpusmill.pipeline.runner import StageRun


#: Most tokens of a held-out document that the model is given while it trains (at most half of it), and tokens that it writes.
GIVEN, WRITTEN = 24, 48
TEMPERATURE, TOP_K = 0.7, 50
#: The log's name for the score by which the best state is chosen.
SCORE = "validation_bits_per_byte"


def pretrain(config: PretrainConfig, run: "StageRun", checkpoint_dir: CheckpointDir, inputs: Sequence[FileRef]) -> Output:
    """Trains in the working folder `pretrain/checkpoints/<identity>`. Returns an output that names the finished model's files there."""
    alike = {name: value for name, value in counting(config).items() if name not in ("loop", "phases")}
    files = [ref.fingerprint for ref in inputs if not ref.path.endswith(SHARDS_FILE)]  # a plan names the tokens of its phases
    inputs_digest = digest([alike, files, code_for(pretrain, config.model_dump(mode="json")).digest])
    others = checkpoint_dir.others() if config.export == "last" else []  # the best state must be one of this training
    metrics = launch_stage(run, f"{__name__}:train", config, checkpoint_dir, inputs_digest=inputs_digest, others=others)
    published: dict[str, Content] = {f"model/{path.name}": path for path in checkpoint_dir.left()}
    warnings = metrics.pop("warnings")
    published["metrics.json"] = json.dumps(metrics, indent=2).encode() + b"\n"
    counts = {"skipped_steps": metrics["skipped"]}
    return Output(published, rows_in=metrics["tokens"], kept=metrics["tokens"], counts=counts, warnings=warnings)


def train(
    dims: ParallelDims, progress: Progress | None, config: dict[str, Any], run: str, work: str, inputs_digest: str, others: Sequence[str]
) -> dict[str, Any]:
    """Trains on this process. The first process writes the folder `work/model`. Returns the content of `metrics.json`."""
    storage = Storage(run)
    checkpoint_dir = CheckpointDir(work, storage.path(f"pretrain/{LOG}"))
    job = _Job(PretrainConfig.model_validate(config), storage, checkpoint_dir, dims)
    return job.train(progress, inputs_digest, [Storage(other) for other in others])


class _Job(Objective):
    """One process's part of a pre-training: its batches, its evaluations, and the loop around them."""

    def __init__(self, config: PretrainConfig, run: Storage, checkpoint_dir: CheckpointDir, dims: ParallelDims):
        self.config, self.run, self.checkpoint_dir, self.dims = config, run, checkpoint_dir, dims
        self.row_tokens = config.row_tokens
        self.tokenizer, sha256 = read_tokenizer(run.child("tokenizer"))
        self.given = local_model(config.model.folder) if config.model.folder else None  # the model that is trained further
        shards = TokenShards(run.path("tokens/train"), sha256, None if self.given else EOT_ID)  # a new model has our own special tokens
        if self.given:
            self.files, self.arch = tokenizer_files(Storage(str(self.given))), read_architecture(self.given)
            self.tokenizer = self.files["tokenizer.json"]
            self._require_fitting(shards)
        else:
            self.files = {"tokenizer.json": self.tokenizer, **template_files(self.row_tokens, end_token=END_OF_TEXT)}
            self.arch = config.model.architecture(shards.description.vocabulary_size)
        #: The loader of each phase's tokens, by the recipe's name for them, and that name with the folder and its content.
        self.loaders: dict[str | None, WindowLoader | PackedLoader] = {None: self._loader(shards)}
        self.names: dict[str | None, str | None] = {None: None}
        for tokens in {phase.tokens for phase in config.phases if phase.tokens is not None}:
            storage = Storage(tokens_folder(tokens))
            self.loaders[tokens] = self._loader(TokenShards(storage.root, sha256, shards.end_of_text_id))
            self.names[tokens] = f"{storage.root} (sha256 {storage.sha256(SHARDS_FILE)[:12]})"
        self.validation = Validation.open(run, self.tokenizer, self.row_tokens, config.document_mask)
        self.final: dict[str, Any] | None = None  # the score after the last step
        self.warnings: list[str] = []
        if not self.validation:
            missing = f"{run.path('tokens/validation')}: no validation tokens"
            self.warnings.append(f"{missing}, so nothing was evaluated; see tokens.validation_share")
        elif config.samples and not config.parallel.whole:
            self.warnings.append("no texts were sampled while the model was trained, as no process had all of it")

    def _require_fitting(self, shards: TokenShards) -> None:
        """Raises InputError unless the given model can be shared out as the recipe asks, and has the tokenizer of these token shards, or
        one that only adds special tokens to it."""
        try:
            self.config.parallel.require_even(self.config.batch, {**self.arch.shared_sizes(), "context": self.row_tokens})
        except ValueError as error:
            raise InputError(f"pretrain.parallel: {error}.") from error
        made, size = shards.description.tokenizer_sha256, shards.description.vocabulary_size
        if made not in makers(self.run, self.tokenizer):
            raise InputError(
                f"pretrain.model: the tokenizer of {self.given} is not the one that made the tokens in {shards.storage.root} "
                f"(sha256 {made[:12]}); make them with tokenizer.file: {self.given}/tokenizer.json."
            )
        if size > self.arch.vocab_size:
            raise InputError(f"pretrain.model: {self.given} has {self.arch.vocab_size} tokens, and its tokenizer {size}.")

    def _loader(self, tokens: TokenShards) -> WindowLoader | PackedLoader:
        kind = PackedLoader if self.config.packing == "documents" else WindowLoader
        return kind(tokens, self.row_tokens, self.config.batch, self.config.seed, self.config.document_mask)

    def train(self, progress: Progress | None, inputs_digest: str, others: Sequence[Storage]) -> dict[str, Any]:
        best = self.config.export == "best"
        if best and not self.validation:
            raise InputError(f"{self.run.path('tokens')}: pretrain.export: best needs validation tokens, and there are none.")
        model = blank_model(self.arch)
        if self.dims.is_main:
            self.checkpoint_dir.begin(self.files)
        loop = self.config.loop.model_copy(update={"keep_best": max(self.config.loop.keep_best, best)})
        plan = PhasePlan(tuple(phase.model_copy(update={"tokens": self.names[phase.tokens]}) for phase in self.config.plan.phases))
        result = fit(
            model, self, loop, dims=self.dims, start=self.given or self.config.seed, state=self.checkpoint_dir,
            log=self.checkpoint_dir.log_file, plan=plan, inputs_digest=inputs_digest, others=others, length=self.row_tokens,
            describe=self.documents, evaluate=self.evaluate if self.validation else None, evaluate_every=self.config.evaluate_every,
            score=SCORE, progress=progress, title="pretrain",
        )  # fmt: skip
        states, spread = result.states, self.dims.world > 1
        saved = states.best() if best else None
        if saved and saved.step < result.steps:
            states.load_weights(saved, result.parallel_model.parameters)
            self.final = None
        if self.validation and self.final is None:  # the best state is an earlier one, or the process was killed after the last step
            with deterministic(self.config.loop.threads):
                self._measure(result.parallel_model, 0)
        if spread and not saved:
            saved = states.latest()
        if self.dims.is_main:
            whole = model_of(self.arch, saved.weights()) if saved and spread else model
            save_model(whole, self.checkpoint_dir.folder / "model", self.files)
        self.checkpoint_dir.leave(self.dims)
        return {**self._metrics(result), "warnings": [*self.warnings, *result.warnings]}

    def _metrics(self, result: FitResult) -> dict[str, Any]:
        """Returns the content of `metrics.json`. It holds no times, so equal runs have equal files."""
        phases, rows = self.config.plan.phases, {tokens: loader.rows for tokens, loader in self.loaders.items()}
        read = {phase.tokens for phase in phases} or {None}
        return {
            "parameters": self.arch.parameters(),
            "steps": result.steps,
            "tokens": result.tokens,
            "epochs": result.tokens / sum(len(self.loaders[tokens].tokens) for tokens in read),
            "phases": [
                {"reads": phase.tokens or OWN, "steps": phase.steps, "epochs": phase.steps * self.config.batch / rows[phase.tokens]}
                for phase in phases
            ],
            "loss": result.loss,
            "skipped": result.skipped,
            "precision": result.precision,
            "validation": self.final,
        }

    def batches(self, step: int, share: DataShare) -> Iterator[Batch]:
        tokens, number = self.config.plan.source(step)
        for begin, end in share.micro_batches(self.config.batch, self.config.micro_batch):
            ids, targets, segments = self.loaders[tokens].load(number, begin, end)
            yield to_device((ids, targets, needed(segments)), self.dims.device)

    def documents(self, step: int, share: DataShare, number: int) -> list[str]:
        """Returns the ids of the documents in a micro-batch."""
        tokens, at = self.config.plan.source(step)
        return self.loaders[tokens].documents(at, *share.micro_batches(self.config.batch, self.config.micro_batch)[number])

    # ---- evaluation ---------------------------------------------------------------------------------

    def evaluate(self, parallel_model: ParallelModel, done: int) -> dict[str, Any]:
        """Returns values for the log: after the last step the score over all windows, before that over `evaluate_windows` of them."""
        line = self._measure(parallel_model, 0 if done == self.config.loop.steps else self.config.evaluate_windows)
        if self.config.samples and self.config.parallel.whole and self.dims.is_main:
            with torch.compiler.set_stance("force_eager") if parallel_model.model.compiled else nullcontext():
                line["samples"] = self._samples(parallel_model.model)
        return line

    def _measure(self, parallel_model: ParallelModel, windows: int) -> dict[str, Any]:
        assert self.validation is not None
        sums = self.validation.sums(parallel_model, self.dims.device, self.dims.share, windows)
        found = self.validation.report(sums)
        self.final = None if windows else found
        values = {f"validation_{name}": found[name] for name in ("bits_per_byte", "low", "high", "nats_per_token")}
        by = {kind: {name: some["bits_per_byte"] for name, some in of.items()} for kind, of in found["by"].items()}
        return {**values, "validation_by": by}

    def _samples(self, model: Llama) -> list[dict[str, Any]]:
        """Lets the model continue a few held-out documents, evenly spread: the document's id, the given beginning, and what it wrote. Equal
        weights and seeds give equal texts."""
        from tokenizers import Tokenizer

        assert self.validation is not None
        tokenizer, shards, starts = Tokenizer.from_str(self.tokenizer.decode()), self.validation.shards, self.validation.starts
        count, end = min(self.config.samples, len(starts)), shards.end_of_text_id
        documents = [shards.documents_of(start, 1)[0] for start in starts[np.arange(count) * len(starts) // max(count, 1)].tolist()]
        prompts = [shards.tokens(a.shard)[a.first : a.first + min(GIVEN, a.tokens // 2)].tolist() for a in documents]
        banned = (PAD_ID, IM_START_ID, IM_END_ID) if end == EOT_ID else ()  # another tokenizer has other tokens there
        sampling = Sampling(temperature=TEMPERATURE, top_k=TOP_K, seed=self.config.seed)
        given = [[end, *prompt] for prompt in prompts]
        texts = generate_batch(model, given, max_tokens=WRITTEN, sampling=sampling, stop=(end,), banned=banned, tokenizer=tokenizer)
        return [
            {"document": document.id, "prompt": plain(tokenizer.decode(prompt)), "text": plain(text.text)}
            for document, prompt, text in zip(documents, prompts, texts, strict=True)
        ]
