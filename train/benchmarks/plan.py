"""The tasks of the stage `evaluate` that score each model on benchmarks, and look for the benchmarks' items in the run's documents."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.services import service
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.stage import Output, Task
from corpusmill.pipeline.storage import Storage
from corpusmill.train import tuning
from corpusmill.train.benchmarks.tasks import TASKS, data_files, read_task, score_text, scores, set_paths
from corpusmill.train.evaluate import TaskConfig
from corpusmill.train.tuning import documents, json_file
from corpusmill.train.user_files import file_ref

if TYPE_CHECKING:
    from corpusmill.train.evaluate import EvaluateConfig


# ---- overlap with the corpus -------------------------------------------------------------------------
#
# How many items of a benchmark the run's documents hold: a score on what a model has read says less.

FOLDER = "benchmarks/overlap"


def find_overlap(run: StageRun, task: str, files: Sequence[FileRef]) -> list[FileRef]:
    """Looks for the items of a set in all documents of the run. The files that `read_overlap` reads."""
    folder = f"{FOLDER}/{task}"
    search = service("overlap")  # that of decontamination
    defaults = type(run.stage.config)()
    made = run.once(
        f"{folder}/index", files, lambda _: search.overlap_index(task, files, f"{folder}/index.arrow"), {"service": "overlap"}, defaults
    )
    index = made.ref(run.stage.name, made.outputs[0].path)
    tasks = [
        Task(f"{folder}/part-{n:05d}", (documents, index), {"path": f"{folder}/part-{n:05d}.parquet"})
        for n, documents in enumerate(tuning.documents(run))
    ]
    parts = run.map(f"overlap {task}", search.OverlapWorker, tasks, config=defaults)
    found = [row.ref(run.stage.name, row.outputs[0].path) for row in parts]
    row = run.once(folder, [*found, index], lambda _: _merged(run.run, task, found, made.counts), config=defaults)
    return [row.ref(run.stage.name, output.path) for output in row.outputs]


def _merged(run: Storage, task: str, found: Sequence[FileRef], counts: dict[str, int]) -> Output:
    """The best row of each item that was found, and how many documents hold it."""
    rows = pa.concat_tables([read_table(run, ref.path) for ref in found])
    rows = rows.take(np.lexsort((rows["id"].to_numpy(False), -rows["share"].to_numpy(), rows["item"].to_numpy())))
    items, first, documents = np.unique(rows["item"].to_numpy(), return_index=True, return_counts=True)
    best = rows.take(first).append_column("documents", pa.array(documents, pa.int64()))
    summary = {**counts, "found": len(items), "documents": pc.count_distinct(rows["id"]).as_py()}
    content = json.dumps(summary, indent=2, sort_keys=True).encode() + b"\n"
    return Output({f"{FOLDER}/{task}.parquet": best, f"{FOLDER}/{task}.json": content}, kept=len(items), counts=counts)


def with_overlap(summary: dict[str, Any], table: pa.Table, stage: Storage, task: str, metrics: Sequence[str]) -> dict[str, Any]:
    """A task's summary with `overlap`: what `find_overlap` counted, how many scored items were found, the scores of the others."""
    counts = json.loads(stage.read_bytes(f"{FOLDER}/{task}.json"))
    found = read_table(stage, f"{FOLDER}/{task}.parquet", ["item"])["item"]
    seen = pc.is_in(table["item"], found.combine_chunks())
    hit = pc.sum(seen).as_py() or 0
    others = scores(table.filter(pc.invert(seen)), metrics)[0] if 0 < hit < table.num_rows else None
    return {**summary, "overlap": {**counts, "scored": hit, "without": others}}


# ---- the tasks ---------------------------------------------------------------------------------------


def score_models(run: StageRun, config: "EvaluateConfig", models: Sequence[str]) -> list[FileRef]:
    """One task of the runner for each model and benchmark. The files that `task_scores` reads."""
    made: list[FileRef] = []
    sets = {task.task: [file_ref(path) for path in set_paths(task)] for task in config.tasks}
    for task in config.tasks if documents(run) else ():
        made += find_overlap(run, task.task, sets[task.task])
    model_of = lru_cache(1)(partial(_load, run, config))
    for model in models:
        weights = run.outputs_of(model, "model/")
        for task in config.tasks:
            examples = [file_ref(path) for path in data_files(task.examples)] if task.examples else []
            own = type(config)(tasks=(task,), device=config.device)
            row = run.once(
                f"benchmarks/{model}/{task.task}",
                [*weights, *sets[task.task], *examples],
                partial(_score, run, model_of, model, task),
                config=own,
            )
            made += [row.ref(run.stage.name, output.path) for output in row.outputs]
    return made


def _load(run: StageRun, config: "EvaluateConfig", model: str) -> Any:
    from corpusmill.train.benchmarks.score import ModelUnderTest

    return ModelUnderTest(run.run.path(f"{model}/model"), config.device)


def _score(run: StageRun, model_of: Callable[[str], Any], name: str, task: TaskConfig, identity: str) -> Output:
    model, chosen = model_of(name), read_task(task)
    with run.progress.steps(f"evaluate {name} {task.task}", len(chosen.items)) as advance:
        scored = model.score(task, chosen, advance)
    path = f"benchmarks/{name}/{task.task}"
    warnings = cut_sentence(name, task.task, scored.summary)
    files = {f"{path}.parquet": scored.table, f"{path}.json": json_file(scored.summary)}
    return Output(files, rows_in=scored.summary["total"], kept=scored.summary["items"], warnings=warnings)


def cut_sentence(model: str, task: str, summary: Mapping[str, Any]) -> list[str]:
    """A warning about items whose beginning did not fit, or none."""
    if not summary["cut"]:
        return []
    items = f"{summary['cut']:,} of {summary['items']:,} items of {TASKS[task].title}"
    return [f"{model}: {items} are longer than the model's context; their beginning was left out."]


def task_scores(run: StageRun, model: str, tasks: Sequence[TaskConfig]) -> dict[str, Any]:
    """What `scores.json` has of a model under `tasks`."""
    found: dict[str, Any] = {}
    for task in tasks:
        summary = json.loads(run.storage.read_bytes(f"benchmarks/{model}/{task.task}.json"))
        if documents(run):
            table = read_table(run.storage, f"benchmarks/{model}/{task.task}.parquet")
            summary = with_overlap(summary, table, run.storage, task.task, TASKS[task.task].metrics)
        found[task.task] = summary
    return found


def task_lines(scores: Mapping[str, Any], tasks: Sequence[TaskConfig]) -> dict[str, str]:
    """A line of the terminal for each benchmark: the models' scores, what guessing gives, and the overlap with the run's documents."""
    lines = {}
    for name in dict.fromkeys(task.task for task in tasks):
        models = {model: of["tasks"][name] for model, of in scores.items() if name in of.get("tasks", {})}
        any_ = next(iter(models.values()))
        metric = any_["metric"]
        parts = [f"{model} {score_text(metric, of['metrics'][metric])}" for model, of in models.items()]
        guess = f", chance {any_['chance']:.1%}" if any_["chance"] is not None else ""
        of = any_.get("overlap")
        overlap = f"; {of['found']:,} of {of['items']:,} items in the corpus" if of else ""
        lines[f"{any_['title']} {metric}"] = f"{', '.join(parts)}{guess}{overlap}"
    return lines
