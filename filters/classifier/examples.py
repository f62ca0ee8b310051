"""Reads the examples for a training or an evaluation: their texts, their sources and their answers."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.filters.classifier.corpora import PREFIX, corpus_path, drawn
from corpusmill.filters.classifier.spec import ExampleSource, value_key
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import expand, local_path, open_file
from corpusmill.pipeline.formats.evaluation_sets import data_files, read_set
from corpusmill.pipeline.safe import safe_line
from corpusmill.text.damage import storable


@dataclass
class SourceReport:
    """What was read from a source."""

    name: str
    licence: str | None = None
    files: list[dict[str, Any]] = field(default_factory=list)  # name, bytes, sha256
    rows: int = 0
    empty: int = 0  # rows without a text
    unknown: int = 0  # empty cells of label columns
    unanswered: int = 0  # rows without an answer to any label
    examples: int = 0
    answers: dict[str, dict[str, int]] = field(default_factory=dict)  # by label: yes and no


class ExampleTable(NamedTuple):
    """The examples of all sources.

    `table`: text (large_string), source (string), document (int64: pieces of one document share it), and an int8 column for each label,
    null if the answer is unknown.
    """

    table: pa.Table
    sources: tuple[SourceReport, ...]


def gather_examples(sources: Sequence[ExampleSource], labels: Sequence[str], seed: int = 1) -> ExampleTable:
    """Reads all sources; `seed` is that of their limits. Raises InputError in one sentence that names file and row, and if there is no text
    with an answer."""
    tables, reports, documents = [], [], 0
    for source in sources:
        table, report = _read_source(source, labels, seed, documents)
        documents += report.rows
        tables.append(table)
        reports.append(report)
    table = pa.concat_tables(tables).combine_chunks()
    if not table.num_rows:
        names = ", ".join(report.name for report in reports[:3]) + (", ..." if len(reports) > 3 else "")
        raise InputError(f"{names}: no text has an answer to {' or '.join(labels)}.")
    return ExampleTable(table, tuple(reports))


def _read_source(source: ExampleSource, labels: Sequence[str], seed: int, first: int) -> tuple[pa.Table, SourceReport]:
    """Returns the examples of a source, whose documents are numbered from `first` on."""
    report = SourceReport(source.name, source.licence)
    columns = _columns(source, labels)
    texts: list[str] = []
    answers: list[dict[str, int]] = []
    for path in _files(source):
        report.files.append(_fingerprint(path))
        for where, row in ((f"{part}: row {number}", row) for part, rows in read_set(path) for number, row in enumerate(rows, 1)):
            report.rows += 1
            text = _cell(where, row, source.text_column)
            if text is not None and not isinstance(text, str):
                raise InputError(f"{where}: {source.text_column!r} is no text ({type(text).__name__}).")
            if not text or not (text := storable(text)).strip():
                report.empty += 1
                continue
            known, unknown = _answers(where, row, columns)
            report.unknown += unknown
            texts.append(text)
            answers.append({**source.answers, **known})
        if source.limit and len(texts) > source.limit:  # after each file, so that a corpus of many files fits into memory
            chosen = drawn(texts, source.limit, seed)
            texts, answers = [texts[number] for number in chosen], [answers[number] for number in chosen]
    documents = list(range(len(texts)))
    if source.pieces:
        texts, documents = cut(texts, source.pieces)
        answers = [answers[number] for number in documents]
    by_label = {label: pa.array([known.get(label) for known in answers], pa.int8()) for label in labels}
    answered = np.any([column.is_valid().to_numpy(zero_copy_only=False) for column in by_label.values()], axis=0)
    table = pa.table({
        "text": pa.array(texts, pa.large_string()),
        "source": pa.array([source.name] * len(texts), pa.string()),
        "document": pa.array([first + number for number in documents], pa.int64()),
        **by_label,
    }).filter(pa.array(answered, pa.bool_()))  # fmt: skip
    report.unanswered, report.examples = int((~answered).sum()), table.num_rows
    report.answers = {label: answer_counts(table[label]) for label in labels}
    return table, report


def answer_counts(column: pa.ChunkedArray) -> dict[str, int]:
    """Counts a label's answers by yes and no."""
    yes = pc.sum(column).as_py() or 0
    return {"yes": yes, "no": len(column) - column.null_count - yes}


# ---- Rows of files: JSONL, JSON, CSV, Parquet and so on, as evaluation sets


def _files(source: ExampleSource) -> Iterator[str]:
    """Yields the paths of a source's files; a corpus from packages (`package://NAME`) is made at first use."""
    for given in source.files:
        path = str(corpus_path(given.removeprefix(PREFIX))) if given.startswith(PREFIX) else given
        yield from data_files(path, expand(path))


def _cell(where: str, row: Mapping[str, Any], column: str) -> Any:
    if column not in row:
        raise InputError(f"{where}: has no column {column!r} (it has {', '.join(safe_line(name, 40) for name in row) or 'none'}).")
    return row[column]


def _fingerprint(path: str) -> dict[str, Any]:
    """Returns a file's name without its folder (folders differ between machines), its bytes and sha256."""
    with open_file(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        return {"name": Path(local_path(path)).name, "bytes": file.tell(), "sha256": digest}


# ---- From a row's label columns to its answers: yes, no or unknown for each label

YES, NO = ("1", "true", "yes"), ("0", "false", "no")
Answers = Mapping[str, int]


class LabelColumn(NamedTuple):
    """A column, the answers that each of its values gives, and those that any other value gives; None: it is an error."""

    name: str
    values: Mapping[str, Answers]
    others: Answers | None = None


def _columns(source: ExampleSource, labels: Sequence[str]) -> list[LabelColumn]:
    """Returns a source's label columns. A later one counts where two give an answer.

    Where the source does not say what a value means, a label's name means yes to it and no to all other labels. If there is only one label,
    1, true and yes mean yes, and 0, false and no mean no, too.
    """
    columns = [LabelColumn(column, _yes_or_no(label)) for label, column in source.label_columns.items()]
    if source.label_column is None:
        return columns
    if source.positive is not None:
        return [LabelColumn(source.label_column, {source.positive: {labels[0]: 1}}, {labels[0]: 0}), *columns]
    names = {label: {other: int(other == label) for other in labels} for label in labels}
    return [LabelColumn(source.label_column, source.values or names | (_yes_or_no(labels[0]) if len(labels) == 1 else {})), *columns]


def _yes_or_no(label: str) -> dict[str, Answers]:
    return {**{key: {label: 1} for key in YES}, **{key: {label: 0} for key in NO}}


def _answers(where: str, row: Mapping[str, Any], columns: Sequence[LabelColumn]) -> tuple[dict[str, int], int]:
    """Returns `(answers, unknown)`: the answers that the columns of a row give by label, and how many of them are empty."""
    found: dict[str, int] = {}
    unknown = 0
    for column in columns:
        value = _cell(where, row, column.name)
        if value in (None, ""):
            unknown += 1
        elif (answers := column.values.get(value_key(value), column.others)) is not None:
            found |= answers
        else:
            shown, known = safe_line(repr(value), 60), ", ".join(list(column.values)[:10])
            raise InputError(f"{where}: the label {shown} in {column.name!r} is unknown (known are {known}); `values` says what it means.")
    return found, unknown


# ---- Pieces of long documents, so that training texts have about the same length

#: A last piece that is shorter than this share of the others is left out, because it would be nearly empty.
SHORTEST = 0.2


def cut(texts: Sequence[str], size: int) -> tuple[list[str], list[int]]:
    """Cuts all texts into pieces of up to `size` characters; a piece ends before white space if its second half has any.

    Returns `(pieces, documents)`; `documents`: the position of each piece's text.
    """
    found: list[str] = []
    documents: list[int] = []
    for position, text in enumerate(texts):
        parts, at = [], 0
        while at < len(text):
            end = min(at + size, len(text))
            if end < len(text):
                space = max(text.rfind(" ", at + size // 2, end + 1), text.rfind("\n", at + size // 2, end + 1))
                end = space if space > at else end
            if piece := text[at:end].strip():
                parts.append(piece)
            at = end
        if len(parts) > 1 and len(parts[-1]) < SHORTEST * size:
            parts.pop()
        found += parts
        documents += [position] * len(parts)
    return found, documents
