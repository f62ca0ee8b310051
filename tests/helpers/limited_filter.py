"""Filters a run in a process that may allocate only MEGABYTES more than it holds; prints kind and parts of each event of the engine.

    python tests/helpers/limited_filter.py RUN WARM MEGABYTES

The stage ingest of both runs is finished. WARM, a small run, is filtered before the limit is set, so that kernels are loaded and threads
started.
"""

import os
import resource
import sys
from pathlib import Path

import pyarrow as pa

from corpusmill.filters.stage import FilterStage
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.events import Event, Events
from corpusmill.pipeline.memory import data_bytes
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress


def say(event: Event) -> None:
    if event.kind in ("retry", "death", "split", "alone", "failure"):
        print(event.kind, event.fields.get("parts", 1), flush=True)


def filtered(run: Path) -> None:
    stage = FilterStage(FilterStage.Config.model_validate({"steps": [{"gopher_quality": {}}]}))
    storage = Storage(str(run))
    recipe = {"ingest": None, "filter": stage.config}
    StageRun(stage, storage, recipe, [], InlineEngine(), Progress(False), Events(say)).execute()


def main(run: Path, warm: Path, megabytes: int) -> None:
    os.fsync = lambda _: None
    pa.set_cpu_count(1)  # the stack of each later thread takes 8 MB of the limit
    pa.set_io_thread_count(1)
    filtered(warm)
    resource.setrlimit(resource.RLIMIT_DATA, (data_bytes() + (megabytes << 20),) * 2)
    filtered(run)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
