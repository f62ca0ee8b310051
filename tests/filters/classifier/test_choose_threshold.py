"""Thresholds against trying each score."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import f1_score, precision_score

from corpusmill.filters.classifier.calibrate import ThresholdRule, choose_threshold
from corpusmill.pipeline.errors import InputError

EXAMPLES = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.2, 0.4, 0.7, 0.9, 1.0, float("nan")]), st.sampled_from([0, 1, 1, -1])), min_size=1, max_size=25
)


def arrays(examples):
    return np.array([s for s, _ in examples]), np.array([a for _, a in examples])


@given(EXAMPLES)
def test_best_f1(examples):
    score, answer = arrays(examples)
    known = answer >= 0
    candidates = sorted({s for s in score[known] if s == s})
    if not candidates or not (answer == 1).any():
        with pytest.raises(InputError):
            choose_threshold(score, answer, ThresholdRule())
        return
    values = [f1_score(answer[known], score[known] >= c, zero_division=0) for c in candidates]
    found = choose_threshold(score, answer, ThresholdRule())
    assert values[candidates.index(found)] == pytest.approx(max(values))
    assert all(v < max(values) - 1e-12 for c, v in zip(candidates, values) if c > found)


@given(EXAMPLES, st.sampled_from([0.3, 0.5, 2 / 3, 0.9, 1.0]))
def test_target_precision(examples, target):
    score, answer = arrays(examples)
    known = answer >= 0
    candidates = sorted({s for s in score[known] if s == s})
    fits = [c for c in candidates if precision_score(answer[known], score[known] >= c, zero_division=0) >= target]
    rule = ThresholdRule(kind="precision", value=target)
    if not fits:
        with pytest.raises(InputError, match="^threshold: "):
            choose_threshold(score, answer, rule)
        return
    assert choose_threshold(score, answer, rule) == fits[0]


@given(EXAMPLES, st.sampled_from([0.1, 0.25, 0.5, 0.8, 1.0]))
def test_kept_share(examples, target):
    score, answer = arrays(examples)
    fits = [c for c in sorted({s for s in score if s == s}) if (score >= c).sum() / len(score) <= target]
    rule = ThresholdRule(kind="kept", value=target)
    if not fits:
        with pytest.raises(InputError, match="^threshold: "):
            choose_threshold(score, answer, rule)
        return
    assert choose_threshold(score, answer, rule) == fits[0]


def test_sentences_say_what_can_be_had():
    with pytest.raises(
        InputError, match=r"no threshold has a precision of 0\.9; the greatest is 0\.667, from 0\.3 on, where 100\.0% of yes"
    ):
        choose_threshold([0.9, 0.5, 0.3], [0, 1, 1], ThresholdRule(kind="precision", value=0.9))
    with pytest.raises(InputError, match=r"none keeps at most 10\.00%: 50\.00% of the examples have the greatest score, 1"):
        choose_threshold([1, 1, 0, 0], [1, 1, 0, 0], ThresholdRule(kind="kept", value=0.1))
    with pytest.raises(InputError, match="none of 2 examples has the answer yes"):
        choose_threshold([1, 0], [0, 0], ThresholdRule())


def test_equal_f1_gives_the_higher_threshold():
    assert choose_threshold([0.9, 0.6, 0.5, 0.1], [1, 0, 0, 1], ThresholdRule()) == 0.9  # F1 2/3, as from .1 on


def test_weights_let_a_small_source_speak():
    score, answer = [0.9, 0.8, 0.8, 0.8, 0.8, 0.7, 0.2], [1, 0, 0, 0, 0, 1, 0]
    assert choose_threshold(score, answer, ThresholdRule(kind="precision", value=0.6)) == 0.9
    assert choose_threshold(score, answer, ThresholdRule(kind="precision", value=0.6), [1, 0.1, 0.1, 0.1, 0.1, 1, 1]) == 0.7


@pytest.mark.parametrize(("kind", "value"), [("best_f1", 0.5), ("precision", None), ("kept", 1.5), ("kept", 0)])
def test_rules_that_make_no_sense_are_refused(kind, value):
    with pytest.raises(ValidationError):
        ThresholdRule(kind=kind, value=value)
