"""The stage `align`: the tuned model learns which of two completions is preferred (DPO and its relatives)."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from corpusmill.pipeline.config import ASIDE, Config, digest
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Output, Stage
from corpusmill.train import judged, scores, tuning
from corpusmill.train.judged import JudgedConfig
from corpusmill.train.options import LoopConfig, LoraConfig, OptimizerConfig, ParallelConfig, for_adapter

PAIRS_FILE = "data/pairs.parquet"
CORRUPTED = "corrupted"


class AlignOptimizer(OptimizerConfig):
    kind: Literal["adamw", "muon"] = Field(default="adamw", description="`adamw` for every parameter, or `muon` for hidden matrices.")
    lr: float = Field(default=3e-4, gt=0, description="Peak learning rate of AdamW.")
    muon_lr: float = Field(default=1e-3, gt=0, description="Peak learning rate of Muon, for the matrices inside the layers.")
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay (times the learning rate), on matrices only.")


class AlignLoop(LoopConfig):
    steps: int = Field(default=150, ge=0, description="Optimiser steps at most.")
    optimizer: AlignOptimizer = Field(default_factory=AlignOptimizer, description="AdamW or Muon and their rates.")
    schedule: Literal["cosine", "linear", "wsd", "constant"] = Field(default="linear", description="Learning rate after warm-up.")
    warmup: int = Field(default=10, ge=0, description="Steps of linear warm-up.")
    save_every: int = Field(default=50, ge=1, json_schema_extra=ASIDE, description="Steps between two saves of the training state.")


class AlignConfig(Config):
    """Preference alignment: which pairs, which loss, and how it is trained."""

    files: list[str] = Field(
        default=[],
        description="JSONL, JSON or Parquet files with `prompt`, `chosen` and `rejected` (text or messages). Without any, pairs are "
        "built from the run's own documents, as `pairs_from` says.",
    )
    pairs_from: list[str] = Field(
        default=[CORRUPTED],
        min_length=1,
        description="What a completion is preferred for, a like number of pairs each. `corrupted`: the true continuation against "
        "another document's or a degenerate one. A score of the filter stage (`quality`, `toxicity`): its best part against its worst.",
    )
    best: float = Field(default=0.5, gt=0, le=1, description="Of a score: the best share of documents, or of continuations.")
    worst: float = Field(default=0.1, gt=0, le=1, description="Of a score: the worst share, in which rejected completions are found.")
    pairs: int = Field(default=1500, ge=2, description="At most this many pairs are built from documents.")
    per_document: int = Field(default=8, ge=1, description="At most this many pairs come from one document.")
    max_chars: int = Field(default=200, ge=80, description="Longest completion of a pair that is built from a document, in characters.")
    held_out: float = Field(default=0.1, ge=0, lt=1, description="Share of the pairs that is only measured, by hash.")
    loss: Literal["sigmoid", "conservative", "mean-sigmoid", "robust", "ipo"] = Field(
        default="sigmoid",
        description="`sigmoid` is DPO; `conservative` and `robust` allow for swapped labels, `mean-sigmoid` and `ipo` for lengths.",
    )
    beta: float = Field(default=0.1, gt=0, description="How strongly the policy is held to the reference model.")
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5, description="Share of pairs taken as swapped (conservative, robust).")
    nll_weight: float = Field(
        default=0.2,
        ge=0,
        description="Weight of the chosen completion's loss a token beside the preference loss (RPO), without which a small model's "
        "answers grow short; 0 is plain DPO.",
    )
    batch: int = Field(default=16, ge=1, description="Pairs in a step.")
    micro_batch: int = Field(default=0, ge=0, description="Pairs that are computed at a time, to save memory; 0 means the whole batch.")
    epochs: float = Field(default=2.0, gt=0, description="Passes over the pairs; `loop.steps` bounds them.")
    seed: int = Field(default=2, description="Seed of the order of pairs, and of an adapter's first values.")
    parallel: ParallelConfig = Field(default_factory=ParallelConfig, description="Processes, and what they share out.")
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="`auto`, `cpu` or `cuda`.")
    evaluate_every: int = Field(default=50, ge=0, description="Steps between two measurements on held-out pairs in the log; 0: none.")
    loop: AlignLoop = Field(default_factory=AlignLoop, description="Steps, learning rates and guards.")
    lora: LoraConfig = Field(default_factory=LoraConfig, description="A low-rank adapter that is trained in place of all weights.")
    judged: JudgedConfig = Field(
        default_factory=JudgedConfig, json_schema_extra=ASIDE, description="Answers before and after, scored by the run's classifiers."
    )

    @property
    def columns(self) -> list[str]:
        """The scores that pairs are made from."""
        return [] if self.files else [name for name in self.pairs_from if name != CORRUPTED]

    @model_validator(mode="after")
    def _adapters_have_adamw(self) -> "AlignConfig":
        if self.lora.rank:
            self.__dict__["loop"] = for_adapter(self.loop)
        return self

    @model_validator(mode="after")
    def _smoothing_is_used(self) -> "AlignConfig":
        if self.label_smoothing and self.loss not in ("conservative", "robust"):
            raise ValueError(f"label_smoothing is for the losses conservative and robust, and the loss is {self.loss}")
        return self


class AlignStage(Stage):
    name = "align"
    Config = AlignConfig
    config: AlignConfig

    def execute(self, run: StageRun) -> None:
        tuning.require_local(run)
        parent = tuning.parent_stage(run, ("sft", "pretrain"))
        model = run.outputs_of(parent, "model/")
        columns = self.config.columns
        given = [*tuning.sources(run, self.config.files), *scores.pair_inputs(run, columns)]
        params = scores.score_params(run, columns)
        made = run.once("pairs", [*tuning.token_files(model), *given], lambda _: self._pairs(run, parent, given), params)
        pairs = made.ref(self.name, PAIRS_FILE)
        run.once("model", [*model, pairs], partial(self._model, run, parent, model), config=tuning.alone(self.config))
        judged.execute(run, self.config.judged, parent, self.config.device, pairs, columns)

    def summary(self, run: StageRun) -> dict[str, str]:
        metrics = json.loads(run.storage.read_bytes("metrics.json"))
        lines = {"pairs": f"{metrics['pairs']:,} learned, {metrics['held_out_pairs']:,} held out"}
        before, after = metrics["held_out_before"], metrics["held_out_after"]
        if after:
            lines["held-out preferences"] = f"{before['preference_accuracy']:.1%} right before, {after['preference_accuracy']:.1%} after"
            lines["held-out margin"] = f"{after['margin']:.3f} (loss {before['loss']:.3f} before, {after['loss']:.3f} after)"
        return {**lines, **judged.summary(run)}

    def _pairs(self, run: StageRun, parent: str, given: Sequence[FileRef]) -> Output:
        from corpusmill.train.pair_task import make_pairs

        return make_pairs(run, self.config, parent, given)

    def _model(self, run: StageRun, parent: str, model: Sequence[FileRef], identity: str) -> Output:
        """Trains; the state that a killed run resumes from lies under the task's identity, the reference's
        log-probabilities under a key of their own."""
        work = Path(run.storage.path(f"checkpoints/{identity[:16]}"))
        weights = digest([(ref.path.rpartition("/")[2], ref.fingerprint) for ref in model])
        return tuning.train(run, "preference", self.config, parent, work, weights=weights)
