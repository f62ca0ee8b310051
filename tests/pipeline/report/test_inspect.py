import io
import json
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.report.choose import Choice
from corpusmill.pipeline.report.inspect import Wanted, inspect


def look(target: Path | str, width: int = 80, stage: str | None = None, form: str = "table", limit: int = 100, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=width)
    names = {"columns", "order", "descending", "offset"}
    given = {name: value for name, value in options.items() if name in names}
    choice = Choice(**{name: value for name, value in options.items() if name not in names})
    inspect(str(target), stage, Wanted(choice, limit=limit, form=form, **given), console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_json_rows_are_the_reports_rows(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    look(run_folder, stage="filter", rules=("symbols",), form="json")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    table = ds.dataset(run_folder / "filter" / "report").to_table().to_pylist()
    assert rows == [row for row in table if "symbols" in row["failed"]] and len(rows) == 4


@pytest.mark.parametrize(("kept", "count"), [(True, 45), (False, 11), (None, 56)])
def test_kept_and_dropped(run_folder: Path, capsys: pytest.CaptureFixture[str], kept: bool | None, count: int) -> None:
    look(run_folder, stage="filter", kept=kept, form="json")
    assert len(capsys.readouterr().out.splitlines()) == count


def test_the_stage_follows_from_the_rule(run_folder: Path) -> None:
    assert look(run_folder, rules=("near_duplicate",)).startswith("dedup: report")
    assert look(run_folder, rules=("never",)).strip() == "No such rows."


def test_the_table_is_harmless_and_fits(run_folder: Path) -> None:
    text = look(run_folder, rules=("language",))
    assert "evil.test" in text and "language_score = 0.5" in text
    assert not any(c in text for c in "\x1b\u202e")
    assert max(map(len, text.splitlines())) <= 80


def test_one_file(run_folder: Path, tmp_path: Path) -> None:
    assert "word4x0" in look(run_folder / "ingest" / "data" / "part-00000.parquet", limit=1)
    assert "first: 16" in look(run_folder / "tokens" / "train" / "tokens-00000.bin", limit=2)
    (tmp_path / "a.jsonl").write_text('{"text": "one \\u001b[2J"}\n\n[2]\n')
    assert "text: one" in look(tmp_path / "a.jsonl") and "\x1b" not in look(tmp_path / "a.jsonl")


def test_what_can_not_be_looked_at(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"a": 1}\nno json\n')
    (tmp_path / "bad.parquet").write_text("no parquet")
    pq.write_table(pq.read_table(run_folder / "tokens" / "train" / "tokens-00000.index.parquet"), tmp_path / "plain.parquet")
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (tmp_path / "bad.jsonl", {}, "bad.jsonl:2: not a line of JSON"),
        (tmp_path / "bad.parquet", {}, "not a readable Parquet file"),
        (tmp_path / "plain.parquet", {"kept": True}, "no column 'kept'"),
        (tmp_path / "plain.parquet", {"stage": "filter"}, "--stage is for a run's folder"),
        (tmp_path / "missing", {}, "not a run's folder"),
        (run_folder, {"stage": "pretrain"}, "has no report"),
        (run_folder, {"rules": ("nope",), "stage": "filter"}, "there is no rule 'nope'"),
    ]
    for target, options, message in cases:
        with pytest.raises(InputError, match=message.replace("(", r"\(")):
            look(target, **options)
