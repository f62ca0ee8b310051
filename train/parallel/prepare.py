"""Putting a model onto a layout."""

from corpusmill.train.model import Llama
from corpusmill.train.options import LoopConfig
from corpusmill.train.parallel.computation import Computation, Local
from corpusmill.train.parallel.layout import Layout
from corpusmill.train.parallel.pipeline import Pipeline


def prepare(model: Llama, layout: Layout, config: LoopConfig) -> Computation:
    """The model, the same on every rank, as the layout spreads it."""
    if layout.config.pipeline > 1:
        return Pipeline(model, layout, config)
    if config.compile:
        model.model.compile()
    return Local(model, config.precision)
