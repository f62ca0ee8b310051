"""Counts which part of a run's processor seconds its kernels take, by timing the calls of the workers in the run itself.

`python -c "import counted; counted.main()" run ...` is the command `corpusmill run ...` with workers that add up the seconds of their
calls, in files below `counted/` in the run's folder. A separate process with the same kernels would be no measure: on a shared machine it
differs from the run by some percent each time, which is as much as the overhead to be measured.
"""

import atexit
import json
import os
import resource
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from corpusmill import cli
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.engine import InlineEngine, Job
from corpusmill.pipeline.on_ray.engine import RayEngine
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import ParquetBuffer, in_parquet
from corpusmill.pipeline.stage import Output, Task, Worker, load_object
from corpusmill.pipeline.storage import Storage

FOLDER = "counted"
HERE = "counted:Counted"
#: Seconds of this process so far: in kernels with what they load, and in making Parquet of their tables.
seconds: Counter[str] = Counter()


def processors() -> float:
    """Returns the processor seconds of this process and of all children that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def timed(what: str, work: Callable[[], Any]) -> Any:
    """Adds the seconds of `work`, without those that are counted inside it."""
    before, within = processors(), seconds.total()
    try:
        return work()
    finally:
        seconds[what] += processors() - before - (seconds.total() - within)


def counted_parquet(method: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given: timed("Parquet", partial(method, *given))


ParquetBuffer.add, ParquetBuffer.close = counted_parquet(ParquetBuffer.add), counted_parquet(ParquetBuffer.close)  # type: ignore[method-assign]


def encoded(output: Output) -> Output:
    """Returns the same output with Parquet bytes in place of its tables."""
    for path, content in output.files.items():
        if isinstance(content, pa.Table):
            output.files[path] = timed("Parquet", partial(in_parquet, content))
    return output


def tell(root: str) -> None:
    """Writes the seconds counted so far after each call, because a worker on Ray gets no notice of its end."""
    folder = Path(root, FOLDER)
    folder.mkdir(exist_ok=True)
    (folder / f"{os.getpid()}.json").write_text(json.dumps(seconds))


@cache
def tell_at_end(root: str) -> None:
    atexit.register(tell, root)


class Counted(Worker):
    """Wraps a worker and counts the seconds of its calls."""

    def __init__(self, config: Config, run: Storage, params: dict[str, Any]):
        super().__init__(config, run, params)
        self.worker: Worker = timed("kernels", lambda: load_object(params["worker"]))(config, run, params["params"])

    def setup(self) -> None:
        timed("kernels", self.worker.setup)

    def process(self, task: Task) -> Iterator[Output]:
        made = timed("kernels", lambda: self.worker.process(task))
        parts = iter([made]) if isinstance(made, Output) else made
        while (part := timed("kernels", lambda: next(parts, None))) is not None:
            yield encoded(part)
        tell(self.run.root)

    def children_mb(self) -> int:
        return self.worker.children_mb()

    def close(self) -> None:
        timed("kernels", self.worker.close)


def counting(perform: Callable[..., None]) -> Callable[..., None]:
    """Wraps an engine's method so that it gives each job counted workers."""

    def performed(engine: Any, job: Job, tasks: Sequence[Task], listener: Any) -> None:
        if job.worker != HERE:  # one engine may pass its tasks to another one
            job = replace(job, worker=HERE, params={"worker": job.worker, "params": job.params})
        perform(engine, job, tasks, listener)

    return performed


def counting_once(once: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps `StageRun.once`, which performs tasks in the driver."""

    def performed(run: StageRun, task: str, inputs: Any, function: Callable[[str], Output], *more: Any, **named: Any) -> Any:
        row = once(run, task, inputs, lambda identity: encoded(timed("kernels", lambda: function(identity))), *more, **named)
        tell_at_end(run.run.root)
        return row

    return performed


def counted(root: str) -> Counter[str]:
    """Returns the seconds that all processes of a run have counted."""
    found: Counter[str] = Counter()
    for path in Path(root, FOLDER).glob("*.json"):
        found.update(json.loads(path.read_text()))
    return found


def main() -> None:
    InlineEngine.perform = counting(InlineEngine.perform)  # type: ignore[method-assign]
    RayEngine.perform = counting(RayEngine.perform)  # type: ignore[method-assign]
    StageRun.once = counting_once(StageRun.once)  # type: ignore[method-assign]
    cli.main()
