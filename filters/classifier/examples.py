"""Reads the examples for a training or an evaluation: their texts, their sources and their answers."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from corpusmill.filters.bad_words import UNSEPARATED, build_trie, count_words, read_words, usual_lower
from corpusmill.filters.classifier.corpora import PREFIX, corpus_path, drawn
from corpusmill.filters.classifier.spec import ExampleSource, PieceLength, value_key
from corpusmill.filters.language_codes import canonical
from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import expand, file_ref, local_path, open_file
from corpusmill.pipeline.formats.compressed import Inflating, compression_of, inflating
from corpusmill.pipeline.formats.detect import InputFile, detect
from corpusmill.pipeline.formats.parquet import open_parquet
from corpusmill.pipeline.formats.streams import Window, split_lines
from corpusmill.pipeline.labels import LabelFile, labelled_texts
from corpusmill.pipeline.manifest import Manifest, TaskRow
from corpusmill.pipeline.names import instead_of, not_a_run
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.shards import iter_tables
from corpusmill.pipeline.storage import Storage, is_remote
from corpusmill.pipeline.text.buffers import text_buffers
from corpusmill.pipeline.text.damage import storable
from corpusmill.pipeline.text.utf8 import CODE_POINTS, character_classes

# ---- The rows of example files: JSONL and Parquet with columns; text files, in which an example is a line or the whole file.

#: Bytes of the longest line or text; a longer one is an error.
MOST_BYTES = 256 << 20
#: Number of Parquet rows that are converted to Python objects at a time.
BATCH = 256
#: The name of the only column of text files.
TEXT = "text"


@dataclass(frozen=True)
class ExampleFile:
    """A file of examples. `format`: jsonl, parquet, lines or documents. `compression`: None, gzip, zstd or lz4."""

    path: str
    format: str
    compression: str | None


def find_files(given: str, folder: str | Path, format: str = "auto") -> list[ExampleFile]:
    """Returns the files of one input, in sorted order.

    An input is a file, folder, glob or URL, relative to `folder`; or a corpus, `package://NAME`. Raises InputError if there are no files,
    or if a file that was named itself can't be read as examples.
    """
    if given.startswith(PREFIX):
        given = str(corpus_path(given.removeprefix(PREFIX)))
    path = given if is_remote(given) else str(Path(folder) / given)
    paths = expand(path)
    alone = paths == [path]
    if not alone:
        paths = [path for path in paths if not Path(path).name.startswith((".", "_"))]
    found = [file for path in paths if (file := _examined(path, format, alone))]
    if not found:
        raise InputError(f"{given}: no JSONL, Parquet or text file in it.")
    return found


def _examined(path: str, format: str, alone: bool) -> ExampleFile | None:
    """Returns the file with its format; None for a file in a folder that has no examples."""
    if format in ("lines", "documents"):
        with open_file(path) as file:
            return ExampleFile(path, format, compression_of(file.read(4)))
    found = detect(file_ref(path))
    if isinstance(found, InputFile) and found.format in ("jsonl", "parquet", "text") and format in ("auto", found.format):
        kind = ("lines" if alone else "documents") if found.format == "text" else found.format
        return ExampleFile(path, kind, None if found.layout == "plain" else found.layout.split("-")[0])
    if not alone:
        return None
    if isinstance(found, InputFile):
        wanted = "JSONL, Parquet or text" if format == "auto" else format
        raise InputError(f"{path}: not a {wanted} file (it holds {found.format}).")
    raise InputError(getattr(found, "reason", f"{path}: not a JSONL, Parquet or text file."))


def read_rows(file: ExampleFile, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields `(place, row)`: the row's position for messages (`data.jsonl:12`), and its columns; of Parquet only the wanted columns.

    Raises InputError if the file or a row is damaged.
    """
    with open_file(file.path) as stream:
        if file.format == "parquet":
            yield from _parquet(file.path, stream, columns)
        elif file.format == "documents":
            content = b"".join(line for _, line in _lines(file, stream))
            yield file.path, {TEXT: _decoded(file.path, content)}
        else:
            for number, line in _lines(file, stream):
                if line.strip():
                    place = f"{file.path}:{number}"
                    text = _decoded(place, line)
                    yield place, _object(place, text) if file.format == "jsonl" else {TEXT: text.strip("\r\n")}


def _lines(file: ExampleFile, stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yields the lines of a file, numbered from 1, without a byte order mark."""
    content = inflating(stream, file.compression) if file.compression else stream
    for number, line in enumerate(split_lines(Window(content), MOST_BYTES), 1):
        if isinstance(content, Inflating) and content.fault and not line.ended:
            break  # the rest of the line is lost
        if len(line.content) < line.length:
            raise InputError(f"{file.path}:{number}: the line has {line.length:,} bytes, more than {MOST_BYTES:,}.")
        yield number, line.content.removeprefix(b"\xef\xbb\xbf") if number == 1 else line.content
    if isinstance(content, Inflating) and content.fault:
        what = "ends early" if content.fault == "truncated" else "is damaged"
        raise InputError(f"{file.path}: the compressed file {what}.")


def _decoded(place: str, content: bytes) -> str:
    try:
        return storable(content.decode("utf-8")) or ""
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: byte {error.start} is not UTF-8.") from error


def _object(place: str, text: str) -> dict[str, Any]:
    try:
        found = parse_json(text)
    except ValueError as error:
        raise InputError(f"{place}: not JSON ({str(error)[:100]}).") from error
    if not isinstance(found, dict):
        raise InputError(f"{place}: not a JSON object.")
    return found


def _parquet(path: str, stream: IO[bytes], columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with open_parquet(path, stream) as parquet:
        names = parquet.schema_arrow.names
        missing = [name for name in columns if name not in names]
        if missing:
            raise InputError(f"{path}: has no column {missing[0]!r} (it has {', '.join(names)}).")
        number = 0
        try:
            for batch in parquet.iter_batches(BATCH, columns=list(dict.fromkeys(columns)), use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", row
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0].rstrip('.')}).") from error


def fingerprint(path: str) -> dict[str, Any]:
    """Returns a file's name without its folder (folders differ between machines), its bytes and sha256."""
    digest, size = hashlib.sha256(), 0
    with open_file(path) as file:
        while part := file.read(1 << 20):
            digest.update(part)
            size += len(part)
    return {"name": Path(local_path(path)).name, "bytes": size, "sha256": digest.hexdigest()}


# ---- From a row's label columns to its answers: yes, no or unknown for each label.

YES, NO = frozenset(("1", "true", "yes")), frozenset(("0", "false", "no"))
#: A label column with more values is an error: the values are not classes.
MOST_VALUES = 100


class AnswerColumns:
    """The answers of a source's rows, as the spec defines them."""

    def __init__(self, source: ExampleSource, labels: Sequence[str]):
        self.source, self.labels = source, labels
        self.values: Mapping[str, Mapping[str, int]] = source.values or _default_values(labels)
        #: For lists of values: the answer (no) to each label that no value of a list says yes to.
        self.closed = {label: 0 for answers in self.values.values() for label, answer in answers.items() if answer}

    def columns(self) -> list[str]:
        """Returns the columns that the answers are read from."""
        return [*([self.source.label_column] if self.source.label_column else []), *self.source.label_columns.values()]

    def of(self, place: str, row: Mapping[str, Any]) -> tuple[dict[str, int], int]:
        """Returns `(answers, unknown)`: the known answers of a row by label, and how many of its columns are null."""
        found: dict[str, int] = {}
        unknown = 0
        for label, column in self.source.label_columns.items():
            value = cell(place, row, column)
            if value is None:
                unknown += 1
            elif (key := value_key(value)) in YES | NO:
                found[label] = int(key in YES)
            else:
                raise InputError(f"{place}: {column!r} is {_short(value)}, not 0 or 1.")
        if self.source.label_column:
            value = cell(place, row, self.source.label_column)
            if value is None:
                unknown += 1
            else:
                found = {**self.of_value(place, value), **found}
        return found, unknown

    def of_value(self, place: str, value: Any) -> dict[str, int]:
        """Returns the answers that a value of a label column gives."""
        if not isinstance(value, list):
            return dict(self._looked_up(place, value))
        found = dict(self.closed)
        for item in value:
            for label, answer in self._looked_up(place, item).items():
                found[label] = max(answer, found.get(label, 0))
        return found

    def _looked_up(self, place: str, value: Any) -> Mapping[str, int]:
        key = value_key(value)
        if key not in self.values:
            known = ", ".join(list(self.values)[:10])
            raise InputError(f"{place}: the label {_short(value)} is unknown (known are {known}).")
        return self.values[key]


def _default_values(labels: Sequence[str]) -> dict[str, dict[str, int]]:
    """Returns the default meaning of values: a label's name means yes to it and no to all other labels.

    If there is only one label, 1, true and yes mean yes, and 0, false and no mean no, too.
    """
    found = {label: {other: int(other == label) for other in labels} for label in labels}
    if len(labels) == 1:
        found |= {key: {labels[0]: 1} for key in sorted(YES)} | {key: {labels[0]: 0} for key in sorted(NO)}
    return found


def cell(place: str, row: Mapping[str, Any], column: str) -> Any:
    """Returns a row's value in a column. Raises InputError if the row lacks the column."""
    if column not in row:
        raise InputError(f"{place}: has no column {column!r} (it has {', '.join(safe_line(name, 40) for name in row) or 'none'}).")
    return row[column]


def _short(value: Any) -> str:
    return safe_line(repr(value), 60)


def count_values(files: Sequence[ExampleFile], column: str) -> tuple[Counter[str], dict[str, Any], bool]:
    """Counts the values of a label column: `(counts, values, many)`.

    `counts`: how often each value occurs, by its key. `values`: the values by key. `many`: whether rows have lists of values.
    """
    counts: Counter[str] = Counter()
    values: dict[str, Any] = {}
    many = False
    for value, place in _cells(files, column):
        many |= isinstance(value, list)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, list | dict):
                raise InputError(f"{place}: {column!r} is {_short(value)}, which names no class.")
            counts[key := value_key(item)] += 1
            values.setdefault(key, item)
        if len(counts) > MOST_VALUES:
            raise InputError(f"{place}: {column!r} has more than {MOST_VALUES} values, so it names no classes.")
    return counts, values, many


def _cells(files: Sequence[ExampleFile], column: str) -> Iterator[tuple[Any, str]]:
    for file in files:
        for place, row in read_rows(file, [column]):
            value = cell(place, row, column)
            if value is not None:
                yield value, place


# ---- Pieces of long documents, so that training texts have about the same length.

_WORD = re.compile(r"\S+")
#: A last piece that is shorter than this share of the others is left out, because it would be nearly empty.
SHORTEST = 0.2


def cut(texts: Sequence[str], pieces: PieceLength) -> tuple[list[str], list[int]]:
    """Cuts all texts into pieces; white space inside a piece stays.

    Returns `(pieces, documents)`; `documents`: the place of each piece's text.
    """
    found: list[str] = []
    document: list[int] = []
    for place, text in enumerate(texts):
        parts = _by_words(text, pieces.words) if pieces.words else _by_characters(text, pieces.characters or len(text))
        found += parts
        document += [place] * len(parts)
    return found, document


def _by_words(text: str, count: int) -> list[str]:
    spans = [match.span() for match in _WORD.finditer(text)]
    groups = [spans[start : start + count] for start in range(0, len(spans), count)]
    if len(groups) > 1 and len(groups[-1]) < SHORTEST * count:
        groups.pop()
    return [text[group[0][0] : group[-1][1]] for group in groups]


def _by_characters(text: str, count: int) -> list[str]:
    """Cuts a text into pieces of up to `count` characters. A piece ends before white space if its second half has any."""
    parts, at = [], 0
    while at < len(text):
        end = min(at + count, len(text))
        if end < len(text):
            space = max(text.rfind(" ", at + count // 2, end + 1), text.rfind("\n", at + count // 2, end + 1))
            end = space if space > at else end
        if piece := text[at:end].strip():
            parts.append(piece)
        at = end
    if len(parts) > 1 and len(parts[-1]) < SHORTEST * count:
        parts.pop()
    return parts


# ---- Weak answers, from whether a text has a word of a list.


def has_word(text: pa.Array, path: str) -> pa.Array:
    """Whether each text has a word of the list in the file `path` (bool). Words are found as in the step `bad_words`.

    If the list is named after a language that does not separate words (ja, th, zh), they are also found within words. Raises InputError.
    """
    words = {word.lower() for word in read_words(path)}
    if not words:
        raise InputError(f"{path}: there is no word in it.")
    name = path.replace("\\", "/").rpartition("/")[2]
    inside = canonical(name.partition(".")[0]) in map(canonical, UNSEPARATED)
    classes = np.zeros(CODE_POINTS, np.uint8) if inside else character_classes()
    data, offsets = text_buffers(usual_lower(text))
    counts = np.zeros(len(text), np.int64)
    count_words(data, offsets, np.arange(len(text)), build_trie(words), classes, True, counts)
    return pa.array(counts > 0)


# ---- A run's documents as examples: a sample that depends only on the documents' ids.

#: Documents that are taken from a run if no limit is given: a run may be of any size, and examples are in memory.
RUN_LIMIT = 20_000


@dataclass(frozen=True)
class RunDocuments:
    """The sampled texts, the number of all documents, and the shards (name, bytes, sha256)."""

    texts: list[str]
    rows: int
    files: list[dict[str, Any]]


def read_run(folder: str, stage: str, limit: int, seed: int, failed: Sequence[str] = ()) -> RunDocuments:
    """Returns `limit` documents of a finished stage: those whose ids have the smallest hashes under the seed.

    `failed`: only documents that failed one of these rules of the filter stage. Raises InputError if the run, the stage or the rule does
    not exist, or if the stage is not finished.
    """
    storage = Storage(folder)
    if not storage.exists("run.json"):
        raise InputError(not_a_run(folder))
    shards = [output for row in _finished(storage, stage) for output in row.outputs if output.path.startswith("data/")]
    files = [{"name": f"{stage}/{shard.path}", "bytes": shard.bytes, "sha256": shard.sha256} for shard in shards]
    part = storage.child(stage)
    hashes = [
        np.array([xxhash.xxh3_64_intdigest(name, seed) for name in table["id"].to_pylist()], np.uint64)
        for shard in shards
        for table in iter_tables(part, shard.path, ["id"])
    ]
    keys = np.concatenate([np.zeros(0, np.uint64), *hashes])
    wanted = np.zeros(len(keys), bool)
    able = np.flatnonzero(np.isin(keys, _failing(storage, failed, seed))) if failed else np.arange(len(keys))
    wanted[able[np.argsort(keys[able], kind="stable")[:limit]]] = True
    texts: list[str] = []
    at = 0
    for shard in shards:
        for table in iter_tables(part, shard.path, ["text"]):
            texts += table.filter(pa.array(wanted[at : at + table.num_rows]))["text"].to_pylist()
            at += table.num_rows
    return RunDocuments(texts, len(keys), files)


def _finished(storage: Storage, stage: str) -> Sequence[TaskRow]:
    """Returns the tasks of a finished stage. Raises InputError if it is not finished."""
    manifest = Manifest(storage.child(stage), read_only=True)
    if not manifest.complete:
        raise InputError(f"{storage.root}: its stage {stage} is not finished.")
    return manifest.rows()


def _failing(storage: Storage, rules: Sequence[str], seed: int) -> npt.NDArray[np.uint64]:
    """Returns the hashes, under the seed, of the ids of documents that failed one of these rules."""
    tasks = _finished(storage, "filter")
    known = sorted({name.removeprefix("failed ") for task in tasks for name in task.counts if name.startswith("failed ")})
    for rule in rules:
        if rule not in known:
            raise InputError(f"{storage.root}: its filter stage has no rule {rule!r}{instead_of(rule, known)}.")
    found: list[int] = []
    for task in tasks:
        for output in task.outputs:
            if output.path.startswith("report/"):
                for table in iter_tables(storage.child("filter"), output.path, ["id", "failed"]):
                    fails = [not set(rules).isdisjoint(names) for names in table["failed"].to_pylist()]
                    found += [xxhash.xxh3_64_intdigest(name, seed) for name in table.filter(pa.array(fails, pa.bool_()))["id"].to_pylist()]
    return np.array(found, np.uint64)


# ---- The sources of a spec as one table


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


@dataclass(frozen=True)
class ExampleTable:
    """The examples of all sources.

    `table`: text (large_string), source (string), document (int64: pieces of one document share it), and an int8 column for each label,
    null if the answer is unknown.
    """

    table: pa.Table
    labels: tuple[str, ...]
    sources: tuple[SourceReport, ...]


def gather_examples(
    sources: Sequence[ExampleSource], folder: str | Path = ".", labels: Sequence[str] | None = None, seed: int = 1
) -> ExampleTable:
    """Reads all sources. Paths are relative to `folder`. Raises InputError in one sentence that names file and line."""
    names = tuple(dict.fromkeys(labels or [label for source in sources for label in source.labels()]))
    tables, reports, documents = [], [], 0
    for source in sources:
        table, report = _read_source(source, folder, names, seed)
        shifted = pc.add(table["document"], documents)
        documents += pc.max(table["document"]).as_py() + 1 if table.num_rows else 0
        tables.append(table.set_column(2, "document", shifted))
        reports.append(report)
    return ExampleTable(pa.concat_tables(tables).combine_chunks(), names, tuple(reports))


def _read_source(source: ExampleSource, folder: str | Path, labels: tuple[str, ...], seed: int) -> tuple[pa.Table, SourceReport]:
    report = SourceReport(source.named(), source.licence)
    answers = AnswerColumns(source, labels)
    texts: list[str] = []
    known: list[dict[str, int]] = []
    if source.run:
        rows = _run_rows(source, folder, report, seed)
    elif source.labelled:
        rows = _labelled_rows(source.labelled, folder, answers, report)
    else:
        rows = _file_rows(source, folder, answers, report)
    for text, found in rows:
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
    """Counts a label's answers by yes and no."""
    yes = pc.sum(column).as_py() or 0
    return {"yes": yes, "no": len(column) - column.null_count - yes}


def _file_rows(
    source: ExampleSource, folder: str | Path, answers: AnswerColumns, report: SourceReport
) -> Iterator[tuple[str, dict[str, int]]]:
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


def _run_rows(source: ExampleSource, folder: str | Path, report: SourceReport, seed: int) -> Iterator[tuple[str, dict[str, int]]]:
    documents = read_run(str(Path(folder) / str(source.run)), source.stage, source.limit or RUN_LIMIT, seed, source.failed)
    report.files, report.rows = documents.files, documents.rows
    for text in documents.texts:
        if text.strip():
            yield text, {}
        else:
            report.empty += 1


def _labelled_rows(run: str, folder: str | Path, answers: AnswerColumns, report: SourceReport) -> Iterator[tuple[str, dict[str, int]]]:
    """Yields the texts that people have labelled, with the label that most of them gave. A text that the run no longer has counts as empty,
    one with as many votes for two labels as unanswered."""
    storage = Storage(run if is_remote(run) else str(Path(folder) / run))
    file = LabelFile(storage)
    labels = file.read().by_text()
    if not labels:
        raise InputError(f"{storage.root}: nobody has labelled a document of this run.")
    report.files, report.rows = [fingerprint(file.path)], len(labels)
    report.empty = len(labels)
    for id_, digest, text in labelled_texts(storage, labels):
        if text.strip():
            label = labels[id_, digest]
            report.empty -= 1
            yield storable(text) or "", {} if label is None else answers.of_value(f"{file.path}: {id_}", label)


def _answer_column(source: ExampleSource, label: str, known: list[dict[str, int]], text: pa.Array, folder: str | Path) -> pa.Array:
    """Returns a label's answers: from the columns, else from its word list, else the answer of the whole source."""
    column = pa.array([found.get(label) for found in known], pa.int8())
    if label in source.weak:
        hit = has_word(text, str(Path(folder) / source.weak[label]))
        column = pc.coalesce(column, pc.if_else(hit, pa.scalar(1, pa.int8()), pa.scalar(None, pa.int8())))
    if label in source.answers:
        column = pc.fill_null(column, pa.scalar(source.answers[label], pa.int8()))
    return column
