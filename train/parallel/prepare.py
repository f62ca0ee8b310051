"""Putting a model onto a layout."""

from torch import nn

from corpusmill.train.model import Llama
from corpusmill.train.optimizer import Optimizer
from corpusmill.train.options import LoopConfig, OptimizerConfig
from corpusmill.train.parallel import data, tensor
from corpusmill.train.parallel.computation import Computation, Local, Spread
from corpusmill.train.parallel.layout import Layout
from corpusmill.train.parallel.split import cut
from corpusmill.train.parallel.zero import SharedOptimizer


def prepare(model: Llama, layout: Layout, config: LoopConfig) -> Computation:
    """The model, the same on every rank, as the layout spreads it."""
    parts = cut(model, layout) if layout.config.pipeline > 1 else {0: model}
    for part in parts.values():
        if mesh := layout.submesh("tensor"):
            tensor.spread(part, mesh)
        part.model.switch(checkpointing=config.checkpointing, compiled=config.compile)
    if layout.world == 1:
        return Local(model, config.precision)
    if layout.config.pipeline > 1:
        from corpusmill.train.parallel.pipeline import Pipeline  # its import takes a second

        left = [data.shard(part, layout, config.precision, keep=True) for part in parts.values()]
        return Pipeline(parts, layout, config, left[0])
    forward: nn.Module = model
    precision: str = config.precision
    if layout.config.zero == 1 or layout.kinds == ("replicate",):
        forward = data.copies(model, layout)
    else:
        precision = data.shard(model, layout, precision)
    return Spread(model, forward, layout, precision)


def optimizer_of(computation: Computation, config: OptimizerConfig) -> Optimizer | SharedOptimizer:
    """What updates a computation's parameters: those that this rank has, or with ZeRO-1 those that it owns."""
    if isinstance(computation, Spread) and computation.layout.config.zero == 1:
        return SharedOptimizer(computation.parameters, config, computation.layout)
    return Optimizer(computation.parameters, config)
