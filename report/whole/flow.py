"""The way of documents into a stage: each shard of the stage before was read by one task that reports on it, and no record of a crawl file
came in twice. A row a task and file is in memory."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import Quarantined, TaskRow
from corpusmill.pipeline.shards import iter_tables
from corpusmill.pipeline.storage import Storage


def shard_faults(run: Storage, stage: str, documents: list[str], tasks: Sequence[TaskRow], without: Sequence[Quarantined]) -> Iterator[str]:
    """`documents` are the shards (paths from the run) of the stage before, `without` the tasks that the stage was finished without."""
    read = {ref.path for task in tasks for ref in task.inputs}
    given_up = {ref.path for task in without for ref in task.inputs}
    reported = Counter(path for task in tasks if _reports(task) for path in {ref.path for ref in task.inputs})
    for path in documents:
        if path not in read and path not in given_up:
            yield f"{run.path(path)}: no task of {stage} has read these documents."
        elif reported[path] > 1:
            yield f"{run.path(path)}: {reported[path]} tasks of {stage} have read these documents, so they are there more than once."


def record_faults(run: Storage, stage: str, tasks: Sequence[TaskRow]) -> Iterator[str]:
    """Records of a file that the tasks of a stage (ingest) have both read, or that one has read twice, by where they lie in it."""
    stretches: list[tuple[str, int, int, str]] = []  # a crawl file, its first and last record that a report has, the report
    for path in [path for task in tasks for path in _reports(task)]:
        found: dict[str, tuple[int, int]] = {}
        try:
            for table in iter_tables(run.child(stage), path, ["source", "offset"]):
                doubled = _take(table, found)
                if doubled:
                    yield f"{run.path(f'{stage}/{path}')}: it has records of {doubled} twice, or not in their order."
        except (InputError, pa.ArrowException, OSError, KeyError):
            continue  # that it can't be read is said elsewhere
        stretches += [(source, first, last, path) for source, (first, last) in found.items()]
    stretches.sort()
    for before, after in pairwise(stretches):
        if before[0] == after[0] and after[1] <= before[2]:
            yield f"{run.path(f'{stage}/{after[3]}')}: it has records of {before[0]} that are in {before[3]} too."


def _reports(task: TaskRow) -> list[str]:
    return [output.path for output in task.outputs if output.path.startswith("report/")]


def _take(table: pa.Table, found: dict[str, tuple[int, int]]) -> str:
    """Widens each file's stretch by the rows of the table; the first file whose rows do not go on in order, or nothing."""
    wrong = ""
    sources, offsets = table["source"].combine_chunks().dictionary_encode(), table["offset"].combine_chunks()
    codes, valid = np.asarray(sources.indices.fill_null(-1)), np.asarray(offsets.is_valid())
    places = np.asarray(offsets.fill_null(-1))
    for code, source in enumerate(sources.dictionary.to_pylist()):
        here = places[(codes == code) & valid]
        if not len(here):
            continue
        first, last = found.get(source, (int(here[0]), -1))
        if here[0] <= last or (np.diff(here) <= 0).any():
            wrong = wrong or source
        found[source] = (min(first, int(here.min())), max(last, int(here.max())))
    return wrong
