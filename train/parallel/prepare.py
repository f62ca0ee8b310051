"""Putting a model onto a layout. What only several processes need is imported for them alone: it takes a second."""

from typing import Any

from corpusmill.train.model import Llama
from corpusmill.train.optimizer import Optimizer
from corpusmill.train.options import LoopConfig, OptimizerConfig
from corpusmill.train.parallel.computation import Computation, Local
from corpusmill.train.parallel.layout import Layout


def prepare(model: Llama, layout: Layout, config: LoopConfig) -> Computation:
    """The model, the same on every rank, as the layout spreads it."""
    if layout.world > 1:
        return _spread(model, layout, config)
    model.model.switch(checkpointing=config.checkpointing, compiled=config.compile)
    return Local(model, config.precision)


def _spread(model: Llama, layout: Layout, config: LoopConfig) -> Computation:
    from corpusmill.train.parallel import data, tensor
    from corpusmill.train.parallel.split import cut
    from corpusmill.train.parallel.spread import Spread

    parts = cut(model, layout) if layout.config.pipeline > 1 else {0: model}
    for part in parts.values():
        if mesh := layout.submesh("tensor"):
            tensor.spread(part, mesh)
        part.model.switch(checkpointing=config.checkpointing, compiled=config.compile)
    if layout.config.pipeline > 1:
        from corpusmill.train.parallel.pipeline import Pipeline  # its import takes a second

        left = [data.shard(part, layout, config.precision, keep=True) for part in parts.values()]
        return Pipeline(parts, layout, config, left[0])
    forward: Any = model
    precision: str = config.precision
    if layout.config.zero == 1 or layout.kinds == ("replicate",):
        forward = data.copies(model, layout)
    else:
        precision = data.shard(model, layout, precision)
    return Spread(model, forward, layout, precision)


def optimizer_of(computation: Computation, layout: Layout, config: OptimizerConfig) -> Any:
    """What updates the parameters that this rank has, or with ZeRO-1 those that it owns; see `Optimizer`."""
    if layout.config.zero == 1 and layout.config.shard > 1 and layout.config.pipeline == 1:
        from corpusmill.train.parallel.zero import SharedOptimizer

        return SharedOptimizer(computation.parameters, config, layout)
    return Optimizer(computation.parameters, config)
