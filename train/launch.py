"""Starting a training on as many processes as its layout has: here, under torchrun, or on a Ray cluster."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpusmill.pipeline.code import code_for
from corpusmill.pipeline.engine import Engine
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.stage import load_object
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train import launch_torchrun
from corpusmill.train.device import pick_device
from corpusmill.train.options import ParallelConfig
from corpusmill.train.parallel.layout import ParallelDims

if TYPE_CHECKING:
    from corpusmill.train.rank import GroupJob


def launch(
    job: str,
    arguments: dict[str, Any],
    parallel: ParallelConfig,
    device: str,
    progress: Progress | None,
    *,
    folder: Path,
    store: Storage | None = None,
    engine: Engine | None = None,
    title: str = "training",
    log: Path | None = None,
    steps: int = 0,
) -> dict[str, Any]:
    """Runs the function `module:name` as `function(layout, progress, **arguments)` on every process; returns the first one's result.

    `arguments` and results are JSON. One process is this one. Several are started on this machine, or by Ray Train where `engine` is
    Ray's and `RAY_ADDRESS` names a cluster; under torchrun they are there. A group of which a process is killed begins again, up to
    `parallel.max_restarts` times: jobs save their state. `folder` takes what processes leave for each other. On a cluster it has to be
    on a disk that all nodes have, and progress is what comes into `log`, up to `steps` lines; where the run lies on a store, they leave it
    in `store`, its folder of the training. Raises what a process raised, where that is a CorpusmillError; else RankError with the trace.
    """
    if launch_torchrun.under_torchrun():
        _check_torchrun(parallel, title)
    if parallel.world == 1:
        result: dict[str, Any] = load_object(job)(ParallelDims.single(pick_device(device)), progress, **arguments)
        return result
    task: GroupJob = {"job": job, "arguments": arguments, "parallel": parallel.model_dump(), "device": device}
    if launch_torchrun.under_torchrun():
        return launch_torchrun.lead_torchrun(task, progress)
    from corpusmill.pipeline.on_ray.engine import ADDRESS, RayEngine
    from corpusmill.train.restart import with_restarts

    if isinstance(engine, RayEngine) and os.environ.get(ADDRESS):
        from corpusmill.train.follow import following
        from corpusmill.train.launch_ray import RayGroup

        task["code"] = code_for(load_object(job)).as_json()
        left = store.child("processes") if store else Storage(str(folder.absolute()))
        bar = partial(following, progress, title, None if store else log, steps)
        return with_restarts(RayGroup(task, left, engine, bar, title), parallel.max_restarts, title)
    from corpusmill.train.launch_local import LocalGroup

    return with_restarts(LocalGroup(task, folder, progress), parallel.max_restarts, title)


def _check_torchrun(parallel: ParallelConfig, title: str) -> None:
    started = launch_torchrun.torchrun_world()
    if parallel.world != started:
        raise InputError(
            f"{title}.parallel: replicate x shard x tensor x pipeline are {parallel.world} processes, and torchrun has started "
            f"{started} (WORLD_SIZE)."
        )
