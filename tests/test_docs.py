"""Tests README, SECURITY and docs: links resolve, commands, their options and imports exist, recipes in examples are valid."""

import importlib
import re
import textwrap
from pathlib import Path

import pytest
import typer
import yaml

from corpusmill.cli import app
from corpusmill.pipeline.errors import ConfigError
from corpusmill.pipeline.recipe import STAGES, validate_recipe

ROOT = Path(__file__).resolve().parent.parent
PAGES = {str(path.relative_to(ROOT)): path for path in (ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md")))}
#: Examples name files that are not here: these errors of the recipe's reader do not concern its options.
ELSEWHERE = re.compile(r"can't be read|64 hexadecimal digits|no such folder|can't be loaded")


@pytest.mark.parametrize("page", PAGES)
def test_links(page: str) -> None:
    for link in re.findall(r"\]\((?!http)([^)\s]+)\)", prose(PAGES[page])):
        path, _, anchor = link.partition("#")
        target = PAGES[page].parent / path if path else PAGES[page]
        assert target.exists(), link
        assert not anchor or anchor in {slug(title) for title in re.findall(r"^#+ (.*)$", prose(target), re.MULTILINE)}, link


def prose(path: Path) -> str:
    return re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)


def slug(title: str) -> str:
    """Returns the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_commands(page: str) -> None:
    root = typer.main.get_command(app)
    for line in re.findall(r"corpusmill ([a-z][^\n`|#;&]*)", PAGES[page].read_text().replace("\\\n", " ")):
        command, words = root, line.split()
        while getattr(command, "commands", None):
            name = words[0] if words and words[0] in command.commands else {"tokens": "encode", "sft": "tune"}.get(command.name or "")
            if name is None:
                break
            command, words = command.commands[name], words[words[:1] == [name] :]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert not {word for word in words if re.fullmatch(r"--[a-z-]+", word)} - known, line


@pytest.mark.parametrize("page", PAGES)
def test_recipes(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for block in re.findall(r"```yaml\n(.*?)```", PAGES[page].read_text(), re.DOTALL):
        example = yaml.safe_load(textwrap.dedent(block))
        recipe = {"filter": {"steps": example}} if isinstance(example, list) else example
        if set(recipe) <= set(STAGES):
            try:
                validate_recipe(recipe, "recipe.yaml")
            except ConfigError as error:
                assert all(ELSEWHERE.search(fault) for fault in str(error).split("; ")), error


@pytest.mark.parametrize("page", PAGES)
def test_imports(page: str) -> None:
    for module, names in re.findall(r"^from (corpusmill\S*) import ([\w, ]+)", PAGES[page].read_text(), re.MULTILINE):
        loaded = importlib.import_module(module)
        assert [name for name in names.strip().split(", ") if not hasattr(loaded, name)] == [], module
