"""Which of a run's models have scores of their own: a card must not describe a model with the figures of another one."""

from corpusmill.report.card.state import outputs
from corpusmill.report.read import RunReader

WEIGHTS = "model/model.safetensors"


def measured_models(reader: RunReader) -> set[str]:
    """The stages whose model, as it is now, is the one that `evaluate` has measured."""
    measured = {(ref.path, ref.fingerprint) for task in reader.stages["evaluate"].tasks for ref in task.inputs}
    return {stage for stage in reader.stages if (f"{stage}/{WEIGHTS}", outputs(reader, stage).get(WEIGHTS)) in measured}
