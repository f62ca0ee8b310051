"""Presets of the stage: what they expand to, and what a recipe can change about them."""

import pytest

from corpusmill.filters.presets import PRESETS
from corpusmill.filters.registry import STEPS, build_steps, resolve_step
from corpusmill.filters.stage import FilterConfig, rule_table
from corpusmill.pipeline.engine import load_object
from corpusmill.pipeline.errors import ConfigError
from corpusmill.pipeline.recipe import validate_recipe


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_the_section_it_stands_for(name: str) -> None:
    config = FilterConfig.model_validate({"preset": name})
    assert FilterConfig.model_validate(PRESETS[name]).model_dump() == config.model_dump() | {"preset": None}
    assert FilterConfig.model_validate(config.model_dump(mode="json")) == config  # as run.json has it
    rules = [rule.rule.name for rule in rule_table(config)]
    assert rules and len(rules) == len(set(rules))


@pytest.mark.parametrize("name", STEPS)
def test_tables_of_a_family_name_each_rule_once_and_columns_that_are_there(name: str) -> None:
    for preset, rules in load_object(STEPS[name]).PRESETS.items():
        (step,) = build_steps([resolve_step({name: {"preset": preset}})])
        assert step.step.rules == rules
        assert len({rule.name for rule in rules}) == len(rules)
        assert {rule.column for rule in rules} <= set(step.columns)


def test_fineweb_has_the_order_of_its_script() -> None:
    config = FilterConfig.model_validate({"preset": "fineweb"})
    assert [next(iter(step)) for step in config.steps] == [
        "language", "gopher_repetition", "gopher_quality", "c4", "fineweb_quality", "pii",
    ]  # fmt: skip
    assert config.steps[3]["c4"]["filter_no_terminal_punct"] is False


def test_what_the_recipe_says_itself_goes_first() -> None:
    config = FilterConfig.model_validate(
        {"preset": "fineweb", "word_rule": "whitespace", "steps": ["gopher_quality"], "thresholds": {"gopher_short_doc": 10}}
    )
    assert config.word_rule == "whitespace" and len(config.steps) == 1
    assert rule_table(config)[0].rule.threshold == 10


def test_rules_can_be_switched_off_and_on() -> None:
    def names(thresholds: dict) -> list[str]:
        config = FilterConfig.model_validate({"steps": ["fineweb_quality"], "thresholds": thresholds})
        return [rule.rule.name for rule in rule_table(config)]

    assert "list_ratio" not in names({"list_ratio": False}) and "list_ratio" not in names({"list_ratio": None})
    assert "list_ratio" in names({"list_ratio": True})
    assert FilterConfig.model_validate({"steps": ["fineweb_quality"], "thresholds": {"list_ratio": True}}).thresholds == {}


def test_an_unknown_preset_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"recipe\.yaml: filter: preset: no such preset \(expected one of gopher-paper, datatrove"):
        validate_recipe({"filter": {"preset": "finweb"}}, "recipe.yaml")
