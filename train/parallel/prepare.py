"""Putting a model onto a layout."""

from torch import nn

from corpusmill.train.model import Llama
from corpusmill.train.options import LoopConfig
from corpusmill.train.parallel import data, tensor
from corpusmill.train.parallel.computation import Computation, Local, Spread
from corpusmill.train.parallel.layout import Layout


def prepare(model: Llama, layout: Layout, config: LoopConfig) -> Computation:
    """The model, the same on every rank, as the layout spreads it."""
    model.model.switch(checkpointing=config.checkpointing, compiled=config.compile)
    if layout.world == 1:
        return Local(model, config.precision)
    if mesh := layout.submesh("tensor"):
        tensor.spread(model, mesh)
    forward: nn.Module = model
    if layout.config.zero == 1 or layout.kinds == ("replicate",):
        forward = data.copies(model, layout)
    else:
        data.shard(model, layout)
    return Spread(model, forward, layout, config.precision)
