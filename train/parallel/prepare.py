"""Putting a model onto a layout."""

from torch import nn

from corpusmill.train.model import Llama
from corpusmill.train.options import LoopConfig
from corpusmill.train.parallel import data, tensor
from corpusmill.train.parallel.computation import Computation, Local, Spread
from corpusmill.train.parallel.layout import Layout
from corpusmill.train.parallel.pipeline import Pipeline
from corpusmill.train.parallel.split import cut


def prepare(model: Llama, layout: Layout, config: LoopConfig) -> Computation:
    """The model, the same on every rank, as the layout spreads it."""
    if layout.world == 1:
        if config.compile:
            model.model.compile()
        return Local(model, config.precision)
    parts = cut(model, layout) if layout.config.pipeline > 1 else {0: model}
    for part in parts.values():
        if mesh := layout.submesh("tensor"):
            tensor.spread(part, mesh)
        if config.compile:
            for layer in part.model.layers.values():
                layer.compile()
    if layout.config.pipeline > 1:
        for part in parts.values():
            data.shard(part, layout, keep=True)  # gathering weights for each micro-batch would cost more than they do
        return Pipeline(parts, layout, config.precision)
    forward: nn.Module = model
    if layout.config.zero == 1 or layout.kinds == ("replicate",):
        forward = data.copies(model, layout)
    else:
        data.shard(model, layout)
    return Spread(model, forward, layout, config.precision)
