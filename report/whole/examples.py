"""Examples and pairs that models were tuned on: as many as the manifest says, each from a document that the stage has read."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import TaskRow
from corpusmill.pipeline.shards import iter_tables, open_parquet, read_table
from corpusmill.pipeline.storage import Storage

#: Stages that learn from examples, the tables with those that are learned from and those that were left out.
TUNED = {"sft": ("data/examples.parquet", "dropped/examples.parquet"), "align": ("data/pairs.parquet",)}


def example_faults(run: Storage, stage: str, tasks: Sequence[TaskRow], broken: set[str]) -> Iterator[str]:
    """`broken` are paths (from the run) of files that are not what was written, which are not read again."""
    for task in tasks:
        names = [name for name in TUNED[stage] if any(output.path == name for output in task.outputs)]
        documents = [ref.path for ref in task.inputs if "/data/" in ref.path and ref.path.endswith(".parquet")]
        if not names or broken.intersection(documents):
            continue
        try:
            yield from _counts(run, stage, task, names)
            if all("/" in ref.path and run.exists(ref.path) for ref in task.inputs):  # else some come from files of the user's
                yield from _origins(run, stage, names, documents)
        except (InputError, pa.ArrowException, OSError, KeyError, ValueError) as error:
            yield f"{run.path(f'{stage}/{names[0]}')}: can't be checked: {error}"


def _counts(run: Storage, stage: str, task: TaskRow, names: list[str]) -> Iterator[str]:
    """`kept` are the rows of the first table, `dropped` those of the second."""
    for name, said in zip(names, (task.kept, task.dropped)):
        with open_parquet(run.child(stage), name) as file:
            rows = file.metadata.num_rows
        if rows != said:
            yield f"{run.path(f'{stage}/{name}')}: it has {rows:,} rows, and the manifest says {said:,}."


def _origins(run: Storage, stage: str, names: list[str], documents: list[str]) -> Iterator[str]:
    """Examples of documents that are not among those that the task has read."""
    from_where = {name: set(read_table(run.child(stage), name, ["id"])["id"].to_pylist()) for name in names}
    unknown = set().union(*from_where.values())
    for path in documents:
        folder, _, shard = path.partition("/")
        for table in iter_tables(run.child(folder), shard, ["id"]):
            unknown.difference_update(table["id"].to_pylist())
    for name, ids in from_where.items():
        if lost := sorted(ids & unknown):
            yield f"{run.path(f'{stage}/{name}')}: {len(lost):,} of its rows come from documents that {stage} has not read ({lost[0]})."
