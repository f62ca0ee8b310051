"""Drops contaminated documents, cuts items of evaluation sets out of them, or only reports the items."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.dedup.config import ContaminationConfig, SetConfig
from corpusmill.dedup.contamination.find import DOCUMENT, PASSAGE, WHOLE, Finder, Matches, PassageIndex, build_index, set_columns
from corpusmill.dedup.contamination.sets import SetFile, read_items, read_passages, set_files
from corpusmill.dedup.contamination.words import without, words_of
from corpusmill.dedup.corpus import first_output
from corpusmill.dedup.removal import Edit, Editor, one_array
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import iter_tables
from corpusmill.pipeline.stage import Output, Task, Worker
from corpusmill.pipeline.storage import Storage

INDEX_TASK = "contamination"
INDEX_FILE, SETS_FILE = "contamination/index.arrow", "contamination/sets.parquet"
RULE = "contaminated"
#: The prefix of the counts of contaminated documents by set, in the manifest.
COUNT = "contaminated: "


#: The table of all sets: the columns of `set_columns`.
SETS = pa.schema(
    [("set", pa.string()), *((name, pa.int64()) for name in ("items", "searched", "too_short", "offered", "repeated", "boilerplate"))]
)


def check_sets(config: ContaminationConfig) -> None:
    """Raises InputError if a file of the sets can't be read, or if its format is unknown."""
    for _ in read_items(set_files(config.set_configs())):
        pass


def prepare_sets(run: StageRun, config: ContaminationConfig) -> list[FileRef]:
    """Runs the phase that makes the index of the recipe's evaluation sets; returns the index, as an input for the last phase."""
    files = set_files(config.set_configs())
    row = run.once(INDEX_TASK, [file.ref for file in files], lambda _: index_output(files, config), config=config.of_index())
    return [first_output(row)]


def index_output(files: Sequence[SetFile], config: ContaminationConfig) -> Output:
    """Returns the output with the index of the sets."""
    passages = read_passages(files)
    index = build_index(passages, config)
    written = {INDEX_FILE: index.to_bytes(), SETS_FILE: pa.table(set_columns(passages, index, config), SETS)}
    return Output(written, rows_in=sum(passages.sizes), bytes_in=sum(file.ref.bytes for file in files))


def load_index(run: Storage, path: str) -> PassageIndex:
    """Loads an index. From a disk it is mapped, so that the processes of one machine share its memory."""
    return PassageIndex.from_buffer(pa.py_buffer(run.read_bytes(path)) if run.remote else pa.memory_map(run.path(path)))


def contaminated_summary(counts: Sequence[dict[str, int]]) -> str:
    """Returns the contaminated documents by set, the most frequent first, such as `gsm8k 12, HumanEval 1`; empty where there are none."""
    total: Counter[str] = Counter()
    for row in counts:
        total.update({name.removeprefix(COUNT): count for name, count in row.items() if name.startswith(COUNT)})
    return ", ".join(f"{name} {count:,}" for name, count in sorted(total.items(), key=lambda item: (-item[1], item[0])))


class ContaminationEditor(Editor):
    """Edits the contaminated documents. The inputs of its tasks must include the index (`INDEX_FILE`)."""

    fields = (
        pa.field("contaminated_set", pa.string()),
        pa.field("contaminated_item", pa.int64()),  # its number in the set, from 0
        pa.field("contaminated_field", pa.string()),
        pa.field("contamination", pa.float64()),  # the share of the item's own words that were found (`find.py`)
        pa.field("contamination_passage", pa.string()),  # the passage of the document, at most `SHOWN` characters
        pa.field("contamination_items", pa.list_(pa.string())),  # the items that were found in the document, each as `SET:NUMBER`
    )

    def __init__(self, config: Any, run: Storage):
        super().__init__(config, run)
        self.options: ContaminationConfig = config.contamination
        self.loaded: FileRef | None = None

    def open(self, task: Task) -> None:
        ref = next(ref for ref in task.inputs if ref.path.endswith(INDEX_FILE))
        if ref != self.loaded:
            self.finder = Finder.make(load_index(self.run, ref.path), self.options)
            self.loaded = ref

    def edit(self, texts: pa.Array, rows: np.ndarray) -> Edit:
        matches = self.finder.find(texts)
        found = {int(d): np.stack(list(group)) for d, group in groupby(matches, lambda row: row[DOCUMENT])}
        findings: list[dict[str, Any]] = [{} for _ in range(len(texts))]
        dropped = np.zeros(len(texts), bool)
        changed: dict[int, str] = {}
        for document, group in found.items():
            text = texts[document].as_py()
            findings[document] = self._finding(text, group)
            if self.options.action == "cut":
                changed[document] = self._cut(text, group)
                dropped[document] = len(words_of(changed[document].encode())[0]) < self.options.keep_words
            dropped[document] |= self.options.action == "drop"
        counts = Counter(COUNT + finding["contaminated_set"] for finding in findings if finding)
        columns = {field.name: pa.array([finding.get(field.name) for finding in findings], field.type) for field in self.fields}
        return Edit(_replaced(texts, changed), columns, {RULE: dropped}, dict(sorted(counts.items())))

    def _finding(self, text: str, matches: Matches) -> dict[str, Any]:
        """Returns the values of `fields` for one document: its best match, and the number of items that it holds."""
        index, best = self.finder.index, self.finder.ranked(matches)[0]
        passage = best[PASSAGE]
        return {
            "contaminated_set": index.sets[index.set_of[passage]],
            "contaminated_item": int(index.number[passage]),
            "contaminated_field": index.fields[index.field_of[passage]],
            "contamination": float(self.finder.share(best[np.newaxis])[0]),
            "contamination_passage": self.finder.passage(text, best),
            "contamination_items": [
                f"{index.sets[set_]}:{number}"
                for set_, number in sorted({(int(index.set_of[p]), int(index.number[p])) for p in matches[:, PASSAGE]})
            ],
        }

    def _cut(self, text: str, matches: Matches) -> str:
        """Returns the text without its matches, and without the matches that appear where parts of it meet after a cut."""
        while len(matches):
            text = without(text, self.finder.spans(text, matches))
            matches = self.finder.find(pa.array([text], pa.large_string()))
        return text


def _replaced(texts: pa.Array, changed: dict[int, str]) -> pa.Array:
    if not changed:
        return texts
    mask = np.zeros(len(texts), bool)
    mask[list(changed)] = True
    return pc.replace_with_mask(texts, pa.array(mask), pa.array([changed[d] for d in sorted(changed)], pa.large_string()))


# ---- which items documents hold, without changing the documents: the stage `evaluate` reports it with a score


#: A row for each item of a set that a document holds, with the best match among the texts of the item.
FOUND = pa.schema(
    [
        pa.field("item", pa.int64()),  # its number in the set, from 0
        pa.field("field", pa.string()),  # the part of the item that was found
        pa.field("share", pa.float64()),  # the share of the item's own words that were found
        pa.field("passage", pa.string()),  # the passage of the document, at most `SHOWN` characters
        pa.field("id", pa.string()),
        pa.field("url", pa.string()),
    ]
)


def overlap_index(name: str, files: Sequence[FileRef], path: str, _: str) -> Output:
    """Returns the output with the index of one set, to be written to `path`. The last argument, a task's identity, is not used.

    Its counts: `items`, and `searched`, the items that have a text to look for.
    """
    sets = [SetFile(ref, name, SetConfig(path=ref.path)) for ref in files]
    passages = read_passages(sets)
    index = build_index(passages, ContaminationConfig(sets=[path]))
    searched = len(np.unique(index.number[index.kind >= WHOLE]))
    return Output({path: index.to_bytes()}, counts={"items": sum(passages.sizes), "searched": searched})


class OverlapWorker(Worker):
    """Finds the items of a set that the documents of one file hold.

    Inputs: the file of documents, and the set's index. `task.params["path"]`: the path for the table of findings (`FOUND`).
    """

    def process(self, task: Task) -> Output:
        documents, index = task.inputs
        finder = Finder.make(load_index(self.run, index.path), ContaminationConfig(sets=[index.path]))
        rows, count = [], 0
        for table in iter_tables(self.run, documents.path, ["id", "url", "text"]):
            count += table.num_rows
            rows += _found(finder, table)
        return Output({task.params["path"]: pa.Table.from_pylist(rows, FOUND)}, rows_in=count, kept=len(rows), bytes_in=documents.bytes)


def _found(finder: Finder, table: pa.Table) -> list[dict[str, object]]:
    texts, index = one_array(table["text"]), finder.index
    best: dict[tuple[int, int], np.ndarray] = {}
    for match in finder.ranked(finder.find(texts)):
        best.setdefault((int(match[DOCUMENT]), int(index.number[match[PASSAGE]])), match)
    return [
        {
            "item": item, "field": index.fields[index.field_of[match[PASSAGE]]], "share": float(finder.share(match[np.newaxis])[0]),
            "passage": finder.passage(texts[document].as_py(), match),
            "id": table["id"][document].as_py(), "url": table["url"][document].as_py(),
        }
        for (document, item), match in sorted(best.items(), key=lambda pair: pair[0])
    ]  # fmt: skip
