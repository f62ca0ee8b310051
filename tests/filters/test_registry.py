import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from corpusmill.filters.step import OTHERS, STEPS, build_steps, resolve_step
from corpusmill.pipeline.errors import ConfigError
from corpusmill.pipeline.recipe import validate_recipe


@pytest.fixture
def options(name: str, tmp_path: Path) -> dict[str, str]:
    """What a step can't do without where there is no network."""
    (tmp_path / "en").write_text("badword\n")
    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2, "?": 3}, [("a", "b")], unk_token="?"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    needed = {"bad_words": {"lists": str(tmp_path)}, "token_ratio": {"tokenizer": str(tmp_path / "tokenizer.json")}}
    return needed.get(name, {})


@pytest.mark.parametrize("name", [name for name in STEPS if name not in OTHERS])
def test_every_step_gives_the_columns_it_names(
    name: str, options: dict[str, str], measure_step, lid_model: str, hard_texts: list[str]
) -> None:
    (step,) = build_steps([resolve_step({name: options})])
    columns, texts = measure_step(name, options, hard_texts)
    assert list(columns) == list(step.columns)
    assert all(len(values) == len(hard_texts) == len(texts) for values in columns.values())
    assert {rule.rule.column for rule in step.rules} <= set(columns)
    assert set(step.step.document_columns) <= set(columns)
    if not step.step.rewrites:
        assert texts == hard_texts
    assert measure_step(name, options, [])[1] == []


@pytest.mark.parametrize("name", [name for name in STEPS if name not in OTHERS])
def test_values_do_not_depend_on_the_batch(name: str, options: dict[str, str], measure_step, lid_model: str, hard_texts: list[str]) -> None:
    columns, texts = measure_step(name, options, hard_texts)
    for place, text in enumerate(hard_texts):
        alone, new = measure_step(name, options, [text])
        assert new == [texts[place]]
        assert repr({key: values[place] for key, values in columns.items()}) == repr({key: values[0] for key, values in alone.items()})


def test_a_second_step_of_a_kind_has_names_of_its_own() -> None:
    first, second = build_steps([resolve_step("gopher_quality"), resolve_step("gopher_quality")])
    assert (first.name, second.name) == ("gopher_quality", "gopher_quality_2")
    assert not set(first.columns) & set(second.columns)
    assert second.rules[0].rule.column == "gopher_words_2" and second.rules[0].rule.name == "gopher_short_doc_2"


def test_defaults_are_filled_in_and_resolving_twice_changes_nothing() -> None:
    resolved = resolve_step({"language": {"keep": ["en"]}})
    assert resolved["language"]["threshold"] == 0.65
    assert resolve_step(resolved) == resolved


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"steps": ["langauge"]}, r"filter\.steps\.0: no such step \(expected one of language, "),
        ({"steps": [{"c4": {}}, {"language": {"kep": 1}}]}, r"filter\.steps\.1\.language\.kep: unknown key, expected one of keep, match"),
        ({"steps": [{"language": {"threshold": 2}}]}, r"filter\.steps\.0\.language\.threshold: input should be less than"),
        ({"steps": [{"language": {"keep": ["xx"]}}]}, r"filter\.steps\.0\.language: 'xx' is no language that the model knows"),
        ({"steps": [{"fineweb_quality": {"preset": "gopher-paper"}}]}, r"preset: input should be 'datatrove-0\.10' or 'fineweb'"),
        ({"steps": [{"language": {}, "c4": {}}]}, "a step is one name with its options"),
        ({"steps": [7]}, "a step is one name with its options"),
        ({"steps": "language"}, r"filter\.steps: input should be a valid list"),
        ({"steps": ["c4"], "thresholds": {"gopher_short_doc": 1}}, r"thresholds\.gopher_short_doc: no such rule \(expected one of lorem"),
        ({"word_rule": "spaces"}, r"filter\.word_rule: input should be 'words', 'whitespace', 'characters' or 'spacy'"),
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
