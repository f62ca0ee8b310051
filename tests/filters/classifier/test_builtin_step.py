"""The built-in steps, with tiny classifiers in a cache of their own in place of those that would be trained from packages."""

from pathlib import Path

import pytest

from corpusmill.filters.classifier.builtin_step import BUILTINS
from corpusmill.filters.classifier.defaults.builtin import BUILTIN, FOLDER, builtin, builtin_key, builtin_spec
from corpusmill.filters.registry import build_steps, resolve_step
from corpusmill.pipeline.errors import ConfigError
from corpusmill.pipeline.recipe import validate_recipe

KINDS = {"quality": ["good"], "toxicity": ["rude"], "spam": ["bad"]}


@pytest.fixture
def builtins(tmp_path: Path, monkeypatch, make_folder) -> Path:
    """A cache in which the built-in classifiers lie, as small ones."""
    monkeypatch.setenv("CORPUSMILL_CACHE", str(tmp_path))
    for name, kinds in KINDS.items():
        make_folder(tmp_path / FOLDER / f"{name}-{builtin_key(builtin_spec(name))}", name, {name: kinds}, threshold=0.7)
    return tmp_path / FOLDER


def rules_of(name: str, options: dict) -> list[tuple]:
    (step,) = build_steps([resolve_step({name: options})])
    return [(r.rule.name, r.rule.comparison, r.rule.threshold) for r in step.rules]


def test_what_is_known_before_they_are_trained_is_what_their_specs_say() -> None:
    assert tuple(BUILTINS) == BUILTIN
    for name, known in BUILTINS.items():
        assert builtin_spec(name).labels == known.labels and known.labels[0] == name


def test_nothing_is_trained_to_know_columns_and_rules(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CORPUSMILL_CACHE", str(tmp_path))
    assert rules_of("quality", {}) == [("quality", "<", 0.0)]
    assert rules_of("toxicity", {}) == [("toxicity", ">", 1.0)]
    assert rules_of("spam", {"threshold": 0.9}) == [("spam", ">=", 0.9)]
    assert rules_of("toxicity", {"threshold": 0.8, "max_share": 0.1}) == [("toxicity", ">=", 0.8), ("toxicity_share", ">", 0.1)]
    assert rules_of("quality", {"measure_only": True}) == []
    (step,) = build_steps([resolve_step({"toxicity": {}})])
    assert list(step.columns) == ["toxicity", "toxicity_share"] and step.step.document_columns == ("toxicity",)
    assert not list(tmp_path.iterdir())


def test_a_threshold_of_their_own(builtins) -> None:
    assert rules_of("spam", {"threshold": "own"}) == [("spam", ">=", 0.7)]
    assert rules_of("quality", {"threshold": "own"}) == [("quality", "<", 0.7)]


def test_they_score_as_their_folder_does(builtins, measure_step, mixed_texts) -> None:
    for name in BUILTIN:
        window = {"window": 25} if name == "toxicity" else {}
        columns, _ = measure_step(name, {}, mixed_texts)
        wanted, _ = measure_step("classifier", {"model": str(builtin(name)), **window}, mixed_texts)
        assert columns == wanted and max(score for score in columns[name] if score is not None) > 0.9


def test_used_twice(builtins, run_filter, finished_ingest, make_documents, mixed_texts, tmp_path) -> None:
    run = finished_ingest(tmp_path / "run", [make_documents(mixed_texts)])
    run_filter(run, {"steps": ["quality", {"toxicity": {"window": 5}}, {"quality": {"keep": 0.5}}]})
    from corpusmill.pipeline.shards import read_table

    report = read_table(run, "filter/report/part-00000.parquet")
    assert report["quality"].equals(report["quality_2"]) and {"toxicity", "toxicity_share"} <= set(report.column_names)
    data = read_table(run, "filter/data/part-00000.parquet")
    assert data.column_names[-2:] == ["quality", "toxicity"]
    names = {path.name for path in (tmp_path / "run/filter/classifiers").iterdir()}
    assert names == {"quality.json", "quality_2.json", "toxicity.json"}


def test_they_have_their_model() -> None:
    with pytest.raises(ConfigError, match="model: this step has its own; for another, `- classifier:"):
        validate_recipe({"filter": {"steps": [{"quality": {"model": "x"}}]}}, "recipe.yaml")
    with pytest.raises(ConfigError, match="unknown key, expected one of .*threshold"):
        validate_recipe({"filter": {"steps": [{"spam": {"thresh": 1}}]}}, "recipe.yaml")
