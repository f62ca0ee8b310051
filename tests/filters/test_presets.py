"""Tests presets of the stage: their expansion, and the changes that a recipe can make."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from corpusmill.filters import presets
from corpusmill.filters.presets import PRESETS
from corpusmill.filters.rules import decide
from corpusmill.filters.worker import FilterConfig, FilterWorker, rule_table
from corpusmill.pipeline.errors import ConfigError
from corpusmill.pipeline.recipe import validate_recipe
from corpusmill.pipeline.storage import Storage


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_the_section_it_stands_for(name: str) -> None:
    config = FilterConfig.model_validate({"preset": name})
    assert FilterConfig.model_validate(PRESETS[name]).model_dump() == config.model_dump() | {"preset": None}
    assert FilterConfig.model_validate(config.model_dump(mode="json")) == config  # as in run.json
    rules = [rule.rule.name for rule in rule_table(config)]
    assert rules and len(rules) == len(set(rules))


def test_fineweb_has_the_order_of_its_script() -> None:
    config = FilterConfig.model_validate({"preset": "fineweb"})
    assert [next(iter(step)) for step in config.steps] == [
        "language", "gopher_repetition", "gopher_quality", "c4", "fineweb_quality", "pii",
    ]  # fmt: skip
    assert config.steps[3]["c4"]["filter_no_terminal_punct"] is False


def test_text_without_spaces_has_a_preset_that_keeps_it(shared_data: Path) -> None:
    lines = (shared_data / "lid/ja.txt").read_text().splitlines()
    texts = pa.array(["\n".join(lines[:40]), lines[0][:20], "\n".join([*lines[:3], lines[3]] * 10)], pa.large_string())
    failed = {}
    for name in ("characters", "datatrove-0.10"):
        section = {key: value for key, value in PRESETS[name].items() if key == "word_rule"}
        section["steps"] = [{step: {"preset": name}} for step in ("gopher_repetition", "gopher_quality")]
        worker = FilterWorker(FilterConfig.model_validate(section), Storage("."), {})
        columns, _ = worker.measure(pa.table({"text": texts}), texts)
        failed[name] = decide(worker.rules, columns, len(texts)).to_pylist()
    assert failed["characters"][0] == [] and failed["datatrove-0.10"][0]
    assert "gopher_short_doc" in failed["characters"][1]
    assert {"dup_line_frac", "duplicated_10_n_grams"} <= set(failed["characters"][2])


def test_own_steps_come_after_a_preset_or_around_it() -> None:
    own: list = ["compression"]
    preset = FilterConfig.model_validate({"preset": "fineweb"})
    (step,) = FilterConfig.model_validate({"steps": own}).steps
    for section, steps in (
        ({"preset": "fineweb", "steps": own}, [*preset.steps, step]),
        ({"preset": "fineweb", "steps": [*own, {"preset": "fineweb"}]}, [step, *preset.steps]),
        ({"steps": [*own, {"preset": "fineweb"}, *own]}, [step, *preset.steps, step]),
        ({"preset": "fineweb", "steps": []}, preset.steps),
    ):
        config = FilterConfig.model_validate(section)
        assert config.steps == steps and config.word_rule == "spacy"
        assert FilterConfig.model_validate(config.model_dump(mode="json")) == config  # as in run.json: no preset is added again
    changed = {"preset": "fineweb", "word_rule": "whitespace", "steps": own, "thresholds": {"gopher_short_doc": 10}}
    config = FilterConfig.model_validate(changed)
    assert config.word_rule == "whitespace"
    assert {rule.rule.name: rule.rule.threshold for rule in rule_table(config)}["gopher_short_doc"] == 10


def test_presets_that_do_not_go_together_are_refused() -> None:
    for section, message in (
        (
            {"steps": [{"preset": "fineweb"}, {"preset": "c4-paper"}]},
            "word_rule: give one, since fineweb has spacy, and c4-paper has whitespace",
        ),
        (
            {"steps": ["gopher_quality", {"preset": "fineweb-2"}], "language": "fra"},
            "gopher_quality would get the thresholds of the preset f",
        ),
        ({"preset": "fineweb", "steps": [{"c4": {}}, {"language": {"kep": 1}}]}, r"filter\.steps\.1\.language\.kep: unknown key"),
        ({"preset": "fineweb", "steps": ["c5"]}, r"filter\.steps\.0: no such step"),
        ({"preset": "fineweb", "steps": None}, r"filter\.steps: input should be a valid list"),
        ({"preset": "fineweb", "steps": ["compression"], "thresholds": {"spam": 1}}, r"thresholds\.spam: no such rule"),
    ):
        with pytest.raises(ConfigError, match=message):
            validate_recipe({"filter": section}, "recipe.yaml")
    both = FilterConfig.model_validate({"word_rule": "words", "steps": [{"preset": "fineweb"}, {"preset": "c4-paper"}]})
    assert both.word_rule == "words" and [next(iter(step)) for step in both.steps][-2:] == ["pii", "c4"]


LANGUAGES = json.loads(Path(presets.__file__).with_name("fineweb2.json").read_text("utf-8"))["languages"]


def test_fineweb_2_has_thresholds_a_language() -> None:
    assert len(LANGUAGES) == 50
    for name, row in LANGUAGES.items():
        config = FilterConfig.model_validate({"preset": "fineweb-2", "language": name})
        for code in (name.split("_")[0], row["code"], name.replace(name[:3], row["code"])):
            assert FilterConfig.model_validate({"preset": "fineweb-2", "language": code}).steps == config.steps
        assert FilterConfig.model_validate(config.model_dump(mode="json")) == config
        rules = {rule.rule.name: rule.rule.threshold for rule in rule_table(config)}
        assert rules["language"] == (row["code"],) and rules["language_score"] == row["language_score"]
        assert rules["dup_line_frac"] == row["dup_line_frac"] and rules["duplicated_10_n_grams"] == row["dup_n_grams"][-1]
        assert "short_line_ratio" not in rules and "dup_para_frac" not in rules
        assert config.steps[3]["gopher_quality"]["stop_words"] == row["stopwords"]
    assert (LANGUAGES["fra_Latn"]["dup_line_frac"], LANGUAGES["spa_Latn"]["dup_line_frac"]) == (0.264, 0.252)


def test_fineweb_2_decides_as_datatrove_does(measure_step, shared_data: Path, find_words) -> None:
    """Runs French documents through datatrove's filters with the arguments of FineWeb-2's script, and the same words."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import fineweb_quality_filter, gopher_quality_filter, gopher_repetition_filter
    from datatrove.pipeline.filters.base_filter import get_filter_result

    lines = (shared_data / "lid/fr.txt").read_text().splitlines()
    texts = ["\n".join(lines[start : start + 12]) for start in range(0, len(lines), 6)] + ["\n".join(lines[:2] * 9)]
    row = LANGUAGES["fra_Latn"]
    filters = [
        gopher_repetition_filter.GopherRepetitionFilter(
            dup_para_frac=0, dup_line_char_frac=0, dup_para_char_frac=0, dup_line_frac=row["dup_line_frac"],
            top_n_grams=tuple(zip((2, 3, 4), row["top_n_grams"])), dup_n_grams=tuple(zip(range(5, 11), row["dup_n_grams"])),
        ),
        fineweb_quality_filter.FineWebQualityFilter(
            short_line_thr=999, char_duplicates_ratio=0.1, line_punct_thr=row["line_punct_thr"], new_line_ratio=row["new_line_ratio"]
        ),
        gopher_quality_filter.GopherQualityFilter(
            max_avg_word_length=row["max_avg_word_length"], min_avg_word_length=row["min_avg_word_length"], stop_words=row["stopwords"],
            max_non_alpha_words_ratio=row["max_non_alpha_words_ratio"], min_stop_words=2,
        ),
    ]  # fmt: skip
    config = FilterConfig.model_validate({"preset": "fineweb-2", "language": "fra"})
    columns: dict = {}
    for step in config.steps[1:4]:
        ((name, options),) = step.items()
        columns |= measure_step(name, options, texts)[0]
    rules = [rule for rule in rule_table(config) if rule.step != "language"]
    failed = decide(rules, {name: pa.array(values) for name, values in columns.items()}, len(texts)).to_pylist()
    reasons = []
    with pytest.MonkeyPatch.context() as patch:
        for module in (fineweb_quality_filter, gopher_quality_filter, gopher_repetition_filter):
            patch.setattr(module, "split_into_words", lambda text, language: find_words(text))
        for text in texts:
            results = (get_filter_result(step.filter(Document(text=text, id=""))) for step in filters)
            reasons.append(next((reason for kept, reason in results if not kept), None))
    assert [names[0] if names else None for names in failed] == reasons
    assert None in reasons and len(set(reasons)) > 2


def test_fineweb_2_refuses_what_it_has_not() -> None:
    for section, message in (
        ({"preset": "fineweb-2"}, "also needs `language`"),
        (
            {"preset": "fineweb-2", "language": "pcd"},
            r"no thresholds and stop words for 'pcd' \(the nearest language that it has is fra_Latn",
        ),
        ({"preset": "fineweb-2", "language": "xyzw"}, "no thresholds and stop words for 'xyzw'"),
        ({"language": "fra"}, "only the preset fineweb-2 asks for one"),
        ({"language_config": "configs"}, "only the preset fineweb-2 asks for one"),
    ):
        with pytest.raises(ConfigError, match=message):
            validate_recipe({"filter": section}, "recipe.yaml")


def written(row: dict) -> str:
    """Returns a language's limits as FineWeb-2's file has them."""
    pairs = {"top_n_grams": [*zip((2, 3, 4), row["top_n_grams"])], "dup_n_grams": [*zip(range(5, 11), row["dup_n_grams"])]}
    return yaml.safe_dump({**row, **{key: [list(pair) for pair in value] for key, value in pairs.items()}, "code": None, "commit": None})


@pytest.fixture(scope="module")
def configurations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder as `configs` of FineWeb-2, with a language more, which lid.176 does not know."""
    folder = tmp_path_factory.mktemp("configs")
    for name, row in {**LANGUAGES, "aai_Latn": LANGUAGES["ind_Latn"]}.items():
        (folder / f"{name}.yml").write_text(written(row))
    return folder


def test_fineweb_2_reads_a_clone_of_its_configurations(configurations: Path) -> None:
    for name in LANGUAGES:
        ours = FilterConfig.model_validate({"preset": "fineweb-2", "language": name})
        folder = configurations.name
        for given in ({"language": name.split("_")[0]}, {"language_config": f"{folder}/{name}.yml"}):
            section = {"preset": "fineweb-2", "language_config": folder, **given}
            assert FilterConfig.model_validate(section, context={"folder": str(configurations.parent)}) == ours
    model = {"preset": "fineweb-2", "language": "aai_Latn", "language_config": str(configurations), "language_model": "/glotlid.bin"}
    step = FilterConfig.model_validate(model).steps[0]["language"]
    assert step == step | {"keep": ["aai_Latn"], "model": "/glotlid.bin", "threshold": LANGUAGES["ind_Latn"]["language_score"]}


def test_wrong_configurations_are_one_sentence(configurations: Path, tmp_path: Path) -> None:
    good = yaml.safe_load((configurations / "fra_Latn.yml").read_text())
    for number, (content, message) in enumerate((
        (yaml.safe_dump({key: value for key, value in good.items() if key != "dup_n_grams"}), "dup_n_grams: field required"),
        (yaml.safe_dump({**good, "top_n_grams": [[2, 0.1]]}), "top_n_grams: .*a limit for each n from 2 to 4"),
        (yaml.safe_dump({**good, "language_score": "high"}), "language_score: input should be a valid number"),
        ("[1, 2]", "the file: input should be"), ("a: [", "is no YAML"), (None, "can't be read"),
    )):  # fmt: skip
        path = tmp_path / str(number) / "fra_Latn.yml"
        path.parent.mkdir()
        if content is not None:
            path.write_text(content)
        with pytest.raises(ConfigError, match=f"fra_Latn.yml: {message}"):
            validate_recipe({"filter": {"preset": "fineweb-2", "language_config": str(path)}}, "recipe.yaml")
    for section, message in (
        (
            {"language_config": str(configurations / "fra_Latn.yml"), "language": "deu"},
            "fra_Latn.yml has no thresholds and stop words for 'deu'",
        ),
        ({"language_config": str(tmp_path / "french.yml")}, "is called LANGUAGE_SCRIPT.yml"),
        ({"language_config": str(tmp_path), "language": "fra"}, "there are none"),
        ({"language_config": str(configurations), "language": "pcd"}, "the nearest language that it has is fra_Latn"),
        ({"language_config": str(configurations), "language": "aai_Latn"}, "lid.176 does not know aai_Latn; give `language_model: PATH`"),
        ({"language_config": str(configurations)}, "also needs `language`"),
    ):
        with pytest.raises(ConfigError, match=message):
            validate_recipe({"filter": {"preset": "fineweb-2", **section}}, "recipe.yaml")
