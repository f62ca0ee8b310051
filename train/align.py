"""The stage `align`: trains the tuned model to prefer one of two completions (DPO and its relatives)."""

import json
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from corpusmill.pipeline.config import INERT
from corpusmill.pipeline.extras import TRAINING
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Output, Stage
from corpusmill.train import scores, tuning
from corpusmill.train.tuning import TuningConfig, TuningLoop, TuningOptimizer

PAIRS_FILE = "data/pairs.parquet"
CORRUPTED = "corrupted"

#: Losses that need no reference model.
REFERENCE_FREE = ("orpo", "simpo")
#: Options of only some losses: the value that has no effect, and these losses.
OPTIONS_OF: dict[str, tuple[float, tuple[str, ...]]] = {
    "label_smoothing": (0.0, ("conservative", "robust")),
    "gamma": (0.0, ("simpo",)),
}
#: Default beta where it is not 0.1: those of Tulu 3 and of SimPO's authors; for IPO a margin of half a nat per token.
USUAL_BETA = {"mean-sigmoid": 5.0, "simpo": 2.0, "ipo": 1.0}


class AlignOptimizer(TuningOptimizer):
    kind: Literal["adamw", "muon"] = Field(default="adamw", description="`adamw` for every parameter, or `muon` for hidden matrices.")
    lr: float = Field(default=3e-4, gt=0, description="Peak learning rate of AdamW.")
    muon_lr: float = Field(default=1e-3, gt=0, description="Peak learning rate of Muon, for the matrices inside the layers.")


class AlignLoop(TuningLoop):
    steps: int = Field(default=150, ge=0, description="Optimiser steps at most.")
    optimizer: AlignOptimizer = Field(default_factory=AlignOptimizer, description="AdamW or Muon and their rates.")
    # Late in training most pairs have a loss near 0 and a hard one of more than 1. Its step is the one to learn from, and no spike.
    spike: float = Field(
        default=0.0,
        ge=0,
        description="Skips a step whose loss or gradient norm is this many robust deviations above recent ones; 0 skips only those that "
        "are not finite.",
    )
    save_every: int = Field(default=50, ge=1, json_schema_extra=INERT, description="Steps between two saves of the training state.")


class AlignConfig(TuningConfig):
    """The options of preference alignment: its pairs, its loss, its training."""

    model_config = ConfigDict(allow_inf_nan=False)

    files: list[str] = Field(
        default=[],
        description="JSONL, JSON or Parquet files with `prompt`, `chosen` and `rejected` (text or messages), or trees of ranked messages. "
        "Without any, pairs are built from the run's own documents, as `pairs_from` says.",
    )
    pairs_from: list[str] = Field(
        default=[CORRUPTED],
        min_length=1,
        description="Sources of pairs, with an equal number of pairs each. `corrupted`: the true continuation against "
        "another document's or a degenerate one. A score of the filter stage (`quality`, `toxicity`): its best part against its worst.",
    )
    best: float = Field(default=0.5, gt=0, le=1, description="Of a score: the best share of documents, or of continuations.")
    worst: float = Field(default=0.1, gt=0, le=1, description="Of a score: the worst share, in which rejected completions are found.")
    pairs: int = Field(default=1500, ge=2, description="At most this many pairs are built from documents.")
    per_document: int = Field(default=8, ge=1, description="At most this many pairs come from one document.")
    max_chars: int = Field(default=200, ge=80, description="Longest completion of a pair that is built from a document, in characters.")
    loss: Literal["sigmoid", "conservative", "mean-sigmoid", "robust", "ipo", "orpo", "simpo"] = Field(
        default="sigmoid",
        description="`sigmoid` is DPO; `conservative` and `robust` allow for swapped labels, `mean-sigmoid` and `ipo` for lengths; `orpo` "
        "and `simpo` need no reference model.",
    )
    reference: str | None = Field(
        default=None, description="Folder of the reference model, in a transformers layout; else it is the model that is aligned."
    )
    beta: float = Field(
        default=0.1,
        gt=0,
        description="How strongly the policy is held to the reference model; the weight of ORPO's odds ratio. Where it is not given: "
        "5 with `mean-sigmoid`, 2 with `simpo`, 1 with `ipo`.",
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5, description="Share of pairs taken as swapped (conservative, robust).")
    gamma: float = Field(default=0.0, ge=0, description="Margin by which rewards should differ (simpo, where it is beta / 2 if not given).")
    nll_weight: float = Field(
        default=0.2,
        ge=0,
        description="Weight of the chosen completion's loss a token beside the preference loss (RPO), without which a small model's "
        "answers grow short; 0 is plain DPO. Where it is not given: 0 with `orpo`, which has it already.",
    )
    batch: int = Field(default=16, ge=1, description="Pairs in a step.")
    micro_batch: int = Field(default=0, ge=0, description="Pairs that are computed at a time, to save memory; 0 means the whole batch.")
    epochs: float = Field(default=2.0, gt=0, description="Passes over the pairs; `loop.steps` bounds them.")
    seed: int = Field(default=2, description="Seed of the order of pairs, and of an adapter's first values.")
    loop: AlignLoop = Field(default_factory=AlignLoop, description="Steps, learning rates and guards.")

    @model_validator(mode="before")
    @classmethod
    def _usual_values(cls, given: Any) -> Any:
        """Fills in the values that are usual with the chosen loss, where they are not given."""
        if not isinstance(given, dict):
            return given
        loss = given.get("loss", "sigmoid")
        usual = {"nll_weight": 0.0} if loss == "orpo" else {}
        usual |= {"beta": USUAL_BETA[loss]} if isinstance(loss, str) and loss in USUAL_BETA else {}
        return usual | given

    @model_validator(mode="after")
    def _usual_gamma(self) -> "AlignConfig":
        if self.loss == "simpo" and "gamma" not in self.model_fields_set:
            self.__dict__["gamma"] = self.beta / 2  # the value in the authors' runs
        return self

    @model_validator(mode="after")
    def _options_are_used(self) -> "AlignConfig":
        if len(set(self.pairs_from)) < len(self.pairs_from):
            raise ValueError("pairs_from names an entry twice")
        if self.best + self.worst > 1:
            raise ValueError(f"best + worst must be at most 1, not {self.best} + {self.worst}")
        for option, (neutral, losses) in OPTIONS_OF.items():
            if getattr(self, option) != neutral and self.loss not in losses:
                which = f"loss{'es' if len(losses) > 1 else ''} {' and '.join(losses)}"
                raise ValueError(f"{option} is for the {which}, and the loss is {self.loss}")
        if self.loss == "orpo" and self.nll_weight:
            raise ValueError("nll_weight is 0 with the loss orpo, which has the chosen completion's loss in it already")
        if self.loss in REFERENCE_FREE and self.reference is not None:
            raise ValueError(f"reference is for losses with a reference model, and {self.loss} needs none")
        return self


class AlignStage(Stage):
    name = "align"
    Config = AlignConfig
    config: AlignConfig

    def libraries(self) -> tuple[str, ...]:
        return (*TRAINING, *self.config.loop.log)

    def execute(self, run: StageRun) -> None:
        start = tuning.start_of(run, ("sft", "pretrain"), self.config.model)
        columns = [] if self.config.files else [name for name in self.config.pairs_from if name != CORRUPTED]
        of_scores, params = scores.pair_inputs(run, columns)
        given = [*tuning.sources(run, self.config.files), *of_scores]
        made = run.once("pairs", [*tuning.token_files(start.files), *given], lambda _: self._pairs(run, start, given), params)
        pairs = made.ref(self.name, PAIRS_FILE)
        reference = tuning.model_files(self.config.reference, "align.reference") if self.config.reference is not None else []
        tuning.train_once(run, [*start.files, pairs, *reference], partial(self._train, run, start))

    def summary(self, run: StageRun) -> dict[str, str]:
        metrics = json.loads(run.storage.read_bytes("metrics.json"))
        lines = {"pairs": f"{metrics['pairs']:,} learned, {metrics['held_out_pairs']:,} held out; {tuning.steps_line(metrics)}"}
        before, after = metrics["held_out_before"], metrics["held_out_after"]
        if after:
            losses = f"loss {before['loss']:.3f} before, {after['loss']:.3f} after"
            lines["held-out rewards"] = f"{after['accuracy']:.1%} of pairs right, margin {after['margin']:.3f} ({losses})"
            lines["more likely a token"] = (
                f"the chosen one of {before['preference_accuracy']:.1%} before, {after['preference_accuracy']:.1%} after"
            )
        return lines

    def _train(self, run: StageRun, start: tuning.StartModel, identity: str) -> Output:
        from corpusmill.train.checkpoint import CheckpointDir

        return tuning.train(run, "corpusmill.train.align_job:train", start, CheckpointDir.of(run, identity))

    def _pairs(self, run: StageRun, start: tuning.StartModel, given: Sequence[FileRef]) -> Output:
        from corpusmill.train.align_pairs import make_pairs

        return make_pairs(run, self.config, start, given)
