"""Tests the files that describe the project: one version everywhere, a README that a stranger can read, the notebook."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import corpusmill

ROOT = Path(__file__).resolve().parent.parent


def test_one_version_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version == corpusmill.__version__ == yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    newest = re.search(r"^## (\S+), ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None and newest[1] == version


def test_the_readme_is_short_and_has_its_pictures() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150 and len(text.split()) <= 1500
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert len(pictures) == 2 and all((ROOT / path).stat().st_size < 150_000 for path in pictures)


@pytest.mark.long
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the notebook's cells in order, its shell lines with the package under test, and looks at what the reader sees."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    printed = []
    for cell in json.loads((ROOT / "docs/five_minutes.ipynb").read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and source.startswith("!corpusmill "):
            command = [sys.executable, "-m", "corpusmill", *shlex.split(source)[1:]]
            printed.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        elif cell["cell_type"] == "code" and not source.startswith("%pip"):
            exec(compile(source, "five_minutes.ipynb", "exec"), names)
    assert "filter: dropped" in printed[0] and "no longer go on" in printed[1]
    kept, dropped = names["kept"], names["dropped"]
    assert 10 < len(kept) < len(names["pages"]) - len(dropped) and kept["text"].is_unique
    assert "https://docs.example/await" in set(dropped["url"])
