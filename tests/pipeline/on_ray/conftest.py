"""The helper module of stages whose workers do as they are told."""

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corpusmill.pipeline.on_ray.engine import RayEngine

HERE = str(Path(__file__).parent)


@pytest.fixture(scope="module")
def stages() -> Iterator[Any]:
    """The helper module, importable here and in the processes that Ray starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH")])))
        patch.syspath_prepend(HERE)
        yield importlib.import_module("for_ray.lines")


@pytest.fixture(scope="module")
def engine(stages: Any, ray_engine: RayEngine) -> Iterator[RayEngine]:
    ray_engine.close()  # its processes do not find the module
    engine = RayEngine(workers=2)
    yield engine
    engine.close()
