"""Tests that rules decide by plain comparisons, and name in words what a document fails."""

import json
import math
import re
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from corpusmill.dedup import removal
from corpusmill.dedup.contamination.editor import RULE as CONTAMINATED
from corpusmill.dedup.inside.lines import MOSTLY_LINES, ONLY_LINES
from corpusmill.dedup.inside.passages import ONLY_SUBSTRINGS
from corpusmill.filters.rules import Rule, StepRule, decide, meaning, rules_metadata
from corpusmill.filters.step import OTHERS, STEPS, build_steps, resolve_step
from corpusmill.filters.worker import FilterConfig, rule_table
from corpusmill.ingest.rows import INGEST_REPORT
from corpusmill.ingest.urls.filter import DATATROVE_REASONS
from corpusmill.pipeline.schemas import MEANINGS_KEY
from corpusmill.pipeline.stage import load_object

# ---- rules

RULES = [
    StepRule("one", Rule("low", "a", "<", 3)),
    StepRule("one", Rule("high", "a", ">", 3)),
    StepRule("two", Rule("foreign", "language", "not in", ("en", "fr"))),
    StepRule("two", Rule("exact", "b", "==", 0.5)),
    StepRule("two", Rule("at_most", "b", "<=", 0.25)),
    StepRule("two", Rule("at_least", "b", ">=", 0.75)),
]


def test_every_failed_rule_in_the_order_of_the_rules() -> None:
    values = {"a": pa.array([3, 2, 4]), "language": pa.array(["en", "de", "fr"]), "b": pa.array([0.5, 0.25, 0.75])}
    assert decide(RULES, values, 3).to_pylist() == [["exact"], ["low", "foreign", "at_most"], ["high", "at_least"]]


def test_nan_and_null_never_decide() -> None:
    values = {"a": pa.array([None], pa.int64()), "language": pa.array([None], pa.string()), "b": pa.array([math.nan])}
    assert decide(RULES, values, 1).to_pylist() == [[]]


# ---- The meaning of rules in words: every rule that ships has a phrase, with the threshold that decides.

#: Options for rules that a step does not have by default.
OPTIONS = {
    "language": [{"keep": ["en"]}, {"keep": ["en"], "match": "any"}],
    "pii": [{"most": {"email": 3, "phone": 0}}],
    "stop_words": [{"min_share": 0.1}, {"column": "language"}],
    "token_ratio": [{"min_ratio": 0.1, "max_ratio": 1}],
    "compression": [{"max_ratio": 0.9}],
    "bad_words": [{}, {"max_density": 2}],
    "quality": [{"threshold": 0.5, "window": 25}],
}


@pytest.mark.parametrize("name", [name for name in STEPS if name not in OTHERS])
def test_every_rule_has_a_phrase(name: str) -> None:
    presets = [{"preset": preset} for preset in load_object(STEPS[name]).PRESETS]
    for options in [*presets, *OPTIONS.get(name, [{}])]:
        (step,) = build_steps([resolve_step({name: options})])
        for rule in step.rules:
            assert rule.meaning, rule.rule.name
            assert "{" not in rule.meaning


@pytest.mark.parametrize(
    ("template", "comparison", "threshold", "phrase"),
    [
        ("{count} words", "<", 50, "fewer than 50 words"),
        ("{count} words", "<", 1, "no words"),
        ("{count} lines", ">", 0, "one or more lines"),
        ("{share} of the lines", ">", 0.07, "more than 7% of the lines"),
        ("a score of {number}", "<=", 0.65, "a score of at most 0.65"),
        ("none of {list}", "not in", ("en", "de"), "none of en, de"),
        ("a score of {number}", "<", float("nan"), ""),
        ("", "<", 1, ""),
    ],
)
def test_phrases(template: str, comparison: str, threshold: float, phrase: str) -> None:
    assert meaning(template, comparison, threshold) == phrase


def test_the_phrase_has_the_recipes_words_and_threshold() -> None:
    steps = [{"gopher_quality": {"stop_words": ["el", "{la}"]}}, "gopher_quality"]
    rules = rule_table(FilterConfig.model_validate({"steps": steps, "thresholds": {"gopher_enough_stop_words": 1}}))
    told = json.loads(rules_metadata(rules)[MEANINGS_KEY])
    assert told["gopher_enough_stop_words"] == "none of the stop words (el, {la})"
    assert told["gopher_enough_stop_words_2"] == (
        "fewer than 2 of Gopher's eight English stop words (the, be, to, of, and, that, have, with)"
    )


@pytest.mark.parametrize(
    ("rule", "threshold", "said"),
    [
        ("gopher_below_alpha_threshold", 70, "a share from 0 to 1, not 70; 70% is 0.7"),
        ("language_score", -0.1, "a score from 0 to 1, not -0.1"),
        ("gopher_short_doc", -1, "a count from 0 on, not -1"),
        ("gopher_too_many_hashes", -0.5, "a ratio from 0 on, not -0.5"),
        ("gopher_short_doc", "abc", "a threshold is a number, off or on, not 'abc'"),
        ("gopher_short_doc", float("nan"), "a threshold is a number, off or on, not nan"),
    ],
)
def test_a_threshold_is_one_that_a_value_can_have(rule: str, threshold: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=f"(?s){rule}.*{re.escape(said)}"):
        FilterConfig.model_validate({"thresholds": {rule: threshold}})


def test_a_ratio_may_be_above_one_and_off_is_one_word() -> None:
    kept = FilterConfig.model_validate({"thresholds": {"gopher_too_many_hashes": 2}})
    assert {rule.rule.name: rule.rule.threshold for rule in rule_table(kept)}["gopher_too_many_hashes"] == 2
    for off in (None, False, "off"):
        config = FilterConfig.model_validate({"thresholds": {"gopher_short_doc": off, "gopher_long_doc": True}})
        assert config.model_dump(mode="json")["thresholds"] == {"gopher_short_doc": "off"}
        assert "gopher_short_doc" not in {rule.rule.name for rule in rule_table(config)}


def test_the_name_of_a_rule_in_the_wrong_place_names_the_right_one() -> None:
    with pytest.raises(ValidationError, match="the threshold of this rule is filter.thresholds.gopher_short_doc"):
        FilterConfig.model_validate({"preset": "fineweb", "gopher_short_doc": 20})


def test_ingest_and_dedup_say_what_their_rules_mean() -> None:
    rules = {*removal.RULES, ONLY_LINES, MOSTLY_LINES, ONLY_SUBSTRINGS, CONTAMINATED}
    assert set(removal.MEANINGS) == rules
    assert set(DATATROVE_REASONS) < set(json.loads(INGEST_REPORT.metadata[MEANINGS_KEY]))
