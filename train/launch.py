"""Starting a training on as many processes as its layout has."""

import importlib
from typing import Any

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.progress import Progress
from corpusmill.train.device import pick_device
from corpusmill.train.options import ParallelConfig
from corpusmill.train.parallel.layout import Layout


def launch(job: str, arguments: dict[str, Any], parallel: ParallelConfig, device: str, progress: Progress | None) -> dict[str, Any]:
    """Runs the function `module:name` as `function(layout, progress, **arguments)` on every process; returns the first one's result.

    `arguments` and results are JSON.
    """
    if parallel.world > 1:
        raise InputError(f"{parallel.world} processes can't be started yet.")
    module, _, name = job.partition(":")
    result: dict[str, Any] = getattr(importlib.import_module(module), name)(Layout.single(pick_device(device)), progress, **arguments)
    return result
