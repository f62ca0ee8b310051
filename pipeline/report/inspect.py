"""Rows of a run's reports, or of any one shard, as a table or as JSON lines."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.text import Text

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.report.histogram import number
from corpusmill.pipeline.report.read import Rule, RunReader
from corpusmill.pipeline.report.safe import safe_line
from corpusmill.pipeline.report.tables import show, table
from corpusmill.pipeline.schemas import REPORT
from corpusmill.pipeline.shards import iter_tables, open_parquet
from corpusmill.pipeline.storage import Storage

#: Values shown of a document (`why` and `--json` show all).
VALUES = 6
#: Columns that say where a record lies or why in words: no values.
NO_VALUES = {"source", "offset", "length", "reason"}
#: Stages whose report has a row a document, the one that decides most first.
REPORTED = ("filter", "dedup", "ingest", "tokens")
TOKENS_A_ROW = 16
TOKENIZER = "tokenizer/tokenizer.json"
Row = dict[str, Any]


def inspect(target: str, *, stage: str | None, rule: str | None, kept: bool | None, limit: int, as_json: bool, console: Console) -> None:
    """Shows rows of a run's report (of `stage`, else of the stage that has `rule`, else of the filter), or of one file.

    `rule` and `kept` choose rows of a report. Raises InputError for what is not there.
    """
    path = Path(target)
    if path.is_file():
        if stage is not None:
            raise InputError(f"{target}: --stage is for a run's folder, and this is one file.")
        rows, title, rules = _file_rows(path, rule, kept), target, []
    else:
        reader = RunReader(target)
        stage = _stage(reader, target, stage, rule)
        _check_rule(reader, stage, rule)
        rows, title = _chosen(reader.tables(stage, "report"), rule, kept), f"{stage}: report"
        rules = reader.rules(stage)
    shown = [row for row, _ in zip(rows, range(limit), strict=False)]
    if as_json:
        for row in shown:
            print(json.dumps(row, default=str))  # ASCII: escapes keep control characters harmless
    elif not shown:
        console.print("No such rows.")
    else:
        _print(shown, title, rules, console)


def _stage(reader: RunReader, target: str, stage: str | None, rule: str | None) -> str:
    there = [name for name in REPORTED if reader.stages[name].outputs("report/")]
    if not there:
        raise InputError(f"{target}: no stage of this run has a report yet.")
    if stage is None:
        return next((name for name in there if rule is not None and rule in _rule_names(reader, name)), there[0])
    if stage not in there:
        raise InputError(f"{target}: the stage {stage!r} has no report (there are {', '.join(there)}).")
    return stage


def _rule_names(reader: RunReader, stage: str) -> list[str]:
    names = {rule.rule for rule in reader.rules(stage)}
    for shard in reader.tables(stage, "report", ["failed"]):
        names.update(str(name) for name in pc.unique(pc.list_flatten(shard["failed"])).to_pylist())
    return sorted(names)


def _check_rule(reader: RunReader, stage: str, rule: str | None) -> None:
    if rule is not None:
        names = _rule_names(reader, stage)
        if rule not in names:
            raise InputError(f"{stage}: there is no rule {rule!r} (its rules are {', '.join(names) or 'none'}).")


def _chosen(tables: Iterator[pa.Table], rule: str | None, kept: bool | None) -> Iterator[Row]:
    """The rows of report tables that failed `rule` and were (not) kept."""
    for shard in tables:
        if kept is not None:
            shard = shard.filter(pc.equal(shard["kept"], kept))
        for row in shard.to_pylist():
            if rule is None or rule in row["failed"]:
                yield row


def _file_rows(path: Path, rule: str | None, kept: bool | None) -> Iterator[Row]:
    name = path.name.lower()
    if name.endswith(".bin"):
        return _token_rows(path)
    if name.endswith((".jsonl", ".json", ".ndjson")):
        return _json_rows(path)
    folder = Storage(str(path.parent))
    tables = iter_tables(folder, path.name)
    if rule is None and kept is None:
        return (row for shard in tables for row in shard.to_pylist())
    with open_parquet(folder, path.name) as file:
        missing = [column for column in ("kept", "failed") if column not in file.schema_arrow.names]
    if missing:
        raise InputError(f"{path}: no column {missing[0]!r}, so --rule, --kept and --dropped have no meaning here.")
    return _chosen(tables, rule, kept)


def _json_rows(path: Path) -> Iterator[Row]:
    with open(path, "rb") as file:
        for place, line in enumerate(file, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise InputError(f"{path}:{place}: not a line of JSON ({error}).") from error
                yield row if isinstance(row, dict) else {"value": row}


def _token_rows(path: Path) -> Iterator[Row]:
    """The tokens of a shard, some a row, with the text they stand for where the run's tokenizer is beside it."""
    from corpusmill.pipeline.token_bytes import TokenBytes
    from corpusmill.pipeline.tokenreader import TokenShards

    shards = TokenShards(path.parent)
    names = [shard.file for shard in shards.shards]
    if path.name not in names:
        raise InputError(f"{path}: shards.json beside it does not name this file.")
    tokens = shards.tokens(names.index(path.name))
    run = Storage(str(path.parent.parent.parent))
    names_of = TokenBytes.read(run, TOKENIZER) if run.exists(TOKENIZER) else None
    for first in range(0, len(tokens), TOKENS_A_ROW):
        ids = tokens[first : first + TOKENS_A_ROW]
        yield {"first": first, "tokens": " ".join(map(str, ids.tolist())), "text": names_of.text(ids) if names_of else ""}


def _print(rows: list[Row], title: str, rules: list[Rule], console: Console) -> None:
    """A report's rows with the decision and the values behind it; any other row as names and values."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if set(REPORT.names) <= set(names):
        made = table(title, "document", "decision")
        for row in rows:
            document = f"{safe_line(row['url'] or '', 120)}\n{safe_line(row['id'], 40)}"
            made.add_row(Text(document), _decision(row, names, rules))
        made.columns[0].min_width = 32
    else:
        made = table(title, "row", "values")
        for place, row in enumerate(rows):
            pairs = [f"{name}: {safe_line(number(value), 240)}" for name, value in row.items() if value is not None]
            made.add_row(str(place), Text("\n".join(safe_line(pair, 300) for pair in pairs)))
    for column in made.columns:
        column.no_wrap = False
    made.show_lines = True
    show(made, console)


def _decision(row: Row, names: list[str], rules: list[Rule]) -> Text:
    """Kept, or dropped by which rules; then why in words, and the values that failed, or the first ones."""
    failed = row["failed"] or []
    broken = [rule.column for rule in rules if rule.rule in failed]
    others = [name for name in names if name not in {*REPORT.names, *NO_VALUES} or name == "chars_in"]
    values = [name for name in dict.fromkeys(broken or others) if row.get(name) is not None]
    text = Text("kept", style="green") if row["kept"] else Text(f"dropped: {safe_line(', '.join(failed), 400)}", style="red")
    if row.get("reason"):
        text.append(f"\n{safe_line(row['reason'], 200)}")
    for name in values[:VALUES]:
        text.append(f"\n{name} = {safe_line(number(row[name]), 60)}", style="dim not green not red")
    return text
