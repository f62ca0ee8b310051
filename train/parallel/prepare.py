"""Putting a model onto a layout. What only several processes need is imported for them alone: it takes a second."""

from typing import Any

from corpusmill.train.model import Llama, fill
from corpusmill.train.optimizer import Optimizer
from corpusmill.train.options import LoopConfig, OptimizerConfig
from corpusmill.train.parallel.computation import Computation, Local
from corpusmill.train.parallel.layout import Layout


def prepare(model: Llama, layout: Layout, config: LoopConfig, seed: int | None = None) -> Computation:
    """The model, the same on every rank, as the layout spreads it.

    With a `seed` it is a blank one, which is filled when it is spread: no rank ever has more than its shards and one whole weight.
    """
    if layout.world > 1:
        return _spread(model, layout, config, seed)
    if seed is not None:
        fill(model, seed, layout.device)
    model.model.switch(checkpointing=config.checkpointing, compiled=config.compile)
    return Local(model, config.precision)


def _spread(model: Llama, layout: Layout, config: LoopConfig, seed: int | None) -> Computation:
    from corpusmill.train.parallel import data, tensor
    from corpusmill.train.parallel.split import cut
    from corpusmill.train.parallel.spread import Spread

    parts = cut(model, layout, config) if layout.config.pipeline > 1 else {0: model}
    for part in parts.values():
        if mesh := layout.submesh("tensor"):
            tensor.spread(part, mesh)
        part.model.switch(checkpointing=config.checkpointing, compiled=config.compile)
    precision: str = config.precision
    if not layout.config.whole:
        precisions = [data.shard(part, layout, config.precision) for part in parts.values()]
        precision = precisions[0]
    if seed is not None:
        for part in parts.values():
            fill(part, seed, layout.device)
    if layout.config.pipeline > 1:
        from corpusmill.train.parallel.pipeline import Pipeline  # its import takes a second

        return Pipeline(parts, layout, config, precision)
    return Spread(model, data.copies(model, layout) if layout.config.whole else model, layout, precision)


def optimizer_of(computation: Computation, layout: Layout, config: OptimizerConfig) -> Any:
    """What updates the parameters that this rank has, or with ZeRO-1 those that it owns; see `Optimizer`."""
    if layout.config.whole and layout.config.shard > 1:
        from corpusmill.train.parallel.zero import SharedOptimizer

        return SharedOptimizer(computation.parameters, config, layout)
    return Optimizer(computation.parameters, config)
