"""The editor that drops contaminated documents, cuts items of evaluation sets out of them, or only names what it finds."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.dedup.config import ContaminationConfig, SetConfig
from corpusmill.dedup.contamination.find import COVERED, DOCUMENT, PASSAGE, START, Finder, Matches
from corpusmill.dedup.contamination.index import LEFT_OUT, WHOLE, Index, build_index
from corpusmill.dedup.contamination.sets import SetFile, read_passages, set_files
from corpusmill.dedup.contamination.words import SHOWN, without, words_of
from corpusmill.dedup.corpus import only
from corpusmill.dedup.removal import Edit, Editor
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import iter_tables
from corpusmill.pipeline.stage import Output, Task, Worker
from corpusmill.pipeline.storage import Storage

INDEX_TASK = "contamination"
INDEX_FILE = "contamination/index.arrow"
RULE = "contaminated"
#: Counts of tasks: contaminated documents by set.
COUNT = "contaminated: "


def prepare_sets(run: StageRun, config: ContaminationConfig) -> list[FileRef]:
    """The index of the evaluation sets that the recipe names, for the last phase."""
    files = set_files(config.set_configs())
    row = run.once(INDEX_TASK, [file.ref for file in files], lambda _: index_output(files, config), config=config.of_index())
    return [only(row)]


def index_output(files: Sequence[SetFile], config: ContaminationConfig) -> Output:
    """The index of the sets, made once."""
    passages = read_passages(files)
    index = build_index(passages, config)
    counts = {
        "items": int(passages.item[-1]) + 1 if len(passages.item) else 0,
        "texts": len(passages.texts),
        "texts_whole": int((index.kind == WHOLE).sum()),
        "texts_left_out": len(passages.texts) - int((index.kind != LEFT_OUT).sum()),
    }
    return Output({INDEX_FILE: index.to_bytes()}, rows_in=counts["items"], bytes_in=sum(file.ref.bytes for file in files), counts=counts)


def load_index(run: Storage, path: str) -> Index:
    """Processes of one machine share its pages."""
    return Index.from_buffer(pa.py_buffer(run.read_bytes(path)) if run.remote else pa.memory_map(run.path(path)))


def contaminated_summary(counts: Sequence[dict[str, int]]) -> str:
    """`gsm8k 12, HumanEval 1` from the counts of all tasks; the most frequent first. Empty where nothing was found."""
    total: Counter[str] = Counter()
    for row in counts:
        total.update({name.removeprefix(COUNT): count for name, count in row.items() if name.startswith(COUNT)})
    return ", ".join(f"{name} {count:,}" for name, count in sorted(total.items(), key=lambda item: (-item[1], item[0])))


@dataclass(frozen=True)
class Finding:
    """What is reported of one document: its best match, and how many items it holds."""

    set: str
    item: int
    field: str
    share: float
    passage: str
    items: int


class ContaminationEditor(Editor):
    """Needs the index (`INDEX_FILE`) among the inputs of its tasks."""

    fields = (
        pa.field("contaminated_set", pa.string()),
        pa.field("contaminated_item", pa.int64()),  # its number in the set, from 0
        pa.field("contaminated_field", pa.string()),
        pa.field("contamination", pa.float64()),  # the share of its words that was found, of those that prove something
        pa.field("contamination_passage", pa.string()),  # of the document, at most `SHOWN` characters
        pa.field("contamination_matches", pa.int64()),  # how many items were found in the document
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
        findings: list[Finding | None] = [None] * len(texts)
        dropped = np.zeros(len(texts), bool)
        changed: dict[int, str] = {}
        for document, group in found.items():
            text = texts[document].as_py()
            findings[document] = self._finding(text, group)
            if self.options.action == "cut":
                changed[document] = self._cut(text, group)
                dropped[document] = len(words_of(changed[document].encode())[0]) < self.options.keep_words
            dropped[document] |= self.options.action == "drop"
        counts = Counter(COUNT + finding.set for finding in findings if finding)
        return Edit(_replaced(texts, changed), self._columns(findings), {RULE: dropped}, dict(sorted(counts.items())))

    def _finding(self, text: str, matches: Matches) -> Finding:
        """The best match has the largest share, then the most words; then the first set and item given."""
        index = self.finder.index
        share = self.finder.share(matches)
        best = min(range(len(matches)), key=lambda m: (-share[m], -matches[m, COVERED], *matches[m, [PASSAGE, START]]))
        passage = matches[best, PASSAGE]
        ((start, end),) = self.finder.spans(text, matches[[best]])
        items = {(index.set_of[p], index.number[p]) for p in matches[:, PASSAGE]}
        return Finding(
            index.sets[index.set_of[passage]], int(index.number[passage]), index.fields[index.field_of[passage]],
            float(share[best]), text[start:end][:SHOWN], len(items),
        )  # fmt: skip

    def _cut(self, text: str, matches: Matches) -> str:
        """The text without what was found, and without what is found again where its parts meet."""
        while len(matches):
            text = without(text, self.finder.spans(text, matches))
            matches = self.finder.find(pa.array([text], pa.large_string()))
        return text

    def _columns(self, findings: list[Finding | None]) -> dict[str, pa.Array]:
        names = dict(zip((field.name for field in self.fields), ("set", "item", "field", "share", "passage", "items")))
        return {
            field.name: pa.array([getattr(finding, names[field.name], None) for finding in findings], field.type) for field in self.fields
        }


def _replaced(texts: pa.Array, changed: dict[int, str]) -> pa.Array:
    if not changed:
        return texts
    mask = np.zeros(len(texts), bool)
    mask[list(changed)] = True
    return pc.replace_with_mask(texts, pa.array(mask), pa.array([changed[d] for d in sorted(changed)], pa.large_string()))


# ---- which items stand in documents, without changing anything: the stage `evaluate` states it beside a score


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
