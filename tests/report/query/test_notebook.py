"""Executes the examples of docs/guides/python.md unchanged."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from built_run import HOSTILE

PAGE = (Path(__file__).parents[3] / "docs" / "guides" / "python.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.S)
SHELL = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) for line in block.splitlines()]


@pytest.fixture(autouse=True)
def demo(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(run_folder, tmp_path / "runs" / "demo")
    monkeypatch.chdir(tmp_path)


def executed(example: int) -> dict[str, Any]:
    """Returns the names that an example defines."""
    names: dict[str, Any] = {}
    exec(compile(PYTHON[example], f"example {example}", "exec"), names)
    return names


def test_pandas(run_folder: Path) -> None:
    most = executed(0)["most"]
    rows = ds.dataset(run_folder / "filter/report").to_table().to_pylist()
    pairs = [(row["language"], rule) for row in rows for rule in row["failed"]]
    assert most.to_dict() == {pair: pairs.count(pair) for pair in pairs} and len(pairs) == 12


def test_polars(run_folder: Path) -> None:
    summary = executed(1)["summary"]
    frame = ds.dataset(run_folder / "filter/report").to_table().to_pandas()
    assert summary.rows() == [(kept, len(part), part["chars_in"].median()) for kept, part in frame.groupby("kept")]


def test_arrow(run_folder: Path) -> None:
    pages = executed(2)["pages"].to_pylist()
    rows = ds.dataset(run_folder / "filter/report").to_table().to_pylist()
    expected = [row for row in rows if len(row["failed"]) == 1 and row["language"] == "en"]
    expected.sort(key=lambda row: (-row["chars_in"], row["id"]))
    assert [(page["url"], page["rule"]) for page in pages] == [(row["url"], row["failed"][0]) for row in expected] != []
    assert all(len(page["text"]) == row["chars_in"] for page, row in zip(pages, expected, strict=True))
    assert any(HOSTILE in page["text"] for page in pages) == any(row["url"].startswith("http://evil") for row in expected)


def test_the_examples_above_are_the_first_three() -> None:
    assert len(PYTHON) == 7  # tests/test_docs.py executes the others


@pytest.mark.parametrize("line", SHELL)
def test_commands(corpusmill, line: str) -> None:
    name, *arguments = shlex.split(line)
    code, out, err = corpusmill(*arguments)
    assert name == "corpusmill" and code == 0 and out and not err


def test_every_table_of_the_page_is_one(run_folder: Path) -> None:
    import corpusmill

    names = corpusmill.open_run(str(run_folder)).names
    told = re.findall(
        r"`((?:ingest|filter|dedup|tokens|pretrain|sft|align)_\w+|rules|settings|versions|stages|tasks|outputs|metrics)`", PAGE
    )
    assert len(set(told)) > 15 and set(told) <= set(names)
