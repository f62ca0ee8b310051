"""A run that is started beside a cluster (RAY_ADDRESS=HOST:PORT) brings its own code, so that workers never have another version of it."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from corpusmill.pipeline.ray_upload import stage_package

#: What Ray sets for the processes of a job, which has brought its code already.
IN_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


@contextmanager
def travelling_code() -> Iterator[dict[str, Any]]:
    """The options of `ray.init` that make it upload the code; the folder they name lasts as long as the block."""
    if os.environ.get(IN_JOB):
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="corpusmill-code-") as folder:
        yield {"runtime_env": {"py_modules": [str(stage_package(Path(folder)))]}}
