"""A model's layers as the stages of a pipeline, and which rank has which stages."""

import torch

from corpusmill.pipeline.errors import InputError
from corpusmill.train.architecture import Architecture
from corpusmill.train.model import Llama
from corpusmill.train.options import ParallelConfig

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


def cut(model: Llama, layers: range) -> Llama:
    """The part of `model` with these layers, and with the embedding or the head where they are the first or last; it shares the weights."""
    if model.arch.tied:
        raise InputError("parallel.pipeline: a head that is tied to the embedding can't be on another stage; set model.tied to false.")
    with torch.device("meta"):
        part = Llama(model.arch)
    decoder, last = part.model, layers.stop == model.arch.layers
    decoder.embed_tokens = model.model.embed_tokens if layers.start == 0 else None
    decoder.layers = torch.nn.ModuleDict({str(n): model.model.layers[str(n)] for n in layers})
    decoder.norm = model.model.norm if last else None
    part.lm_head = model.lm_head if last else None
    return part.train(model.training)
