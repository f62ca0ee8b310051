"""`corpusmill classifier score`: a row of scores for each text of many files, written as it is read."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.filters.classifier.answers import cell
from corpusmill.filters.classifier.card import read_classifier
from corpusmill.filters.classifier.rows import TEXT, File, find_files, read_rows
from corpusmill.filters.classifier.scorer import HeadScores, LoadedHead, Scorer, load_heads
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.shards import ROW_GROUP_ROWS
from corpusmill.pipeline.storage import Storage

#: Texts, and characters of them, that are in memory at a time.
TEXTS, CHARACTERS = 2048, 1 << 24
#: What stands before the columns of the labels: the file as it was found, the row in it from 1, and its id where it has one.
PLACE = (pa.field("file", pa.string()), pa.field("row", pa.int64()), pa.field("id", pa.string()))


def score_files(folder: str | Path, files: Sequence[str], output: str, text_column: str = TEXT, id_column: str = "id") -> dict[str, int]:
    """Writes the scores of all texts of JSONL, Parquet and text files to `output` (Parquet), in the order of the files.

    A row has `file, row, id`, and for each label LABEL (yes or no, as its threshold decides), LABEL_score, LABEL_raw and LABEL_share; null
    where the text holds nothing that the model knows, or is missing. Returns how many texts there were (`texts`), how many have no score
    (`without_score`), and the number of yes by label. Equal files give equal bytes. Raises InputError in one sentence.
    """
    heads = load_heads(folder, read_classifier(folder))
    found = [file for given in files for file in find_files(given, ".")]
    target = Path(output)
    if any(Path(file.path).resolve() == target.resolve() for file in found):
        raise InputError(f"{output}: is one of the files to score.")
    schema = score_schema([head.label for head in heads])
    counts = {"texts": 0, "without_score": 0, **{head.label: 0 for head in heads}}
    scorer = Scorer(heads)
    with (
        Storage(str(target.parent)).write_atomic(target.name) as sink,
        pq.ParquetWriter(sink, schema, compression="zstd", compression_level=3, use_dictionary=["file"]) as writer,
    ):
        pending: list[pa.Table] = []
        for rows in _batches(found, text_column, id_column):
            table = _scored(rows, scorer, heads, schema)
            _count(table, heads, counts)
            pending.append(table)
            while sum(len(each) for each in pending) >= ROW_GROUP_ROWS:
                whole = pa.concat_tables(pending).combine_chunks()
                writer.write_table(whole.slice(0, ROW_GROUP_ROWS), ROW_GROUP_ROWS)
                pending = [whole.slice(ROW_GROUP_ROWS)]
        writer.write_table(pa.concat_tables([schema.empty_table(), *pending]).combine_chunks(), ROW_GROUP_ROWS)
    return counts


def score_schema(labels: Sequence[str]) -> pa.Schema:
    """The columns of a file of scores."""
    kinds = {"": pa.bool_(), "_score": pa.float64(), "_raw": pa.float64(), "_share": pa.float64()}
    fields = [*PLACE, *(pa.field(f"{label}{ending}", kind) for label in labels for ending, kind in kinds.items())]
    names = [field.name for field in fields]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"scores: two columns would have the name {name!r}.")
    return pa.schema(fields)


def _batches(files: Sequence[File], text_column: str, id_column: str) -> Iterator[list[dict[str, Any]]]:
    """The rows of all files (file, row, id, text), some at a time."""
    batch: list[dict[str, Any]] = []
    size = 0
    for row in (row for file in files for row in _rows(file, text_column, id_column)):
        batch.append(row)
        size += len(row["text"] or "")
        if len(batch) >= TEXTS or size >= CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _rows(file: File, text_column: str, id_column: str) -> Iterator[dict[str, Any]]:
    tabular = file.format in ("jsonl", "parquet")
    column = text_column if tabular else TEXT
    wanted = [column]
    if file.format == "parquet" and id_column in _names(file):
        wanted.append(id_column)
    for number, (place, row) in enumerate(read_rows(file, wanted), 1):
        text = cell(place, row, column)
        if text is not None and not isinstance(text, str):
            raise InputError(f"{place}: {column!r} is no text ({type(text).__name__}).")
        name = row.get(id_column) if tabular else None
        yield {"file": file.path, "row": number, "id": None if name is None else str(name), "text": text}


def _names(file: File) -> list[str]:
    from corpusmill.pipeline.files import open_file
    from corpusmill.pipeline.formats.parquet import open_parquet

    with open_file(file.path) as stream, open_parquet(file.path, stream) as parquet:
        return list(parquet.schema_arrow.names)


def _scored(rows: list[dict[str, Any]], scorer: Scorer, heads: Sequence[LoadedHead], schema: pa.Schema) -> pa.Table:
    text = pa.array([row["text"] or "" for row in rows], pa.large_string())
    columns = {field.name: pa.array([row[field.name] for row in rows], field.type) for field in PLACE}
    for head, found in zip(heads, scorer.score(text), strict=True):
        columns |= _columns(head, found)
    return pa.table(columns, schema)


def _columns(head: LoadedHead, found: HeadScores) -> dict[str, pa.Array]:
    values = {"_score": found.score, "_raw": found.raw, "_share": found.share}
    columns = {f"{head.label}{ending}": pa.array(value, pa.float64(), from_pandas=True) for ending, value in values.items()}
    known = columns[f"{head.label}_score"].is_valid()
    return {head.label: pa.array(found.score >= head.threshold, mask=~known.to_numpy(zero_copy_only=False)), **columns}


def _count(table: pa.Table, heads: Sequence[LoadedHead], counts: dict[str, int]) -> None:
    counts["texts"] += table.num_rows
    counts["without_score"] += table[heads[0].label].null_count
    for head in heads:
        counts[head.label] += int(table[head.label].fill_null(False).to_numpy().sum())
