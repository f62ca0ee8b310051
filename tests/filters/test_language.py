"""Labels and scores against fastText's own predict."""

from collections.abc import Callable
from pathlib import Path

import pytest

from corpusmill.filters.language import Language, LanguageConfig
from corpusmill.filters.language_codes import LID_176
from corpusmill.filters.registry import build_steps, resolve_step
from corpusmill.pipeline.errors import ConfigError, InputError


@pytest.fixture(scope="module")
def fasttext_model(lid_model: str):
    from fasttext.FastText import _FastText

    return _FastText(lid_model)


def test_labels_of_the_model(fasttext_model) -> None:
    assert {label.removeprefix("__label__") for label in fasttext_model.get_labels()} == LID_176


@pytest.mark.parametrize("characters", [0, 300, 2000])
def test_as_fasttext_predicts(texts: list[str], fasttext_model, measure_step: Callable, characters: int) -> None:
    columns, _ = measure_step("language", {"characters": characters, "min_letters": 0}, texts)
    for place, text in enumerate(texts):
        (label,), (score,) = fasttext_model.predict((text[:characters] if characters else text).replace("\n", " "))
        assert columns["language"][place] == label.removeprefix("__label__")
        assert columns["language_score"][place] == pytest.approx(min(score, 1.0), abs=1e-6)


def test_most_sentences_of_75_languages_are_recognised(shared_data: Path, measure_step: Callable, lid_model: str) -> None:
    paths = [path for path in sorted((shared_data / "lid").glob("*.txt")) if path.stem in LID_176]
    columns, _ = measure_step("language", {}, [" ".join(path.read_text().splitlines()[:20]) for path in paths])
    right = sum(path.stem == label for path, label in zip(paths, columns["language"]))
    assert right / len(paths) > 0.9


def test_short_texts_are_undetermined(measure_step: Callable, lid_model: str) -> None:
    columns, _ = measure_step("language", {}, ["404 Not Found", "", "12345 67890 !!!", "This is a sentence in English."])
    assert columns["language"] == ["und", "und", "und", "en"]
    assert columns["language_score"][:3] == [0, 0, 0]


def test_rules() -> None:
    (step,) = build_steps([resolve_step({"language": {"keep": ["eng", "fr"], "threshold": 0.5}})])
    wanted, score = (rule.as_json() for rule in step.rules)
    assert wanted["comparison"] == "not in" and wanted["threshold"] == ["en", "fr"]
    assert score["comparison"] == "<=" and score["threshold"] == 0.5
    (everything,) = build_steps([resolve_step("language")])
    assert [rule.rule.name for rule in everything.rules] == ["language_score"]


def test_another_model_by_path(lid_model: str, tmp_path: Path, measure_step: Callable) -> None:
    columns, _ = measure_step("language", {"model": lid_model, "keep": ["eng"]}, ["This is a sentence in English."])
    assert columns["language"] == ["eng"]  # as the recipe calls it, so that the rule compares what it names
    with pytest.raises(ConfigError, match="'klingon' is no language that the model knows"):
        measure_step("language", {"model": lid_model, "keep": ["klingon"]}, [])
    broken = tmp_path / "broken.ftz"
    broken.write_bytes(b"no model")
    with pytest.raises(ConfigError, match=r"broken\.ftz: not a fastText model"):
        Language(LanguageConfig(model=str(broken))).setup()
    with pytest.raises(InputError, match="there is no such language model"):
        Language(LanguageConfig(model=str(tmp_path / "none"))).model_files()
