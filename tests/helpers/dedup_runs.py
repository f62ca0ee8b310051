"""Random texts for runs of the stage dedup, and the stage once more on the same run."""

import random

from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.watch.progress import Progress


def words(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [f"w{draw.randrange(10**6)}" for _ in range(count)]


def again(run: StageRun, engine: InlineEngine | None = None) -> StageRun:
    found = StageRun(run.stage, run.run, run.recipe, [], engine or InlineEngine(), Progress(False))
    found.execute()
    return found
