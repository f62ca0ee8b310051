"""Whether a run's stages still belong together: a card must not describe something with the figures of something else."""

from corpusmill.pipeline.manifest import TRIAL
from corpusmill.pipeline.report.read import RunReader


def outputs(reader: RunReader, stage: str) -> dict[str, str]:
    """sha256 of what a stage has left, by path in the stage."""
    return {output.path.removeprefix(TRIAL): output.sha256 for task in reader.stages[stage].tasks for output in task.outputs}


def outdated(reader: RunReader, until: str) -> list[str]:
    """A sentence for each stage up to `until` that was made from something that the run has no longer."""
    found = []
    left = {stage: outputs(reader, stage) for stage in reader.stages}
    for stage, state in reader.stages.items():
        inputs = [(*ref.path.partition("/")[::2], ref.fingerprint) for task in state.tasks for ref in task.inputs]
        owners = {owner for owner, path, fingerprint in inputs if left.get(owner) and left[owner].get(path) != fingerprint}
        found += [f"{stage}: was made from another state of {owner} than the run has now." for owner in reader.stages if owner in owners]
        if stage == until:
            break
    return found
