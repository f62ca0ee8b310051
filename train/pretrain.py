"""The stage `pretrain`: trains a Llama on token shards, on one process or many, and resumes a killed training."""

import hashlib
from typing import Literal

from pydantic import Field, model_validator

from corpusmill.pipeline.cache import local_model
from corpusmill.pipeline.config import INERT, Config
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.extras import TRAINING
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Stage
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import SHARDS_FILE, split_folders
from corpusmill.train.options import LoopConfig, ModelConfig, ParallelConfig, PhaseConfig, PhasePlan, precision_line, row_length


class PretrainConfig(Config):
    """The options of pre-training: the model, the amount of training, the method."""

    model: ModelConfig = Field(default_factory=ModelConfig, description="Size and shape, or the folder of a model that is trained further.")
    loop: LoopConfig = Field(default_factory=LoopConfig, description="Steps, learning rates, guards, saving.")
    phases: tuple[PhaseConfig, ...] = Field(
        default=(), description="Phases with tokens and a schedule of their own, in place of the steps and the schedule of `loop`."
    )
    packing: Literal["stream", "documents"] = Field(
        default="stream",
        description="Rows of `model.context` tokens: windows of the `stream` of all documents, or whole `documents` that share a row and "
        "long ones in pieces, for which the tokens need a plan (`tokens.pack_lengths`).",
    )
    batch: int = Field(default=16, ge=1, description="Rows of `model.context` tokens in a step.")
    micro_batch: int = Field(default=0, ge=0, description="Rows that are computed at a time, to save memory; 0 means the whole batch.")
    seed: int = Field(default=1, ge=0, description="Seed of the initial weights and of the order of the rows.")
    document_mask: bool = Field(default=True, description="Tokens see only their own document, and positions begin anew in each.")
    evaluate_every: int = Field(
        default=250, ge=0, description="Steps between two evaluations on the validation tokens; 0 evaluates only at the end."
    )
    evaluate_windows: int = Field(
        default=0,
        ge=0,
        description="Validation windows of such an evaluation, evenly spread; 0 means all, which the last evaluation always takes.",
    )
    samples: int = Field(
        default=3, ge=0, json_schema_extra=INERT, description="Held-out documents whose beginnings the model continues at every evaluation."
    )
    export: Literal["last", "best"] = Field(
        default="last", description="The model is that of the `last` step, or of the saved state with the `best` validation bits per byte."
    )
    parallel: ParallelConfig = Field(
        default_factory=ParallelConfig, json_schema_extra=INERT, description="Number of processes for each kind of parallelism."
    )
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="`auto`, `cpu` or `cuda`.")

    @model_validator(mode="after")
    def _phases_decide(self) -> "PretrainConfig":
        """Puts the number of all steps and the first phase's warm-up into place."""
        if not self.phases:
            return self
        steps = sum(phase.steps for phase in self.phases)
        self.__dict__["loop"] = self.loop.model_copy(update={"steps": steps})
        self.__dict__["phases"] = (self.phases[0].model_copy(update={"warmup": self.loop.warmup}), *self.phases[1:])
        return self

    @model_validator(mode="after")
    def _shared_evenly(self) -> "PretrainConfig":
        if self.model.folder is None:
            self.parallel.require_even(self.batch, self.model.architecture(1).shared_sizes())
        return self

    @property
    def plan(self) -> PhasePlan:
        return PhasePlan(self.phases) if self.phases else PhasePlan.of(self.loop)

    @property
    def row_tokens(self) -> int:
        """The length of training rows, in tokens. Raises InputError where a given model has a shorter context."""
        if self.model.folder is None:
            return self.model.architecture(1).context
        from corpusmill.train.checkpoint import read_architecture

        return row_length(self.model.context, read_architecture(local_model(self.model.folder)).context, "pretrain.model.context")


def given_files(config: PretrainConfig) -> list[FileRef]:
    """Returns the files of a given model, and of each phase's tokens the list of their files and hashes. Raises InputError where there are
    none."""
    from corpusmill.train.checkpoint import model_files

    found = model_files(config.model.folder, "pretrain.model") if config.model.folder is not None else []
    for tokens in sorted({phase.tokens for phase in config.phases if phase.tokens is not None}):
        content = Storage(tokens_folder(tokens)).read_bytes(SHARDS_FILE)
        found.append(FileRef(f"{tokens_folder(tokens)}/{SHARDS_FILE}", hashlib.sha256(content).hexdigest(), len(content)))
    return found


def tokens_folder(given: str) -> str:
    """Returns the folder with the training split of a run or a set of token shards."""
    storage = Storage(given)
    train = split_folders(storage).get("train", "")
    if not storage.exists(f"{train}/{SHARDS_FILE}".lstrip("/")):
        raise InputError(f"pretrain.phases: {given} has no token shards for training (tokens/train/{SHARDS_FILE}, or train/{SHARDS_FILE}).")
    return storage.path(train)


class PretrainStage(Stage):
    """Trains on `tokens/train`, measures on `tokens/validation`, publishes the folder `pretrain/model` and `metrics.json`."""

    name = "pretrain"
    Config = PretrainConfig
    config: PretrainConfig

    def libraries(self) -> tuple[str, ...]:
        return (*TRAINING, *self.config.loop.log)

    def execute(self, run: StageRun) -> None:
        from corpusmill.train.checkpoint import CheckpointDir
        from corpusmill.train.pretrain_job import pretrain

        config = self.config
        inputs = [*run.outputs_of("tokenizer", "tokenizer.json"), *given_files(config)]
        used = (".bin", ".index.parquet", *([f".pack-{config.row_tokens}.arrow"] if config.packing == "documents" else []))
        inputs += [ref for split in ("train/", "validation/") for ref in run.outputs_of("tokens", split) if ref.path.endswith(used)]
        params = {"save_every": config.loop.save_every} if config.export == "best" else None  # decides which states the best is chosen from
        row = run.once("model", inputs, lambda identity: pretrain(config, run, CheckpointDir.of(run, identity), inputs), params)
        CheckpointDir.of(run, row.identity).clear()

    def summary(self, run: StageRun) -> dict[str, str]:
        metrics = run.storage.read_json("metrics.json")
        lines = {
            "parameters": f"{metrics['parameters']:,}",
            "trained on": f"{metrics['tokens']:,} tokens ({metrics['epochs']:.1f} times the corpus) in {metrics['steps']:,} steps",
        }
        for number, phase in enumerate(metrics["phases"] if len(metrics["phases"]) > 1 else (), 1):
            lines[f"phase {number}"] = f"{phase['reads']}: {phase['steps']:,} steps, {phase['epochs']:.1f} times"
        lines["precision"] = precision_line(metrics["precision"], self.config.loop)
        lines["loss"] = f"{metrics['loss']:.3f} nats a token at the end"
        if metrics["validation"]:
            score = metrics["validation"]
            lines["validation"] = f"{score['bits_per_byte']:.3f} bits per byte ({score['low']:.3f} to {score['high']:.3f})"
        if metrics["skipped"]:
            lines["skipped"] = f"{metrics['skipped']} steps"
        return lines
