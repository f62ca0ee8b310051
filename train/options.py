"""Configuration of the loop and its optimiser: light, so that stages can embed it without importing torch."""

from typing import Literal

from pydantic import Field

from corpusmill.pipeline.config import Config


class OptimizerConfig(Config):
    """How gradients become updates."""

    kind: Literal["adamw", "muon"] = Field(
        "muon", description="`adamw` for every parameter, or `muon` for hidden matrices with AdamW for the rest."
    )
    lr: float = Field(3e-3, gt=0, description="Peak learning rate of AdamW.")
    muon_lr: float = Field(0.02, gt=0, description="Peak learning rate of Muon, for the matrices inside the layers.")
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW's decay rates of the first and second moment.")
    eps: float = Field(1e-8, gt=0, description="AdamW's epsilon.")
    weight_decay: float = Field(0.1, ge=0, description="Decoupled weight decay (times the learning rate), on matrices only.")
    momentum: float = Field(0.95, ge=0, lt=1, description="Muon's momentum (Nesterov).")


class LoopConfig(Config):
    """How many steps, at which learning rate, and what guards and saves them."""

    steps: int = Field(1000, ge=0, description="Optimiser steps.")
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="AdamW or Muon and their rates.")
    schedule: Literal["cosine", "linear", "wsd", "constant"] = Field(
        "wsd", description="Learning rate after warm-up: cosine or linear over all steps, `wsd` stays constant until its last part."
    )
    warmup: int = Field(20, ge=0, description="Steps of linear warm-up.")
    decay_fraction: float = Field(0.6, gt=0, le=1, description="The last part of the steps in which `wsd` decays linearly.")
    min_lr: float = Field(0.0, ge=0, le=1, description="Where the decay ends, as a fraction of the peak.")
    clip: float = Field(1.0, ge=0, description="Largest gradient norm; larger ones are scaled down to it. 0 clips nothing.")
    spike: float = Field(
        10.0, ge=0, description="A loss or gradient norm this many robust deviations above recent ones skips the step; 0 never does."
    )
    max_skips: int = Field(10, ge=1, description="The run stops after this many skipped steps in a row.")
    save_every: int = Field(200, ge=1, description="Steps between two saves of the training state.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Arithmetic of the forward pass: `auto` is bf16 autocast on CUDA and fp32 on CPU. Weights stay fp32."
    )
    compile: bool = Field(False, description="Compile the decoder with torch.compile.")
    threads: int = Field(0, ge=0, description="CPU threads of torch; 0 leaves its choice. Bits depend on it.")
