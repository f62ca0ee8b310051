"""Whether a run's stages still belong together: a card must not describe something with the figures of something else."""

from corpusmill.pipeline.manifest import TRIAL
from corpusmill.report.read import RunReader


def outputs(reader: RunReader, stage: str) -> dict[str, str]:
    """sha256 of what a stage has left, by path in the stage."""
    return {output.path.removeprefix(TRIAL): output.sha256 for task in reader.stages[stage].tasks for output in task.outputs}
