"""Tests that rules decide by plain comparisons, and name in words what a document fails."""

import json
import math

import pyarrow as pa
import pytest

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
    "quality": [{"threshold": 0.5, "window": 25, "max_share": 0.1}],
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


def test_ingest_and_dedup_say_what_their_rules_mean() -> None:
    rules = {*removal.RULES, ONLY_LINES, MOSTLY_LINES, ONLY_SUBSTRINGS, CONTAMINATED}
    assert set(removal.MEANINGS) == rules
    assert set(DATATROVE_REASONS) < set(json.loads(INGEST_REPORT.metadata[MEANINGS_KEY]))
