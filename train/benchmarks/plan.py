"""The tasks of the stage `evaluate` that score every model of the run on benchmarks."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.stage import Output
from corpusmill.train.benchmarks.config import TaskConfig
from corpusmill.train.benchmarks.overlap import find_overlap, with_overlap
from corpusmill.train.benchmarks.read import data_files, read_task, set_paths
from corpusmill.train.benchmarks.scores import score_text
from corpusmill.train.benchmarks.tasks import TASKS
from corpusmill.train.records import file_ref
from corpusmill.train.tuning import documents, json_file

if TYPE_CHECKING:
    from corpusmill.train.evaluate import EvaluateConfig


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
    from corpusmill.train.benchmarks.measure import ModelUnderTest

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
