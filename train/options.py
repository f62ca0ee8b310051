"""The recipe's options for a model and its training: shape, loop, optimiser, LoRA, processes.

This module imports no torch, so commands that only read a recipe start quickly.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError, model_validator

from corpusmill.pipeline.config import INERT, Config
from corpusmill.pipeline.errors import InputError

# ---- the loop ----------------------------------------------------------------------------------------


class OptimizerConfig(Config):
    """How gradients become updates."""

    kind: Literal["adamw", "muon"] = Field(
        default="muon", description="`muon` for hidden matrices, AdamW for the rest; or `adamw` for all."
    )
    lr: float = Field(default=3e-3, gt=0, description="Peak learning rate of AdamW.")
    muon_lr: float = Field(default=0.02, gt=0, description="Peak learning rate of Muon, for the matrices inside the layers.")
    betas: tuple[float, float] = Field(default=(0.9, 0.95), description="AdamW's decay rates of the first and second moment.")
    eps: float = Field(default=1e-8, gt=0, description="AdamW's epsilon.")
    weight_decay: float = Field(default=0.1, ge=0, description="Decoupled weight decay (times the learning rate), on matrices only.")
    momentum: float = Field(default=0.95, ge=0, lt=1, description="Muon's momentum (Nesterov).")


class Schedule(Config):
    """A number of steps and their learning rates."""

    steps: int = Field(default=1000, ge=0, description="Optimiser steps.")
    schedule: Literal["cosine", "linear", "wsd", "constant"] = Field(
        default="wsd", description="Learning rate after warm-up: cosine or linear over all steps, `wsd` stays constant until its last part."
    )
    warmup: int = Field(default=20, ge=0, description="Steps of linear warm-up.")
    decay_fraction: float = Field(default=0.6, gt=0, le=1, description="The last part of the steps in which `wsd` decays.")
    decay: Literal["linear", "1-sqrt"] = Field(default="linear", description="How `wsd` decays: in a line, or as 1 - sqrt(part done).")
    min_lr: float = Field(default=0.0, ge=0, le=1, description="Where the decay ends, as a fraction of the peak.")

    @property
    def fall(self) -> int:
        """The first step at which the rate depends on how many steps follow."""
        if self.schedule == "constant":
            return max(self.steps, self.warmup)
        return max(self.warmup, self.steps - round(self.decay_fraction * self.steps)) if self.schedule == "wsd" else self.warmup


class PhaseConfig(Schedule):
    """A part of a pre-training, with tokens and a schedule of its own."""

    tokens: str | None = Field(default=None, description="Run or set of token shards, of the same tokenizer, to read; else this run's.")
    steps: int = Field(ge=1, description="Optimiser steps.")
    schedule: Literal["cosine", "linear", "wsd", "constant"] = Field(default="constant", description="Learning rate, as `loop.schedule`.")
    warmup: int = Field(default=0, ge=0, description="Steps of linear warm-up; those of the first phase are `loop.warmup`.")
    peak: float = Field(default=1.0, gt=0, description="Peak learning rates, as a fraction of the optimiser's.")


@dataclass(frozen=True)
class PhasePlan:
    """The phases of a training, one after the other. Steps count from the begin of the training."""

    phases: tuple[PhaseConfig, ...]

    @staticmethod
    def of(schedule: Schedule) -> "PhasePlan":
        """Returns the plan of a training in one phase."""
        values = {name: getattr(schedule, name) for name in Schedule.model_fields}
        return PhasePlan((PhaseConfig(**values),) if schedule.steps else ())

    @property
    def begins(self) -> list[int]:
        """The first step of each phase, and the number of all steps."""
        return list(accumulate((phase.steps for phase in self.phases), initial=0))

    def at(self, step: int) -> tuple[int, int]:
        """Returns a step's phase, and its number in that phase."""
        number = bisect_right(self.begins, step) - 1
        return number, step - self.begins[number]

    def source(self, step: int) -> tuple[str | None, int]:
        """Returns the tokens that a step reads, and the step's number among all that read them: a later phase goes on where an earlier one
        stopped."""
        number, within = self.at(step)
        tokens = self.phases[number].tokens
        return tokens, within + sum(phase.steps for phase in self.phases[:number] if phase.tokens == tokens)

    def branches(self) -> set[int]:
        """Returns the steps from which another plan may go on: where a phase begins, or the rate of `wsd` begins to fall."""
        each = zip(self.begins, self.phases)
        falls = {begin + phase.fall for begin, phase in each if phase.schedule == "wsd" and phase.fall < phase.steps}
        return {*self.begins[:-1], *falls} - {0}

    def until(self, step: int) -> list[dict[str, Any]]:
        """Returns what decides the rates and tokens of all steps before `step`, as JSON: equal for plans that differ only later. Before
        a rate falls, neither the number of steps nor the fall has had an influence."""
        taken = []
        for begin, phase in zip(self.begins, self.phases):
            steps = min(phase.steps, step - begin)
            if steps > 0:
                names = {"tokens", "peak", "warmup"} if steps <= phase.fall else None
                taken.append({**phase.model_dump(mode="json", include=names), **({"steps": steps} if names else {})})
        return taken


class LoopConfig(Schedule):
    """The number of steps, their learning rates, and how they are guarded and saved.

    A training may resume with other values of the fields marked INERT: these decide when and what is saved, when it gives up, and how the
    same arithmetic is carried out.
    """

    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="AdamW or Muon and their rates.")
    clip: float = Field(default=1.0, ge=0, description="Largest gradient norm; larger ones are scaled down to it. 0 clips nothing.")
    spike: float = Field(
        default=10.0,
        ge=0,
        description="Skips a step whose loss or gradient norm is this many robust deviations above recent ones; 0: none.",
    )
    max_skips: int = Field(default=10, ge=1, json_schema_extra=INERT, description="The run stops after this many skipped steps in a row.")
    save_every: int = Field(default=200, ge=1, json_schema_extra=INERT, description="Steps between two saves of the training state.")
    keep: int = Field(default=2, ge=1, json_schema_extra=INERT, description="Saved states that are kept: the latest ones.")
    keep_best: int = Field(default=0, ge=0, json_schema_extra=INERT, description="Further states to keep: those with the best scores.")
    async_save: bool = Field(default=True, json_schema_extra=INERT, description="A thread writes states; training waits for a copy only.")
    precision: Literal["auto", "fp32", "bf16", "bf16-params"] = Field(
        default="auto", description="Arithmetic of forward and backward: `bf16` by autocast, `bf16-params` in bf16 throughout; "
        "`auto` is `bf16-params` where a GPU or CPU multiplies faster in bf16, else `fp32`. Weights, moments and what is saved are fp32.",
    )  # fmt: skip
    compile: bool | Literal["auto"] = Field(
        default="auto", json_schema_extra=INERT, description="Compile layers, norms and loss with torch.compile; `auto` is true on CUDA."
    )
    checkpointing: bool = Field(
        default=False, json_schema_extra=INERT, description="Compute layers again in the backward pass: less memory."
    )
    threads: int = Field(default=0, ge=0, json_schema_extra=INERT, description="CPU threads; 0: torch decides. Bits depend on it.")
    log: tuple[Literal["tensorboard", "wandb"], ...] = Field(default=(), json_schema_extra=INERT, description="Further places for the log.")


def precision_line(precision: str, config: LoopConfig) -> str:
    """Returns the precision of a finished training, and why it was taken, for its summary."""
    fast = "emulates bf16, or is slower in it" if precision == "fp32" else "is faster in bf16"
    return f"{precision} (auto: the processor {fast})" if config.precision == "auto" else precision


#: A layer's projections that LoRA can adapt.
Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class LoraConfig(Config):
    """A low-rank adapter beside frozen weights (https://arxiv.org/abs/2106.09685), trained by AdamW instead of the weights themselves."""

    rank: int = Field(default=0, ge=0, description="Rank of the adapter matrices; 0 trains all weights instead.")
    alpha: float = Field(default=16.0, gt=0, description="The adapter's output is multiplied by alpha / rank.")
    targets: tuple[Projection, ...] = Field(default=get_args(Projection), min_length=1, description="The projections that are adapted.")


class ParallelConfig(Config):
    """The number of processes for each kind of parallelism. With 1 for each, a model is trained on one process."""

    replicate: int = Field(default=1, ge=1, description="Whole copies of the model that see different rows (DDP; with `shard`, hybrid).")
    shard: int = Field(default=1, ge=1, description="Ranks that see different rows and share out weights, gradients and moments (FSDP2).")
    zero: Literal[1, 2, 3] = Field(
        default=3, description="What `shard` shares out: 1 the optimiser's moments, 2 gradients too, 3 weights too. "
        "With `tensor` or `pipeline`, 1 is the same as 2.",
    )  # fmt: skip
    tensor: int = Field(default=1, ge=1, description="Ranks that share out every matrix, and the sequence between them.")
    pipeline: int = Field(default=1, ge=1, description="Ranks that share out the layers.")
    schedule: Literal["1f1b", "interleaved", "zero-bubble"] = Field(default="1f1b", description="The order of a pipeline's micro-batches.")
    max_restarts: int = Field(default=3, ge=0, description="How often all processes begin again from the last state when one is killed.")
    cpus: int = Field(
        default=0, ge=0, description="CPUs of each process on a Ray cluster, and its threads; 0: the most that all can have equally."
    )
    wait: int = Field(default=600, ge=0, description="Seconds for a Ray cluster to have room for all processes, also when a node is lost.")

    @property
    def world(self) -> int:
        """The number of all processes."""
        return self.replicate * self.shard * self.tensor * self.pipeline

    @property
    def ranks(self) -> int:
        """The number of process groups that see different rows."""
        return self.replicate * self.shard

    def require_even(self, rows: int, sizes: Mapping[str, int]) -> None:
        """Raises ValueError if a step's rows, or one of the model's `sizes` (by name), can't be divided evenly."""
        for name, size in sizes.items():
            if size % self.tensor:
                raise ValueError(f"the model's {name} {size} can't be shared out by {self.tensor} tensor ranks evenly")
        if rows % self.ranks:
            raise ValueError(f"a batch of {rows} rows can't be shared out by {self.ranks} ranks (replicate x shard) evenly")

    @property
    def whole(self) -> bool:
        """Whether each process has the whole model."""
        return self.tensor == self.pipeline == 1 and (self.shard == 1 or self.zero == 1)


# ---- the shape of a Llama ----------------------------------------------------------------------------
#
# The options that fix the names and shapes of its weights, and the arithmetic between them.


#: The constants of all published models with these scalings, by their names in `transformers`: numbers of turns in the old context.
LLAMA3, YARN = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}, {"beta_fast": 32.0, "beta_slow": 1.0}


class RopeScaling(Config):
    """Slower rotation, for a context longer than that of pre-training. Keys are named as in `transformers`."""

    rope_type: Literal["llama3", "yarn"] = Field(description="Llama 3.1's smooth step, or YaRN (https://arxiv.org/abs/2309.00071).")
    factor: float = Field(ge=1, description="How many times longer the context becomes.")
    original_max_position_embeddings: int = Field(ge=1, description="The context of the pre-training.")


#: More parameters than this are a damaged configuration.
MOST_PARAMETERS = 10**15


class Architecture(Config):
    """The shape of a `Llama`."""

    vocab_size: int = Field(ge=1, description="Rows of the embedding.")
    layers: int = Field(ge=1, le=10_000, description="Decoder layers.")
    width: int = Field(ge=1, description="Width of the residual stream.")
    heads: int = Field(ge=1, description="Query heads.")
    kv_heads: int = Field(ge=1, description="Key and value heads; each serves heads / kv_heads query heads.")
    head_dim: int = Field(ge=2, description="Width of one head.")
    ffn: int = Field(ge=1, description="Width inside the SwiGLU.")
    context: int = Field(ge=1, description="Longest sequence.")
    rope_theta: float = Field(10000.0, gt=1, description="Base of the rotary angles.")
    rope_scaling: RopeScaling | None = Field(None, description="How the angles of a longer context are scaled.")
    window: int = Field(0, ge=0, description="Number of latest tokens that a token sees, itself included (Mistral); 0 means all.")
    norm_eps: float = Field(1e-5, gt=0, description="Epsilon inside RMSNorm.")
    tied: bool = Field(False, description="The output head shares the embedding's weights.")
    qk_norm: bool = Field(False, description="RMSNorm on each head of queries and keys (Qwen3).")

    @model_validator(mode="after")
    def _divisible(self) -> "Architecture":
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads can't share {self.kv_heads} key-value heads evenly")
        if self.head_dim % 2:
            raise ValueError(f"a head of odd width {self.head_dim} can't be rotated")
        if self.parameters() > MOST_PARAMETERS:
            raise ValueError(f"{self.parameters():,} parameters are more than a model can have")
        return self

    def shared_sizes(self) -> dict[str, int]:
        """Returns the sizes that tensor parallelism divides, by name."""
        return {"heads": self.heads, "kv_heads": self.kv_heads, "ffn": self.ffn, "context": self.context}

    def parameters(self) -> int:
        """Returns the number of weights; tied ones count once."""
        attention = 2 * self.width * self.head_dim * (self.heads + self.kv_heads)
        norms = 2 * self.width + (2 * self.head_dim if self.qk_norm else 0)
        layer = attention + 3 * self.width * self.ffn + norms
        return self.layers * layer + self.width + self.vocab_size * self.width * (1 if self.tied else 2)


# ---- rows --------------------------------------------------------------------------------------------

#: The longest row where a recipe names none. Published models have contexts of tens of thousands of tokens: rows of that length would hold
#: a small data set in one step, and attention within documents would need a mask of its square.
LONGEST_ROW = 2048


def row_length(asked: int | None, context: int, option: str) -> int:
    """Returns the length of rows for a model of this context, in tokens. `option` is what the recipe calls it.

    Raises InputError if the recipe asks for rows that are longer than the context.
    """
    if asked is None:
        return min(context, LONGEST_ROW)
    if asked > context:
        raise InputError(f"{option}: rows of {asked:,} tokens are longer than the model's context of {context:,}.")
    return asked


# ---- named sizes -------------------------------------------------------------------------------------

MISTRAL_7B: dict[str, Any] = {"layers": 32, "width": 4096, "heads": 32, "kv_heads": 8, "head_dim": 128, "ffn": 14336}
LLAMA_8B = MISTRAL_7B | {"rope_theta": 5e5}
LLAMA_31: dict[str, Any] = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}

#: Shapes by name. A number in a name is roughly the weights without the embeddings. A model family's name has its published shape.
PRESETS: dict[str, dict[str, Any]] = {
    "0.8m": {"layers": 4, "width": 128, "heads": 4, "kv_heads": 4, "head_dim": 32, "ffn": 336},
    "2m": {"layers": 4, "width": 192, "heads": 6, "kv_heads": 3, "head_dim": 32, "ffn": 512},
    "5m": {"layers": 6, "width": 256, "heads": 8, "kv_heads": 4, "head_dim": 32, "ffn": 704},
    "10m": {"layers": 6, "width": 384, "heads": 6, "kv_heads": 3, "head_dim": 64, "ffn": 1024},
    "30m": {"layers": 10, "width": 512, "heads": 8, "kv_heads": 4, "head_dim": 64, "ffn": 1376},
    "85m": {"layers": 12, "width": 768, "heads": 12, "kv_heads": 12, "head_dim": 64, "ffn": 2048},
    "300m": {"layers": 24, "width": 1024, "heads": 16, "kv_heads": 8, "head_dim": 64, "ffn": 2816},
    "qwen3-0.6b": {"layers": 28, "width": 1024, "heads": 16, "kv_heads": 8, "head_dim": 128, "ffn": 3072, "rope_theta": 1e6,
                   "norm_eps": 1e-6, "tied": True, "qk_norm": True},
    "llama3.2-1b": {"layers": 16, "width": 2048, "heads": 32, "kv_heads": 8, "head_dim": 64, "ffn": 8192, "rope_theta": 5e5,
                    "rope_scaling": LLAMA_31 | {"factor": 32.0}, "tied": True},
    "mistral-7b": MISTRAL_7B | {"window": 4096},  # v0.1
    "llama3-8b": LLAMA_8B,
    "llama3.1-8b": LLAMA_8B | {"rope_scaling": LLAMA_31},
}  # fmt: skip


class ModelConfig(Config):
    """The model: a named size and changes to it, or the folder of a model that is trained further. Text is short for `{folder: text}`."""

    folder: str | None = Field(default=None, description="Folder or URL of a model that is trained further; its shape stays.")
    preset: Literal[
        "0.8m", "2m", "5m", "10m", "30m", "85m", "300m", "qwen3-0.6b", "llama3.2-1b", "mistral-7b", "llama3-8b", "llama3.1-8b"
    ] = Field(default="2m", description="Named size (weights without the embeddings).")  # fmt: skip
    context: int | None = Field(
        default=None, ge=2, description="Length of training rows, in tokens, and the longest sequence of a new model. Not given: 256, or "
        f"for a folder that of its context, and {LONGEST_ROW} at most.",
    )  # fmt: skip
    layers: int | None = Field(default=None, ge=1, description="Decoder layers, instead of the preset's.")
    width: int | None = Field(default=None, ge=2, description="Width of the residual stream, instead of the preset's.")
    heads: int | None = Field(default=None, ge=1, description="Query heads, instead of the preset's.")
    kv_heads: int | None = Field(default=None, ge=1, description="Key and value heads, instead of the preset's.")
    head_dim: int | None = Field(default=None, ge=2, description="Width of a head, instead of the preset's.")
    ffn: int | None = Field(default=None, ge=1, description="Width inside the SwiGLU, instead of the preset's.")
    rope_theta: float | None = Field(default=None, gt=1, description="Base of the rotary angles, instead of the preset's (10,000).")
    rope_scaling: RopeScaling | None = Field(default=None, description="Slower rotation for a longer context, instead of the preset's.")
    window: int | None = Field(default=None, ge=0, description="Latest tokens that a token sees, instead of the preset's; 0 means all.")
    tied: bool | None = Field(default=None, description="Share the output head with the embedding, instead of the preset's choice.")
    qk_norm: bool | None = Field(default=None, description="Norm on queries and keys; the model is then saved as Qwen3, not Llama.")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return {"folder": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _fits(self) -> "ModelConfig":
        changed = self.model_dump(exclude={"folder", "context"}, exclude_defaults=True)
        if self.folder is not None:
            if changed:
                raise ValueError(f"the shape is that of {self.folder}, so {min(changed)} can't be given")
            return self
        self.__dict__["context"] = self.context or 256
        try:
            self.architecture(1)
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error
        return self

    def architecture(self, vocab_size: int) -> Architecture:
        """Returns the shape of a new model for a vocabulary of this size."""
        changes = self.model_dump(exclude={"folder", "preset"}, exclude_none=True)
        return Architecture(vocab_size=vocab_size, **{**PRESETS[self.preset], **changes})
