"""Tests `recipe`: what it prints is a recipe that decides as the one that was named."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from corpusmill.filters.presets import PRESETS
from corpusmill.filters.worker import FilterConfig, rule_table
from corpusmill.pipeline.recipe import SHIPPED, read_recipe, validate_recipe
from corpusmill.report.answers.recipe import STAGE_PRESETS, expanded

OWN = """
ingest: {}
filter:
  preset: gopher-paper
  steps:
    - python: own.py:loud
    - quality: {keep: 0.5}
    - preset: gopher-paper
    - stop_words: {min_different: 3}
  thresholds: {gopher_short_doc: 1.0e-07, dup_line_frac: off, too loud: 9}
"""
LOUD = """
from corpusmill.filters.own import Rule, measures

@measures({"loud": "int64"}, rules=[Rule("too loud", "loud", ">", 20)])
def loud(documents):
    raise AssertionError
"""
SHIPPING = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
#: Preset and stage; FineWeb-2 needs a language, too.
PRESETS_BY_STAGE = [(name, stage) for stage, names in STAGE_PRESETS.items() for name in names]


def uncommented(text: str) -> str:
    """Returns a recipe whose thresholds are all set, to what the comments say."""
    head, line, rules = text.partition("  thresholds:")
    return head + line + re.sub(r"^    # ", "    ", rules, flags=re.MULTILINE)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(LOUD)
    (tmp_path / "own.yaml").write_text(OWN)
    return tmp_path / "own.yaml"


@pytest.mark.parametrize("name", [*SHIPPING, "own.yaml"])
def test_what_is_printed_is_the_recipe(name: str, own: Path, corpusmill: Callable[..., tuple[int, bytes, str]]) -> None:
    given = str(own) if name == "own.yaml" else name
    code, out, _ = corpusmill("recipe", given, *(["--trust"] if name == "own.yaml" else []))
    saved = own.with_name("saved.yaml")
    saved.write_bytes(out)
    meant = read_recipe(given if name == "own.yaml" else str(SHIPPED / f"{name}.yaml"))
    assert code == 0 and read_recipe(str(saved)) == meant
    for stage, section in meant.items():
        assert validate_recipe(yaml.safe_load(expanded(given, stage, trust=True)), "saved.yaml") == {stage: section}


@pytest.mark.parametrize(("name", "stage"), PRESETS_BY_STAGE)
def test_a_preset_is_printed_as_it_decides(name: str, stage: str) -> None:
    language = {"language": "hin"} if name == "fineweb-2" else {}
    text = expanded(name, stage, [f"filter.{key}={value}" for key, value in language.items()])
    more = {"alarm": "warn"} if (name, stage) == ("fineweb", "dedup") else {}  # of the recipe with this name
    assert validate_recipe(yaml.safe_load(text), "saved.yaml") == validate_recipe(
        {stage: {"preset": name, **language, **more}}, "recipe.yaml"
    )


@pytest.mark.parametrize("name", [*PRESETS, "own.yaml"])
def test_each_rule_stands_there_with_its_threshold(name: str, own: Path) -> None:
    """Without the # nothing changes, except that thresholds no longer follow the options of steps."""
    text = expanded(str(own) if name == "own.yaml" else name, "filter", trust=True)
    before, after = (FilterConfig.model_validate(yaml.safe_load(each)["filter"]) for each in (text, uncommented(text)))
    rules = {each.rule.name: each.rule.threshold for each in rule_table(before) if isinstance(each.rule.threshold, int | float)}
    assert set(rules) - {"quality"} <= set(after.thresholds) and repr(rule_table(after)) == repr(rule_table(before))


def test_a_run_shows_its_recipe_and_loads_no_code(marked_run: Path, tmp_path: Path, own: Path) -> None:
    text, stored = expanded(str(marked_run)), json.loads((marked_run / "run.json").read_text())["recipe"]
    assert {name: section.model_dump(mode="json") for name, section in validate_recipe(yaml.safe_load(text), "r.yaml").items()} == stored
    assert re.search(r"^    # gopher_short_doc: 50 +# fewer than 50 words$", text, re.MULTILINE)
    (own.parent / "own.py").write_text("raise SystemExit('loaded')")
    steps = [{"python": {"function": f"{own.parent}/own.py:loud"}}, {"c4": "\u202e\x1b[0m"}]
    odd: list[Any] = [
        {"steps": steps, "thresholds": {"\u202e": None}},
        {"steps": [1, None, "x", {}], "thresholds": 3},
        {"steps": 7},
        5,
        None,
    ]
    for section in odd:
        (tmp_path / "run.json").write_text(json.dumps({"inputs": [], "recipe": {"filter": section}}))
        text = expanded(str(tmp_path))
        assert "\u202e" not in text and "\x1b" not in text
        found = yaml.safe_load(text)["filter"]
        assert found == section or found == {**section, "thresholds": {"\u202e": False}}
