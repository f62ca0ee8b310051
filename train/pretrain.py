"""The stage `pretrain`: trains a Llama on token shards, on one process or many, and resumes a killed training."""

import json
from typing import Literal

from pydantic import Field, model_validator

from corpusmill.pipeline.config import INERT, Config
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Stage
from corpusmill.train.options import LoopConfig, ModelConfig, ParallelConfig


class PretrainConfig(Config):
    """The options of pre-training: the model, the amount of training, the method."""

    model: ModelConfig = Field(default_factory=ModelConfig, description="Size and shape.")
    loop: LoopConfig = Field(default_factory=LoopConfig, description="Steps, learning rates, guards, saving.")
    packing: Literal["stream", "documents"] = Field(
        default="stream",
        description="Rows of `model.context` tokens: windows of the `stream` of all documents, or whole `documents` that share a row and "
        "long ones in pieces, for which the tokens need a plan (`tokens.pack_lengths`).",
    )
    batch: int = Field(default=16, ge=1, description="Rows of `model.context` tokens in a step.")
    micro_batch: int = Field(default=0, ge=0, description="Rows that are computed at a time, to save memory; 0 means the whole batch.")
    z_loss: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the squared log of the softmax's sum in the gradient (PaLM: 1e-4), not in the logged loss.",
    )
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
    def _shared_evenly(self) -> "PretrainConfig":
        self.parallel.require_even(self.batch, self.model.architecture(1).shared_sizes())
        return self


class PretrainStage(Stage):
    """Trains on `tokens/train`, measures on `tokens/validation`, publishes the folder `pretrain/model` and `metrics.json`."""

    name = "pretrain"
    Config = PretrainConfig
    config: PretrainConfig

    def execute(self, run: StageRun) -> None:
        inputs = run.outputs_of("tokenizer", "tokenizer.json")
        used = (".bin", ".index.parquet", *([f".pack-{self.config.model.context}.arrow"] if self.config.packing == "documents" else []))
        inputs += [ref for split in ("train/", "validation/") for ref in run.outputs_of("tokens", split) if ref.path.endswith(used)]
        from corpusmill.train.checkpoint_dir import CheckpointDir
        from corpusmill.train.pretrain_job import pretrain

        config = self.config
        params = {"save_every": config.loop.save_every} if config.export == "best" else None  # decides which states the best is chosen from
        row = run.once("model", inputs, lambda identity: pretrain(config, run, CheckpointDir.of(run, identity)), params)
        CheckpointDir.of(run, row.identity).clear()

    def summary(self, run: StageRun) -> dict[str, str]:
        metrics = json.loads(run.storage.read_bytes("metrics.json"))
        lines = {
            "parameters": f"{metrics['parameters']:,}",
            "trained on": f"{metrics['tokens']:,} tokens ({metrics['epochs']:.1f} times the corpus) in {metrics['steps']:,} steps",
            "loss": f"{metrics['loss']:.3f} nats a token at the end",
        }
        if metrics["validation"]:
            score = metrics["validation"]
            lines["validation"] = f"{score['bits_per_byte']:.3f} bits per byte ({score['low']:.3f} to {score['high']:.3f})"
        if metrics["skipped"]:
            lines["skipped"] = f"{metrics['skipped']} steps"
        return lines
