"""Carries out a whole recipe in this process."""

from pathlib import Path

from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.run import execute, new_plan
from corpusmill.pipeline.watch.progress import Progress


def run_inline(folder: Path, recipe: str, *inputs: Path, last: str | None = None) -> Path:
    """Writes the recipe next to the run, and returns the run's folder, `folder`/run. `last`: the last stage to run."""
    (folder / "recipe.yaml").write_text(recipe)
    plan = new_plan(str(folder / "run"), str(folder / "recipe.yaml"), [str(path) for path in inputs], last=last)
    execute(plan, InlineEngine(), Progress(False))
    return folder / "run"
