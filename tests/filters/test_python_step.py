"""Tests users' functions as steps: from files and modules, on Ray too, with one sentence for each mistake."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corpusmill.filters.rules import METADATA_KEY
from corpusmill.pipeline.errors import ConfigError, CorpusmillError
from corpusmill.pipeline.recipe import read_recipe, validate_recipe
from corpusmill.pipeline.shards import read_table

LOUD = """
import pyarrow.compute as pc

from corpusmill.filters.own import Rule, measures


@measures({"exclamations": "int64"}, rules=[Rule("too_loud", "exclamations", ">", 2)])
def loud(documents, mark="!"):
    return {"exclamations": pc.count_substring(documents["text"], mark)}


@measures({"twice": "float64"}, rewrites=True)
def shout(documents):
    assert "exclamations" in documents.column_names
    return {"twice": pc.multiply(documents["exclamations"], 2), "text": pc.utf8_upper(documents["text"])}


def plain(documents):
    return {"length": [len(text) for text in documents["text"].to_pylist()]}


@measures({"x": "int64"})
def short(documents):
    return {"x": [1]}


@measures({"x": "int64"})
def other(documents):
    return {"y": [0] * len(documents)}


@measures({"x": "int64"})
def words(documents):
    return {"x": ["one"] * len(documents)}


@measures({"x": "int64"})
def nothing(documents):
    return None


@measures({"x": "int64"})
def broken(documents):
    return {"x": documents["no such column"]}
"""
TEXTS = ["quiet", "loud!!!", "so! so!", "!!!!!"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "filters" / "own.py"
    path.parent.mkdir()
    path.write_text(LOUD)
    return path


@pytest.mark.parametrize("engine", ["inline", pytest.param("ray", marks=pytest.mark.long)])
def test_in_the_stage(tmp_path: Path, file: Path, make_documents, finished_ingest, run_filter, request, engine: str) -> None:
    steps = [{"python": f"{file}:loud"}, {"python": {"function": f"{file}:shout"}}, "gopher_repetition"]
    run = finished_ingest(tmp_path / "run", [make_documents(TEXTS), make_documents([])])
    ray = request.getfixturevalue("ray_engine") if engine == "ray" else None
    if ray:
        ray.connect()  # so few tasks would not start Ray
    done = run_filter(run, {"steps": steps, "thresholds": {"too_loud": 4, **dict.fromkeys(f"top_{n}_gram" for n in (2, 3, 4))}}, ray)
    report = read_table(done.storage, "report/part-00000.parquet")
    assert report["exclamations"].to_pylist() == [0, 3, 2, 5] and report["twice"].to_pylist() == [0, 6, 4, 10]
    assert json.loads(report.schema.metadata[METADATA_KEY])[0] == {
        "step": "python:loud", "rule": "too_loud", "column": "exclamations", "comparison": ">", "threshold": 4,
    }  # fmt: skip
    assert report["failed"].to_pylist() == [[], [], [], ["too_loud"]]
    assert read_table(done.storage, "data/part-00000.parquet")["text"].to_pylist() == ["QUIET", "LOUD!!!", "SO! SO!"]


def test_options_rules_and_columns_of_the_recipe(tmp_path: Path, file: Path, make_documents, finished_ingest, run_filter) -> None:
    steps = [
        {"python": {f"{file}:loud": {"mark": "o"}}},
        {
            "python": {
                "function": f"{file}:plain",
                "columns": {"length": "int64"},
                "rules": [{"name": "too_long", "column": "length", "comparison": ">=", "threshold": 7}],
            }
        },
    ]
    done = run_filter(finished_ingest(tmp_path / "run", [make_documents(TEXTS)]), {"steps": steps})
    report = read_table(done.storage, "report/part-00000.parquet")
    assert report["exclamations"].to_pylist() == [0, 1, 2, 0] and report["length"].to_pylist() == [5, 7, 7, 5]
    assert report["failed"].to_pylist() == [[], ["too_long"], ["too_long"], []]


def test_paths_are_relative_to_the_recipe(tmp_path: Path, file: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("filter:\n  steps:\n    - python: filters/own.py:loud\n")
    section = read_recipe(str(recipe))["filter"].model_dump(mode="json")
    assert section["steps"][0]["python"]["function"] == f"{file}:loud"
    assert validate_recipe({"filter": section}, "elsewhere/run.json")["filter"].model_dump(mode="json") == section
    assert json.loads(json.dumps(section)) == section


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("short", r"own\.py:short: the column x has 1 value for 4 documents"),
        ("other", r"own\.py:other: gave the columns y, and declares x"),
        ("words", r"own\.py:words: the column x is not int64"),
        ("nothing", r"own\.py:nothing: has to give a mapping of columns, not NoneType"),
        ("broken", r"own\.py:broken: KeyError: .*no such column.*, line \d+"),
    ],
)
def test_what_goes_wrong_in_it(
    tmp_path: Path, file: Path, make_documents, finished_ingest, run_filter: Callable, name: str, message: str
) -> None:
    with pytest.raises(CorpusmillError, match=message):
        run_filter(finished_ingest(tmp_path / "run", [make_documents(TEXTS)]), {"steps": [{"python": f"{file}:{name}"}]})


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("nowhere.py:f", r"filter\.steps\.0\.python: .*nowhere\.py: can't be read \(No such file or directory\)"),
        ("FILE:nothing_there", "has no function 'nothing_there'"),
        ("FILE", "expected `path/to/file.py:name`"),
        ("FILE:plain", "has no @measures decorator"),
        ({"FILE:loud": {"tone": 1}}, "options: got an unexpected keyword argument 'tone'"),
        ({"function": "FILE:plain", "columns": {"x": "floating"}}, "a type that Arrow does not know: 'floating'"),
        ({"function": "FILE:plain", "columns": {"id": "int64"}}, "steps: two columns have the name id"),
    ],
)
def test_what_it_refuses(file: Path, item: Any, message: str) -> None:
    item = json.loads(json.dumps(item).replace("FILE", str(file)))
    with pytest.raises(ConfigError, match=message):
        validate_recipe({"filter": {"steps": [{"python": item}]}}, "recipe.yaml")


def test_a_file_that_does_not_load(tmp_path: Path) -> None:
    for text, message in (("def f(:\n", "SyntaxError"), ("\nimport no_such_library\n", r"ModuleNotFoundError: .*, line 2")):
        (tmp_path / "bad.py").write_text(text)
        with pytest.raises(ConfigError, match=rf"bad\.py: can't be loaded \({message}"):
            validate_recipe({"filter": {"steps": [{"python": f"{tmp_path}/bad.py:f"}]}}, "recipe.yaml")
