"""Tests errors in recipes: each is reported with its place and the expected value."""

from pathlib import Path

import pytest

from corpusmill.pipeline.errors import ConfigError, InputError
from corpusmill.pipeline.recipe import STAGES, apply_override, read_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


@pytest.fixture
def recipe(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "r.yaml"
        path.write_text(text)
        return str(path)

    return write


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipes_that_ship_are_valid(path):
    sections = read_recipe(str(path))
    assert list(sections) == [name for name in STAGES if name in sections]
    assert "ingest" in sections or (next(iter(sections)) == "sft" and sections["sft"].model)  # a model of another run is tuned


def test_order_is_the_mills_whatever_the_file_says(recipe):
    assert list(read_recipe(recipe("dedup: {}\ningest: {}\n"))) == ["ingest", "dedup"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ingests: {}", r"r\.yaml: ingests: no such stage \(did you mean ingest\? expected one of ingest, filter"),
        ("ingest: {task_mbs: 3}", r"r\.yaml: ingest\.task_mbs: unknown key \(did you mean task_mb\?"),
        ("ingest: {task_mb: many}", r"r\.yaml: ingest\.task_mb: .*valid integer.*, not 'many'"),
        ("ingest: [", r"r\.yaml:\d+: not valid YAML"),
    ],
)
def test_faults_are_named_with_their_place(recipe, text, sentence):
    with pytest.raises(ConfigError, match=sentence):
        read_recipe(recipe(text))


def test_a_recipe_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(InputError, match="none.yaml: can't be read"):
        read_recipe(str(tmp_path / "none.yaml"))
    (tmp_path / "b.yaml").write_bytes(b"ingest: \xff\n")
    with pytest.raises(InputError, match="byte 8 is not"):
        read_recipe(str(tmp_path / "b.yaml"))


def test_overrides_reach_sections_lists_and_new_keys():
    raw = {"filter": {"steps": [{"language": {"keep": ["en"]}}]}}
    apply_override(raw, "filter.steps.0.language.threshold=0.8")
    apply_override(raw, "dedup.exact=false")
    assert raw == {"filter": {"steps": [{"language": {"keep": ["en"], "threshold": 0.8}}]}, "dedup": {"exact": False}}


@pytest.mark.parametrize("override", ["novalue", "filter.steps.7.x=1", "a=["])
def test_overrides_that_do_not_fit_are_refused(override):
    with pytest.raises(ConfigError, match="--set"):
        apply_override({"filter": {"steps": [{"a": 1}]}}, override)
