"""Tasks of a phase that were given up: whether the rest goes on, and what is said at the end."""

from collections.abc import Sequence

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.manifest import Quarantined
from corpusmill.pipeline.retry import Failed

#: So many tasks that all failed, before any other worked, are no matter of each of them.
SYSTEMATIC = 10


def error_of(failed: Failed) -> CorpusmillError:
    """A failure as the error that ends the run."""
    return (InputError if failed.exit_code == InputError.exit_code else CorpusmillError)(failed.message)


class GivenUp:
    """What was given up of `todo` tasks; `worked` counts those of the phase that are finished. Where none is `needed`, all may fail."""

    def __init__(self, todo: int, worked: int, strict: bool, needed: bool = True):
        self.limit = min(SYSTEMATIC, todo)
        self.strict, self.needed, self.worked = strict, needed, worked
        self.failed: dict[str, Failed] = {}

    def add(self, failed: Failed) -> None:
        """One more; raises where the phase has to end: for what is no matter of this task, and where nothing has worked so far."""
        if failed.fatal:
            raise error_of(failed)
        self.failed[failed.key] = failed
        if self.strict or (self.needed and not self.worked and len(self.failed) >= self.limit):
            raise error_of(next(iter(self.failed.values())))

    def end(self, stage: str, rows: Sequence[Quarantined]) -> CorpusmillError:
        """The end of a phase that can't go on without them: one failure as it is, several in one sentence."""
        failed = list(self.failed.values())
        if len(failed) == 1:
            return error_of(failed[0])
        told = _listed([(stage, row) for row in rows])
        ours = all(each.exit_code == InputError.exit_code for each in failed)
        error = InputError if ours else CorpusmillError
        return error(f"{stage}: {len(rows)} tasks failed, all others are done, and the stage needs them: {told}.")


def sentence_of(stage: str, row: Quarantined) -> str:
    """What is said of one task, with no full stop: stage, task, inputs, cause."""
    begin = f"{stage}, task {row.task} ("
    message = row.message.rstrip(".")
    return message if message.startswith(begin) else f"{begin}{', '.join(ref.path for ref in row.inputs[:3]) or 'no input'}): {message}"


def told_lost(lost: Sequence[tuple[str, Quarantined]]) -> str:
    """The last sentence of a run that went on without tasks (stage and task): each with its inputs and its cause; none: nothing."""
    if not lost:
        return ""
    tasks = "1 task was" if len(lost) == 1 else f"{len(lost)} tasks were"
    return f"{tasks} given up, and the run is finished without (the same command tries again): {_listed(lost)}."


def _listed(lost: Sequence[tuple[str, Quarantined]]) -> str:
    more = f"; and {len(lost) - SYSTEMATIC} more (corpusmill verify lists them)" if len(lost) > SYSTEMATIC else ""
    return "; ".join(sentence_of(stage, row) for stage, row in lost[:SYSTEMATIC]) + more
