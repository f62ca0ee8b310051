"""Putting a model onto a layout. What only several processes need is imported for them alone: it takes a second."""

from typing import Any

from corpusmill.train.model import Llama, fill
from corpusmill.train.optimizer import Optimizer
from corpusmill.train.options import LoopConfig, OptimizerConfig
from corpusmill.train.parallel.computation import LocalModel, ParallelModel
from corpusmill.train.parallel.layout import ParallelDims


def prepare(model: Llama, dims: ParallelDims, config: LoopConfig, seed: int | None = None) -> ParallelModel:
    """The model, the same on every rank, as the layout spreads it.

    With a `seed` it is a blank one, which is filled when it is spread: no rank ever has more than its shards and one whole weight.
    """
    if dims.world > 1:
        return _spread(model, dims, config, seed)
    if seed is not None:
        fill(model, seed, dims.device)
    model.model.switch(checkpointing=config.checkpointing, compiled=config.compile)
    return LocalModel(model, config.precision)


def _spread(model: Llama, dims: ParallelDims, config: LoopConfig, seed: int | None) -> ParallelModel:
    from corpusmill.train.parallel import data, tensor
    from corpusmill.train.parallel.split import cut
    from corpusmill.train.parallel.spread import SpreadModel

    parts = cut(model, dims, config) if dims.config.pipeline > 1 else {0: model}
    for part in parts.values():
        if mesh := dims.submesh("tensor"):
            tensor.spread(part, mesh)
        part.model.switch(checkpointing=config.checkpointing, compiled=config.compile)
    precision: str = config.precision
    if not dims.config.whole:
        precisions = [data.shard(part, dims, config.precision) for part in parts.values()]
        precision = precisions[0]
    if seed is not None:
        for part in parts.values():
            fill(part, seed, dims.device)
    if dims.config.pipeline > 1:
        from corpusmill.train.parallel.pipeline import PipelineModel  # its import takes a second

        return PipelineModel(parts, dims, config, precision)
    return SpreadModel(model, data.copies(model, dims) if dims.config.whole else model, dims, precision)


def optimizer_of(parallel_model: ParallelModel, dims: ParallelDims, config: OptimizerConfig) -> Any:
    """What updates the parameters that this rank has, or with ZeRO-1 those that it owns; see `Optimizer`."""
    if dims.config.whole and dims.config.shard > 1:
        from corpusmill.train.parallel.zero import SharedOptimizer

        return SharedOptimizer(parallel_model.parameters, config, dims)
    return Optimizer(parallel_model.parameters, config)
