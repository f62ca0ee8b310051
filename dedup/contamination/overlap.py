"""Which items of an evaluation set stand in documents, by the search of `dedup.contamination` and without changing anything.

The stage `evaluate` states it beside a set's score; it looks these up by name.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from corpusmill.dedup.config import ContaminationConfig, SetConfig
from corpusmill.dedup.contamination.editor import load_index
from corpusmill.dedup.contamination.find import COVERED, DOCUMENT, PASSAGE, START, Finder
from corpusmill.dedup.contamination.index import LEFT_OUT, build_index
from corpusmill.dedup.contamination.sets import SetFile, read_passages
from corpusmill.dedup.contamination.words import SHOWN
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.shards import iter_tables
from corpusmill.pipeline.stage import Output, Task, Worker

#: A row for every item of the set that a document holds: of an item's texts the one of which most was found.
FOUND = pa.schema(
    [
        pa.field("item", pa.int64()),  # its number in the set, from 0
        pa.field("field", pa.string()),  # the part of the item that was found
        pa.field("share", pa.float64()),  # of its words, of those that prove something
        pa.field("passage", pa.string()),  # of the document, at most `SHOWN` characters
        pa.field("id", pa.string()),
        pa.field("url", pa.string()),
    ]
)


def overlap_options(path: str) -> ContaminationConfig:
    return ContaminationConfig(sets=[path])


def overlap_index(name: str, files: Sequence[FileRef], path: str) -> Output:
    """The index of one set, `path`. Counts: `items`, and those that have a text to look for (`searched`)."""
    sets = [SetFile(ref, name, SetConfig(path=ref.path)) for ref in files]
    passages = read_passages(sets)
    index = build_index(passages, overlap_options(path))
    searched = len(np.unique(index.number[index.kind != LEFT_OUT]))
    return Output({path: index.to_bytes()}, counts={"items": int(passages.item.max(initial=-1)) + 1, "searched": searched})


class OverlapWorker(Worker):
    """A task: a file of documents, and the set's index. `params["path"]`: where the table of what was found goes."""

    def process(self, task: Task) -> Output:
        documents, index = task.inputs
        finder = Finder.make(load_index(self.run, index.path), overlap_options(index.path))
        rows, count = [], 0
        for table in iter_tables(self.run, documents.path, ["id", "url", "text"]):
            count += table.num_rows
            rows += _found(finder, table)
        return Output({task.params["path"]: pa.Table.from_pylist(rows, FOUND)}, rows_in=count, kept=len(rows), bytes_in=documents.bytes)


def _found(finder: Finder, table: pa.Table) -> list[dict[str, object]]:
    texts = pa.concat_arrays([chunk.cast(pa.large_string()) for chunk in table["text"].chunks])
    matches = finder.find(texts)
    share, index = finder.share(matches), finder.index
    best: dict[tuple[int, int], int] = {}
    for m in sorted(range(len(matches)), key=lambda m: (-share[m], -matches[m, COVERED], *matches[m, [PASSAGE, START]])):
        best.setdefault((int(matches[m, DOCUMENT]), int(index.number[matches[m, PASSAGE]])), m)
    return [_row(finder, table, texts, matches[m], float(share[m])) for _, m in sorted(best.items())]


def _row(finder: Finder, table: pa.Table, texts: pa.Array, match: np.ndarray, share: float) -> dict[str, object]:
    index, document, passage = finder.index, int(match[DOCUMENT]), int(match[PASSAGE])
    text = texts[document].as_py()
    ((start, end),) = finder.spans(text, match[np.newaxis])
    return {
        "item": int(index.number[passage]), "field": index.fields[index.field_of[passage]], "share": share,
        "passage": text[start:end][:SHOWN], "id": table["id"][document].as_py(), "url": table["url"][document].as_py(),
    }  # fmt: skip
