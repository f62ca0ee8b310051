"""What of a run's seconds of processors is the work of kernels: counted in the run itself, around the calls of its workers.

`python -c "import counted; counted.main()" run ...` is the command `corpusmill run ...`, whose workers add up what their calls take, in
files below `counted/` in the run's folder. On a machine that others use, a run and a separate process with the same kernels differ by some
percent from one time to the next, which is as much as what is looked for; within one run that can't be.
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
#: Seconds of this process so far: of kernels with what they load, and of making Parquet of their tables.
seconds: Counter[str] = Counter()


def processors() -> float:
    """Seconds of this process and of all that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def timed(what: str, work: Callable[[], Any]) -> Any:
    """Adds the seconds that `work` takes, but for those that are counted within it."""
    before, within = processors(), seconds.total()
    try:
        return work()
    finally:
        seconds[what] += processors() - before - (seconds.total() - within)


def counted_parquet(method: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given: timed("Parquet", partial(method, *given))


ParquetBuffer.add, ParquetBuffer.close = counted_parquet(ParquetBuffer.add), counted_parquet(ParquetBuffer.close)  # type: ignore[method-assign]


def encoded(output: Output) -> Output:
    """The same output with the bytes of Parquet in place of its tables."""
    for path, content in output.files.items():
        if isinstance(content, pa.Table):
            output.files[path] = timed("Parquet", partial(in_parquet, content))
    return output


def tell(root: str) -> None:
    """Writes what this process has counted so far, since nobody says to a worker on Ray that it ends."""
    folder = Path(root, FOLDER)
    folder.mkdir(exist_ok=True)
    (folder / f"{os.getpid()}.json").write_text(json.dumps(seconds))


@cache
def tell_at_end(root: str) -> None:
    atexit.register(tell, root)


class Counted(Worker):
    """Another worker, whose calls are counted."""

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

    def beside_mb(self) -> int:
        return self.worker.beside_mb()

    def close(self) -> None:
        timed("kernels", self.worker.close)


def counting(perform: Callable[..., None]) -> Callable[..., None]:
    """An engine's method, for which each job has counted workers."""

    def performed(engine: Any, job: Job, tasks: Sequence[Task], listener: Any) -> None:
        if job.worker != HERE:  # one engine may hand its tasks to another one
            job = replace(job, worker=HERE, params={"worker": job.worker, "params": job.params})
        perform(engine, job, tasks, listener)

    return performed


def counting_once(once: Callable[..., Any]) -> Callable[..., Any]:
    """`StageRun.once`: tasks that the driver performs itself."""

    def performed(run: StageRun, task: str, inputs: Any, function: Callable[[str], Output], *more: Any, **named: Any) -> Any:
        row = once(run, task, inputs, lambda identity: encoded(timed("kernels", lambda: function(identity))), *more, **named)
        tell_at_end(run.run.root)
        return row

    return performed


def counted(root: str) -> Counter[str]:
    """The seconds that all processes of a run have counted."""
    found: Counter[str] = Counter()
    for path in Path(root, FOLDER).glob("*.json"):
        found.update(json.loads(path.read_text()))
    return found


def main() -> None:
    InlineEngine.perform = counting(InlineEngine.perform)  # type: ignore[method-assign]
    RayEngine.perform = counting(RayEngine.perform)  # type: ignore[method-assign]
    StageRun.once = counting_once(StageRun.once)  # type: ignore[method-assign]
    cli.main()
