"""Provides the shared Ray to tests of stages whose workers fail on request (`ray_lines.py`)."""

from collections.abc import Iterator
from types import ModuleType

import pytest
import ray_lines

from corpusmill.pipeline.on_ray.engine import RayEngine


@pytest.fixture(scope="module")
def stages() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        yield ray_lines


@pytest.fixture(scope="module")
def engine(stages: ModuleType, ray_engine: RayEngine) -> RayEngine:
    ray_engine.connect()  # so that Ray performs phases of any size
    return ray_engine
