"""Configuration of the loop and its optimiser: light, so that stages can embed it without importing torch."""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import AfterValidator, Field

from corpusmill.pipeline.config import ASIDE, Config

#: Colder than this logits would leave the range of fp32; 0 is the limit itself.
COLDEST = 1e-3


def _not_too_cold(temperature: float) -> float:
    if 0 < temperature < COLDEST:
        raise ValueError(f"0, or at least {COLDEST}")
    return temperature


#: What `Sampling` takes: a recipe with another one fails before anything is trained.
Temperature = Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(_not_too_cold)]


class OptimizerConfig(Config):
    """How gradients become updates."""

    kind: Literal["adamw", "muon"] = Field(
        default="muon", description="`adamw` for every parameter, or `muon` for hidden matrices with AdamW for the rest."
    )
    lr: float = Field(default=3e-3, gt=0, description="Peak learning rate of AdamW.")
    muon_lr: float = Field(default=0.02, gt=0, description="Peak learning rate of Muon, for the matrices inside the layers.")
    betas: tuple[float, float] = Field(default=(0.9, 0.95), description="AdamW's decay rates of the first and second moment.")
    eps: float = Field(default=1e-8, gt=0, description="AdamW's epsilon.")
    weight_decay: float = Field(default=0.1, ge=0, description="Decoupled weight decay (times the learning rate), on matrices only.")
    momentum: float = Field(default=0.95, ge=0, lt=1, description="Muon's momentum (Nesterov).")
    newton_schulz: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="Arithmetic of Muon's orthogonalisation: `auto` is bf16 where the machine has instructions for it."
    )


class LoopConfig(Config):
    """How many steps, at which learning rate, and what guards and saves them.

    A training goes on from its saved states with other values of the fields marked ASIDE: when and what is saved, when it gives up, how
    the same arithmetic is carried out.
    """

    steps: int = Field(default=1000, ge=0, description="Optimiser steps.")
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="AdamW or Muon and their rates.")
    schedule: Literal["cosine", "linear", "wsd", "constant"] = Field(
        default="wsd", description="Learning rate after warm-up: cosine or linear over all steps, `wsd` stays constant until its last part."
    )
    warmup: int = Field(default=20, ge=0, description="Steps of linear warm-up.")
    decay_fraction: float = Field(default=0.6, gt=0, le=1, description="The last part of the steps in which `wsd` decays.")
    decay: Literal["linear", "1-sqrt"] = Field(default="linear", description="How `wsd` decays: in a line, or as 1 - sqrt(part done).")
    min_lr: float = Field(default=0.0, ge=0, le=1, description="Where the decay ends, as a fraction of the peak.")
    clip: float = Field(default=1.0, ge=0, description="Largest gradient norm; larger ones are scaled down to it. 0 clips nothing.")
    spike: float = Field(
        default=10.0, ge=0, description="A loss or gradient norm so many robust deviations above recent ones skips the step; 0 never does."
    )
    max_skips: int = Field(default=10, ge=1, json_schema_extra=ASIDE, description="The run stops after this many skipped steps in a row.")
    save_every: int = Field(default=200, ge=1, json_schema_extra=ASIDE, description="Steps between two saves of the training state.")
    keep: int = Field(default=2, ge=1, json_schema_extra=ASIDE, description="Saved states that are kept: the latest ones.")
    keep_best: int = Field(
        default=0,
        ge=0,
        json_schema_extra=ASIDE,
        description="States that are kept beside them: those that scored best when they were saved.",
    )
    async_save: bool = Field(
        default=True, json_schema_extra=ASIDE, description="States are written beside the training, which waits only while they are copied."
    )
    precision: Literal["auto", "fp32", "bf16", "bf16-params", "fp16"] = Field(
        default="auto",
        description="Arithmetic of forward and backward: `bf16` and `fp16` (whose loss is scaled) by autocast, `bf16-params` in bf16 "
        "throughout; `auto` is `bf16` on CUDA and `fp32` on CPU. Weights, moments and what is saved are always fp32.",
    )
    compile: bool = Field(default=False, json_schema_extra=ASIDE, description="Compile the layers with torch.compile.")
    checkpointing: bool = Field(
        default=False, json_schema_extra=ASIDE, description="Compute each layer again in the backward pass, which saves most of the memory."
    )
    threads: int = Field(
        default=0, ge=0, json_schema_extra=ASIDE, description="CPU threads of torch; 0 leaves its choice. Bits depend on it."
    )
    log: tuple[Literal["tensorboard", "wandb"], ...] = Field(
        default=(), json_schema_extra=ASIDE, description="Where else than in its own files the training is logged: `tensorboard`, `wandb`."
    )


Loop = TypeVar("Loop", bound=LoopConfig)
#: The projections of a layer, which LoRA can adapt.
Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class LoraConfig(Config):
    """A low-rank adapter beside frozen weights (https://arxiv.org/abs/2106.09685), trained by AdamW, in place of the weights themselves."""

    rank: int = Field(default=0, ge=0, description="Rank of what is added to each matrix; 0 trains all weights instead.")
    alpha: float = Field(default=16.0, gt=0, description="What is added is multiplied by alpha / rank.")
    targets: tuple[Projection, ...] = Field(
        default=get_args(Projection), min_length=1, description="The projections that are adapted, in every layer."
    )


def for_adapter(loop: Loop) -> Loop:
    """The loop with AdamW, which trains adapters. Raises ValueError where the recipe asks for Muon."""
    optimizer = loop.optimizer
    if optimizer.kind == "muon" and "kind" in optimizer.model_fields_set:
        raise ValueError("lora.rank: adapters are trained by AdamW, and loop.optimizer.kind is muon")
    return loop.model_copy(update={"optimizer": optimizer.model_copy(update={"kind": "adamw"})})


class ParallelConfig(Config):
    """On how many processes a model is trained, and what each kind of parallelism shares out; all 1 is one process."""

    replicate: int = Field(default=1, ge=1, description="Whole copies of the model that see different rows (DDP; with `shard`, hybrid).")
    shard: int = Field(default=1, ge=1, description="Ranks that see different rows and share out weights, gradients and moments (FSDP2).")
    zero: Literal[1, 2, 3] = Field(
        default=3,
        description="What `shard` shares out: 1 the optimiser's moments, 2 gradients too, 3 weights too. "
        "With `tensor` or `pipeline`, 1 is the same as 2.",
    )
    tensor: int = Field(default=1, ge=1, description="Ranks that share out every matrix, and the sequence between them.")
    pipeline: int = Field(default=1, ge=1, description="Ranks that share out the layers.")
    schedule: Literal["gpipe", "1f1b", "interleaved", "zero-bubble", "zero-bubble-v"] = Field(
        default="1f1b", description="The order in which a pipeline's micro-batches go forward and backward."
    )
    max_restarts: int = Field(default=3, ge=0, description="How often all processes begin again from the last state when one is killed.")
    cpus: int = Field(
        default=0,
        ge=0,
        description="CPUs of each process on a Ray cluster; 0: as many as all of them can have alike. They are its threads.",
    )
    wait: int = Field(
        default=600,
        ge=0,
        description="Seconds that a Ray cluster may take to have room for all processes, at the start and when it has lost a node.",
    )

    @property
    def world(self) -> int:
        """Processes in all."""
        return self.replicate * self.shard * self.tensor * self.pipeline

    @property
    def ranks(self) -> int:
        """Processes that see different rows."""
        return self.replicate * self.shard

    def require_even(self, rows: int, sizes: Mapping[str, int]) -> None:
        """Raises ValueError where a step's rows, or one of a model's sizes by name, can't be shared out evenly."""
        for name, size in sizes.items():
            if size % self.tensor:
                raise ValueError(f"the model's {name} {size} can't be shared out by {self.tensor} tensor ranks evenly")
        if rows % self.ranks:
            raise ValueError(f"a batch of {rows} rows can't be shared out by {self.ranks} ranks (replicate x shard) evenly")

    @property
    def whole(self) -> bool:
        """Whether each process has the whole model."""
        return self.tensor == self.pipeline == 1 and (self.shard == 1 or self.zero == 1)
