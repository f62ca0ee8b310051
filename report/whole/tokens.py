"""Token shards of a run: each document of the stage before has a row in the report, each that is kept stands in the shards' indexes,
and the shards themselves are what `corpusmill tokens verify` wants. A bit a document is in memory."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.manifest import Manifest, TaskRow
from corpusmill.pipeline.shards import iter_tables, read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.report.tokens import verify as shards
from corpusmill.report.whole.rows import difference, read_ids

#: Documents of each shard whose tokens are compared with their texts.
SAMPLE = 20

Bits = npt.NDArray[np.uint8]


def token_faults(run: Storage) -> Iterator[str]:
    """Faults of the tokens stage of a run, whose files are all what was written."""
    yield from (fault for check in shards.verify(run.root, SAMPLE) for fault in check.faults)
    storage, tasks = run.child("tokens"), Manifest(run.child("tokens"), read_only=True).rows()
    kept: dict[str, Bits] = {}
    for report, documents in _reports(tasks):
        rows = read_table(storage, report, ["id", "kept"])
        fault = difference(rows["id"].combine_chunks(), read_ids(run, documents))
        if fault:
            yield f"{storage.path(report)}: its rows are not the documents of {documents}: {fault}."
        kept[documents] = np.asarray(rows["kept"].to_numpy(zero_copy_only=False), np.uint8)
    indexed = {documents: np.zeros_like(bits) for documents, bits in kept.items()}
    for path in (output.path for task in tasks for output in task.outputs if output.path.endswith(".index.parquet")):
        yield from _take(storage, path, indexed)
    for documents, bits in kept.items():
        for wrong, what in (
            (bits > indexed[documents], "kept, and stand in no shard"),
            (bits < indexed[documents], "in a shard, and not kept"),
        ):
            if wrong.any():
                yield f"{run.path(documents)}: {int(wrong.sum()):,} of its documents are {what} (row {int(np.argmax(wrong)):,})."


def _reports(tasks: Sequence[TaskRow]) -> Iterator[tuple[str, str]]:
    """Each shard of the report, and the document shard (from the run) that it is about: that from which its task's input was encoded."""
    origin: dict[str, str] = {}
    for task in tasks:
        read = {ref.path if "/data/" in ref.path else origin.get(ref.path, "") for ref in task.inputs} - {""}
        if len(read) != 1:
            continue  # the plan, which rests on all of them
        (documents,) = read
        for output in task.outputs:
            origin[f"tokens/{output.path}"] = documents
            if output.path.startswith("report/"):
                yield output.path, documents


def _take(storage: Storage, index: str, indexed: dict[str, Bits]) -> Iterator[str]:
    """Marks the documents that a shard's index names; a sentence for those that nobody knows."""
    for rows in iter_tables(storage, index, ["data_file", "data_row"]):
        files, places = rows["data_file"].combine_chunks().dictionary_encode(), rows["data_row"].to_numpy()
        codes = files.indices.to_numpy()
        for code, documents in enumerate(files.dictionary.to_pylist()):
            here = places[codes == code]
            known = indexed.get(documents)
            if known is None or (len(here) and int(here.max()) >= len(known)):
                yield f"{storage.path(index)}: it names documents of {documents} that the report does not know."
            else:
                known[here] = 1
