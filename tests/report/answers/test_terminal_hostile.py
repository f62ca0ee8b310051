"""Tests that no text of a crawl, recipe or folder name can move a cursor, set a title or reverse text on a terminal."""

import sys
import unicodedata
from pathlib import Path

import pyarrow as pa
import pytest
from built_run import RunBuilder

from corpusmill import cli
from corpusmill.pipeline.safe import safe_text

PIECES = ["\x1b[2J", "\x1b]0;t\x07", "\x9b31m", "\u202e", "\u2066", "\x08", "\r", "\x7f", "\u2028", "\u200b", "<b>", "[red]", "a", "=1"]
PARTS = ("column", "rule", "url", "text", "source", "language", "reason", "folder")


def write_run(folder: Path, nasty: dict[str, str]) -> str:
    run = RunBuilder(folder)
    column, rule = f"value{nasty['column']}", f"rule{nasty['rule']}"
    same = {"url": f"http://host/{nasty['url']}", **{n: nasty[n] for n in ("source", "language", "reason")}}
    rows = [
        {
            **same,
            "failed": [] if number > 1 else [rule],
            column: float(number),
            "id": f"{number:032x}",
            "text": f"some {nasty['text']} {number}",
        }
        for number in range(4)
    ]
    added = [pa.field(column, pa.float64()), *(pa.field(name, pa.string()) for name in ("language", "source", "reason"))]
    rules = [{"step": nasty["rule"], "rule": rule, "column": column, "comparison": "<", "threshold": 2}]
    run.json("run.json", {"inputs": [nasty["source"]], "recipe": {"filter": {nasty["column"]: nasty["text"]}}})
    run.decide("ingest", [[{**row, "failed": []} for row in rows]], added)
    run.decide("filter", [rows], added, [pa.field("language", pa.string())], rules)
    return str(folder)


def commands(run: str, other: str, nasty: dict[str, str]) -> list[list[str]]:
    column, rule = f"value{nasty['column']}", f"rule{nasty['rule']}"
    inspect = [["--order", column, "--rule", rule], ["--json"], ["--columns", f"url,language,source,id,{column}"], ["--rule", f"no {rule}"]]
    return [
        *(["inspect", run, *options] for options in inspect),
        ["inspect", f"{run}/filter/report/part-00000.parquet"],
        ["sample", run, "--rule", rule, "--near"],
        *(["why", run, document] for document in ("0" * 32, f"some {nasty['text']}", f"http://host/{nasty['url']}no")),
        *(["diff", run, second] for second in (other, f"{run}x")),
    ]


def test_no_command_passes_a_control_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    nasty = dict.fromkeys(PARTS, "".join(PIECES))
    run = write_run(tmp_path / f"run {nasty['folder'].replace('/', '')}", nasty)
    other = write_run(tmp_path / "other", {**nasty, "text": "x", "source": "y"})
    for command in commands(run, other, nasty):
        monkeypatch.setattr(sys, "argv", ["corpusmill", *command])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        said = captured.out + captured.err
        assert said and code in (0, 2) and "Traceback" not in said, command
        assert not [c for c in said if unicodedata.category(c) == "Cc" and c not in "\n\t"], command
        assert safe_text(said) == said, command
