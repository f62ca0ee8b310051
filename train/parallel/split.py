"""A model's layers as the stages of a pipeline, and which rank has which stages."""

from typing import Any, cast

import torch
from torch import nn

from corpusmill.pipeline.errors import InputError
from corpusmill.train.architecture import Architecture
from corpusmill.train.model import Llama
from corpusmill.train.options import LoopConfig, ParallelConfig
from corpusmill.train.parallel.layout import ParallelDims

#: Schedules under which a rank has two stages; the others have one.
TWO_STAGES = ("interleaved", "zero-bubble", "zero-bubble-v")


def stages_of(config: ParallelConfig) -> list[list[int]]:
    """The stages of each pipeline rank, in order. Two a rank go round in loops, or down the ranks and up again ("V")."""
    ranks = config.pipeline
    if config.schedule not in TWO_STAGES:
        return [[rank] for rank in range(ranks)]
    second = [2 * ranks - 1 - rank if config.schedule == "zero-bubble-v" else ranks + rank for rank in range(ranks)]
    return [[rank, second[rank]] for rank in range(ranks)]


def split_layers(arch: Architecture, stages: int) -> list[range]:
    """The consecutive layers of each stage, so that the dearest stage is as cheap as can be; at least one each.

    A layer and the head cost their matrices' weights, as each is multiplied once a token. The embedding's are only looked up, but
    their gradient and moments take the head's memory and time in the update, so they count a third (forward and backward are the rest).
    """
    if arch.layers < stages:
        raise InputError(f"parallel.pipeline: {stages} stages need as many layers, and the model has {arch.layers}.")
    layer = 2 * arch.width * arch.head_dim * (arch.heads + arch.kv_heads) + 3 * arch.width * arch.ffn
    head = arch.vocab_size * arch.width
    counts, costs = [1] * stages, [float(layer)] * stages
    costs[0] += head / 3
    costs[-1] += head
    for _ in range(arch.layers - stages):
        cheapest = costs.index(min(costs))
        counts[cheapest] += 1
        costs[cheapest] += layer
    ends = [sum(counts[: stage + 1]) for stage in range(stages)]
    return [range(end - count, end) for end, count in zip(ends, counts)]


def cut(model: Llama, dims: ParallelDims, config: LoopConfig) -> dict[int, Llama]:
    """This rank's stages of `model`, by their numbers, in order; each is a Llama with some of the layers and shares their weights.

    Raises InputError for what a pipeline, or its schedule, can't do.
    """
    if dims.config.schedule.startswith("zero-bubble") and config.compile:
        raise InputError("loop.compile: a zero-bubble schedule computes a backward pass in two halves, and a compiled layer has but one.")
    if dims.config.schedule.startswith("zero-bubble") and config.precision == "bf16-params":  # they would be added up at the bf16 weights
        raise InputError("loop.precision: with bf16-params a zero-bubble schedule can't add up the gradients of its micro-batches in fp32.")
    if model.arch.tied:
        raise InputError("parallel.pipeline: a head that is tied to the embedding can't be on another stage; set model.tied to false.")
    stages = stages_of(dims.config)
    layers = split_layers(model.arch, len(stages) * len(stages[0]))
    return {stage: part(model, layers[stage]) for stage in stages[dims.index("pipeline")]}


def part(model: Llama, layers: range) -> Llama:
    """`model` with these layers alone, and with the embedding where they are the first, the last norm and the head where the last."""
    last = layers.stop == model.arch.layers
    with torch.device("meta"):
        found: Any = Llama(model.arch)
    found.model.embed_tokens = model.model.embed_tokens if layers.start == 0 else None
    found.model.layers = nn.ModuleDict({str(number): model.model.layers[str(number)] for number in layers})
    found.model.norm = model.model.norm if last else None
    found.lm_head = model.lm_head if last else None
    return cast(Llama, found.train(model.training))
