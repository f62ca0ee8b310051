"""The examples of a training or an evaluation: their texts, where they come from, and what is known of each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from corpusmill.filters.classifier.answers import Answers, cell
from corpusmill.filters.classifier.pieces import cut
from corpusmill.filters.classifier.rows import TEXT, find_files, fingerprint, read_rows
from corpusmill.filters.classifier.run_documents import RUN_LIMIT, read_run
from corpusmill.filters.classifier.spec import Source
from corpusmill.filters.classifier.weak import has_word
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.text.damage import storable


@dataclass
class SourceReport:
    """What was read of a source."""

    name: str
    licence: str | None = None
    files: list[dict[str, Any]] = field(default_factory=list)  # name, bytes, sha256
    rows: int = 0
    empty: int = 0  # rows without a text
    unknown: int = 0  # empty cells of label columns
    unanswered: int = 0  # rows without an answer to any label
    examples: int = 0
    answers: dict[str, dict[str, int]] = field(default_factory=dict)  # by label: yes and no


@dataclass(frozen=True)
class Examples:
    """`table`: text (large_string), source (string), document (int64: pieces of one document share it), and an int8 column a label, null
    where the answer is unknown."""

    table: pa.Table
    labels: tuple[str, ...]
    sources: tuple[SourceReport, ...]


def read_examples(sources: Sequence[Source], folder: str | Path = ".", labels: Sequence[str] | None = None, seed: int = 1) -> pa.Table:
    """The table of `gather_examples`."""
    return gather_examples(sources, folder, labels, seed).table


def gather_examples(sources: Sequence[Source], folder: str | Path = ".", labels: Sequence[str] | None = None, seed: int = 1) -> Examples:
    """Reads all sources; paths are relative to `folder`. Raises InputError in one sentence that names file and line."""
    names = tuple(dict.fromkeys(labels or [label for source in sources for label in source.labels()]))
    tables, reports, documents = [], [], 0
    for source in sources:
        table, report = _read_source(source, folder, names, seed)
        shifted = pc.add(table["document"], documents)
        documents += pc.max(table["document"]).as_py() + 1 if table.num_rows else 0
        tables.append(table.set_column(2, "document", shifted))
        reports.append(report)
    return Examples(pa.concat_tables(tables).combine_chunks(), names, tuple(reports))


def _read_source(source: Source, folder: str | Path, labels: tuple[str, ...], seed: int) -> tuple[pa.Table, SourceReport]:
    report = SourceReport(source.named(), source.licence)
    answers = Answers(source, labels)
    texts: list[str] = []
    known: list[dict[str, int]] = []
    for text, found in _run_rows(source, folder, report, seed) if source.run else _file_rows(source, folder, answers, report):
        texts.append(text)
        known.append(found)
    if source.limit and not source.run:
        chosen = drawn(texts, source.limit, seed)
        texts, known = [texts[place] for place in chosen], [known[place] for place in chosen]
    document = list(range(len(texts)))
    if source.pieces:
        texts, document = cut(texts, source.pieces)
        known = [known[place] for place in document]
    text = pa.array(texts, pa.large_string())
    columns = {label: _answer_column(source, label, known, text, folder) for label in labels}
    table = pa.table({"text": text, "source": pa.array([report.name] * len(texts), pa.string()), "document": document} | columns)
    answered = np.any([column.is_valid().to_numpy(zero_copy_only=False) for column in columns.values()], axis=0)
    table = table.filter(pa.array(answered, pa.bool_()))
    report.unanswered, report.examples = int((~answered).sum()), table.num_rows
    report.answers = {label: answer_counts(table[label]) for label in labels}
    return table, report


def answer_counts(column: pa.ChunkedArray | pa.Array) -> dict[str, int]:
    """How often a label's answers are yes and no."""
    yes = pc.sum(column).as_py() or 0
    return {"yes": yes, "no": len(column) - column.null_count - yes}


def _file_rows(source: Source, folder: str | Path, answers: Answers, report: SourceReport) -> Iterator[tuple[str, dict[str, int]]]:
    for given in source.files:
        for file in find_files(given, folder, source.format):
            report.files.append(fingerprint(file.path))
            tabular = file.format in ("jsonl", "parquet")
            if answers.columns() and not tabular:
                raise InputError(f"{file.path}: a text file has no column {answers.columns()[0]!r}.")
            column = source.text_column if tabular else TEXT
            for place, row in read_rows(file, [column, *answers.columns()]):
                report.rows += 1
                text = cell(place, row, column)
                if text is not None and not isinstance(text, str):
                    raise InputError(f"{place}: {column!r} is no text ({type(text).__name__}).")
                if not text or not (text := storable(text) or "").strip():
                    report.empty += 1
                    continue
                found, unknown = answers.of(place, row)
                report.unknown += unknown
                yield text, found


def _run_rows(source: Source, folder: str | Path, report: SourceReport, seed: int) -> Iterator[tuple[str, dict[str, int]]]:
    documents = read_run(str(Path(folder) / str(source.run)), source.stage, source.limit or RUN_LIMIT, seed, source.failed)
    report.files, report.rows = documents.files, documents.rows
    for text in documents.texts:
        if text.strip():
            yield text, {}
        else:
            report.empty += 1


def _answer_column(source: Source, label: str, known: list[dict[str, int]], text: pa.Array, folder: str | Path) -> pa.Array:
    """A label's answers: of columns, then of its word list, then of the whole source."""
    column = pa.array([found.get(label) for found in known], pa.int8())
    if label in source.weak:
        hit = has_word(text, str(Path(folder) / source.weak[label]))
        column = pc.coalesce(column, pc.if_else(hit, pa.scalar(1, pa.int8()), pa.scalar(None, pa.int8())))
    if label in source.answers:
        column = pc.fill_null(column, pa.scalar(source.answers[label], pa.int8()))
    return column


def drawn(texts: Sequence[str], count: int, seed: int) -> npt.NDArray[np.int64]:
    """The places of `count` texts, ascending: those whose hashes under the seed are the smallest, so that order plays no part."""
    keys = np.array([xxhash.xxh3_64_intdigest(text.encode(), seed) for text in texts], np.uint64)
    return np.sort(np.argsort(keys, kind="stable")[:count])
