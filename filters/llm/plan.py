"""What the `llm` steps of a run will ask, take and cost, from a sample of answers. The answers are kept, so nothing is paid twice."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import pyarrow as pa

from corpusmill.filters.llm.client import use
from corpusmill.filters.llm.step import NOT_REACHED, Llm
from corpusmill.filters.stage import FilterStage
from corpusmill.filters.worker import FilterWorker
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.run import plan_of_existing
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import iter_tables, open_parquet
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress

#: Documents from which the share that passes the earlier rules is estimated, and shards that they come from.
MEASURED, SHARDS = 2_000, 16


@dataclass(frozen=True)
class StepPlan:
    """What one step will ask. `tokens_in` and `tokens_out`: of all documents, with half the width of the interval that holds 95%.
    `seconds`: of one answer, on average. `refused`: answers of the sample without a value."""

    name: str
    model: str
    documents: int
    answers: int
    refused: int
    tokens_in: tuple[float, float]
    tokens_out: tuple[float, float]
    dollars: float
    seconds: float
    concurrency: int

    def hours(self, workers: int) -> float:
        """Returns the hours that so many workers take, if the server keeps up with all of their questions."""
        return self.documents * self.seconds / (self.concurrency * workers) / 3600


def plan_steps(folder: str, overrides: Sequence[str], sample: int) -> list[StepPlan]:
    """Asks `sample` questions of each `llm` step of a run whose documents are there. Raises InputError where they are not, or where the
    recipe has no such step; ServerLost."""
    plan = plan_of_existing(folder, list(overrides))
    config = plan.sections.get("filter")
    if config is None or not any(isinstance(step.step, Llm) for step in FilterWorker(config, Storage(folder), {}).steps):  # type: ignore[arg-type]
        raise InputError(f"{folder}: the recipe has no step llm.")
    stage = FilterStage(config)
    run = StageRun(stage, Storage(folder), dict(plan.sections), plan.inputs, InlineEngine(), Progress(False))
    shards = run.documents()
    worker = FilterWorker(config, run.run, {})  # type: ignore[arg-type]
    return [_plan_step(worker, place, shards, sample) for place, step in enumerate(worker.steps) if isinstance(step.step, Llm)]


def _plan_step(worker: FilterWorker, place: int, shards: Sequence[FileRef], sample: int) -> StepPlan:
    step = worker.steps[place].step
    assert isinstance(step, Llm)
    earlier = FilterWorker(worker.config, worker.run, {})
    earlier.steps = worker.steps[:place]
    used = shards[:: max(1, math.ceil(len(shards) / SHARDS))]
    passing, measured, documents = list[pa.Table](), 0, 0
    try:
        for shard in used:
            earlier.begin(shard)
            for each in earlier.steps:
                each.step.setup()
            table = next(iter(iter_tables(worker.run, shard.path)), None)
            if table is None:
                continue
            table = table.slice(0, math.ceil(MEASURED / len(used)))
            values, text = earlier.measure(table, table["text"].combine_chunks())
            where = worker.passing(place, values, table.num_rows) if step.only_passing else None
            table = table.set_column(table.schema.get_field_index("text"), "text", text)
            measured += table.num_rows
            passing.append(table if where is None else table.filter(pa.array(where)))
    finally:
        earlier.close()
    found = pa.concat_tables(passing) if passing else None
    documents = round(_rows(worker, shards) * (found.num_rows / measured if found is not None and measured else 0) * step.config.share)
    rows = step.sampled(_spread(found, sample)) if found is not None and found.num_rows else []
    answered = [row for row in rows if row["refused"] not in NOT_REACHED]
    tokens_in, tokens_out = (_total([row[name] for row in answered], documents) for name in ("tokens_in", "tokens_out"))
    refused = sum(row["refused"] is not None for row in answered)
    return StepPlan(
        step.config.name, step.config.model, documents, len(answered), refused, tokens_in, tokens_out,
        use(step.config.prices, int(tokens_in[0]), int(tokens_out[0]))["dollars"], fmean([row["seconds"] for row in answered] or [0.0]),
        step.config.concurrency,
    )  # fmt: skip


def _spread(documents: pa.Table, number: int) -> pa.Table:
    """Returns so many of the documents, evenly spread."""
    places = {place * documents.num_rows // number for place in range(number)}
    return documents.take(pa.array(sorted(places), pa.int64()))


def _rows(worker: FilterWorker, shards: Sequence[FileRef]) -> int:
    total = 0
    for shard in shards:
        with open_parquet(worker.run, shard.path) as file:
            total += file.metadata.num_rows
    return total


def _total(values: Sequence[int], documents: int) -> tuple[float, float]:
    """Returns the estimated sum over all documents, and half the width of its 95% interval."""
    if not values:
        return 0.0, 0.0
    width = 1.96 * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else fmean(values)
    return documents * fmean(values), documents * width
