"""Tests steps by name: their options, their places in a recipe, and their display."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models

from corpusmill.filters.step import OTHERS, STEPS, DocumentBatch, build_steps, resolve_step
from corpusmill.filters.worker import FilterConfig
from corpusmill.pipeline.config import config_digest
from corpusmill.pipeline.errors import ConfigError
from corpusmill.pipeline.recipe import validate_recipe

# ---- step


# ---- registry


@pytest.fixture
def options(name: str, tmp_path: Path) -> dict[str, str]:
    """Returns the options that a step needs where there is no network."""
    (tmp_path / "en").write_text("badword\n")
    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2, "?": 3}, [("a", "b")], unk_token="?"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    needed = {"bad_words": {"lists": str(tmp_path)}, "token_ratio": {"tokenizer": str(tmp_path / "tokenizer.json")}}
    return needed.get(name, {})


# `quality` is trained first, where it is not in the cache
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name == "quality")) for name in STEPS if name not in OTHERS]
)
def test_every_step_gives_the_columns_it_names_and_a_text_the_same_values_in_any_batch(
    name: str, options: dict[str, str], lid_model: str, hard_texts: list[str]
) -> None:
    (step,) = build_steps([resolve_step({name: options})])
    step.step.setup()

    def measure(texts: list[str]) -> tuple[dict[str, list[Any]], list[str]]:
        measured = step.step.measure(DocumentBatch(pa.table({}), pa.array(texts, pa.large_string()), "words"))
        columns = {column: pa.array(measured.columns[column], kind).to_pylist() for column, kind in step.columns.items()}
        return columns, texts if measured.text is None else measured.text.to_pylist()

    columns, texts = measure(hard_texts)
    assert list(columns) == list(step.columns)
    assert all(len(values) == len(hard_texts) == len(texts) for values in columns.values())
    assert {rule.rule.column for rule in step.rules} <= set(columns)
    assert set(step.step.document_columns) <= set(columns)
    assert step.step.rewrites or texts == hard_texts
    assert measure([])[1] == []
    for place, text in enumerate(hard_texts):
        alone, new = measure([text])
        assert new == [texts[place]]
        assert repr({key: values[place] for key, values in columns.items()}) == repr({key: values[0] for key, values in alone.items()})


def test_a_second_step_of_a_kind_has_names_of_its_own() -> None:
    first, second = build_steps([resolve_step("gopher_quality"), resolve_step("gopher_quality")])
    assert (first.name, second.name) == ("gopher_quality", "gopher_quality_2")
    assert not set(first.columns) & set(second.columns)
    assert second.rules[0].rule.column == "gopher_words_2" and second.rules[0].rule.name == "gopher_short_doc_2"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"steps": ["langauge"]}, r"filter\.steps\.0: no such step \(did you mean language\?\)"),
        ({"steps": [{"c4": {}}, {"language": {"kep": 1}}]}, r"filter\.steps\.1\.language\.kep: unknown key \(did you mean keep\? "),
        ({"steps": [{"language": {"threshold": 2}}]}, r"filter\.steps\.0\.language\.threshold: input should be less than"),
        ({"steps": [{"fineweb_quality": {"preset": "gopher-paper"}}]}, r"preset: input should be 'datatrove-0\.10' or 'fineweb'"),
        ({"steps": [{"language": {}, "c4": {}}]}, "a step is one name with its options"),
        ({"steps": "language"}, r"filter\.steps: input should be a valid list"),
        ({"steps": ["c4"], "thresholds": {"gopher_short_doc": 1}}, r"thresholds\.gopher_short_doc: no such rule \(expected one of lorem"),
        ({"word_rule": "spaces"}, r"filter\.word_rule: 'spaces' is no word rule \(did you mean spacy\?"),
    ],
)  # fmt: skip
def test_faults_of_a_recipe_are_named_with_their_place(section: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate_recipe({"filter": section}, "recipe.yaml")


def test_a_configuration_loads_no_heavy_library() -> None:
    code = (
        "import sys; from corpusmill.filters.worker import FilterConfig; "
        "FilterConfig(steps=['language', 'c4', 'pii', 'gopher_quality', 'gopher_repetition', 'fineweb_quality', 'quality', "
        "'dolma', 'dclm', 'redpajama', 'nemo', 'stop_words', 'token_ratio', 'compression', 'encoding_damage']); "
        "print([m for m in ('fasttext', 'torch', 'ray', 'datatrove', 'tokenizers') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


# ---- The place of a recipe's files is no part of a task's identity; their content is.

STEP = """
from corpusmill.filters.own import measures

@measures(columns={"one": "int64"})
def one(batch, times=1):
    return {"one": [times] * len(batch)}
"""


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "steps.py").write_text(STEP)
    return [tmp_path / "here", tmp_path / "there"]


def config(folder: Path, **options: object) -> FilterConfig:
    steps = [{"python": {"function": "steps.py:one", "options": options}}]
    return FilterConfig.model_validate({"steps": steps}, context={"folder": str(folder)})


def test_the_same_files_elsewhere_are_the_same_configuration_and_other_content_is_not(folders: list[Path]) -> None:
    here, there = (config(folder) for folder in folders)
    assert here.steps != there.steps  # each names its own file
    assert config_digest(here) == config_digest(there)
    assert config_digest(here) != config_digest(config(folders[1], times=2))
    digests = [[d for step in build_steps(config(folder).steps) for d in step.step.model_digests()] for folder in folders]
    assert digests[0] == digests[1] and len(digests[0]) == 1
    (folders[1] / "steps.py").write_text(STEP + "# changed\n")
    assert [d for step in build_steps(config(folders[1]).steps) for d in step.step.model_digests()] != digests[0]


# ---- steps view


def test_the_list_and_a_step_by_name(corpusmill: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = corpusmill("steps")
    assert code == 0
    assert all(f"{name} " in out.decode() for name in STEPS) and "fineweb-2" in out.decode()
    for name in ("gopher_quality", "language"):
        code, out, _ = corpusmill("steps", name)
        (step,) = build_steps([resolve_step(name)])
        assert code == 0 and all(column in out.decode() for column in step.columns)
        assert all(f"{rule.rule.column} {rule.rule.comparison} {rule.rule.threshold}" in out.decode() for rule in step.rules)
    assert [name for name in STEPS if corpusmill("steps", name)[0] != 0] == []
    code, _, error = corpusmill("steps", "gohper")
    assert code == 2 and "gohper: no such step (expected one of gopher_" in error


# ---- page_type


def test_pages_are_kept_by_their_type_and_what_is_no_page_passes() -> None:
    (step,) = build_steps([resolve_step({"page_type": {"keep": ["article", "forum"], "threshold": 0.5}})])
    types, scores = ["article", "forum", "product", None], [0.9, 0.4, 0.8, None]
    documents = pa.table({"page_type": types, "page_type_score": pa.array(scores, pa.float32())})
    measured = step.step.measure(DocumentBatch(documents, pa.array(["text"] * 4, pa.large_string()), "words")).columns
    columns = {name: pa.array(measured[name], kind) for name, kind in step.columns.items()}
    failing = {rule.rule.name: rule.rule.failing(columns[rule.rule.column]).tolist() for rule in step.rules}
    assert failing == {"page_type": [False, False, True, False], "page_type_score": [False, True, False, False]}
    with pytest.raises(ConfigError, match="'article'"):
        validate_recipe({"filter": {"steps": [{"page_type": {"keep": ["news"]}}]}}, "recipe.yaml")
