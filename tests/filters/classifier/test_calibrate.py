"""Tests the calibration of raw scores, and the choice of thresholds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.calibration import _sigmoid_calibration
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import f1_score, precision_score

from corpusmill.filters.classifier.calibrate import ThresholdRule, choose_threshold, fit_calibration, log_odds, source_weights
from corpusmill.pipeline.errors import InputError

# ---- Calibrations: scikit-learn's own predictions, and what does not count in them.


def overconfident(n, seed):
    """Simulates raw scores of fastText: pushed towards 0 and 1, and too high; the truth is a logistic curve of their log-odds."""
    random = np.random.default_rng(seed)
    odds = random.normal(0, 4, n)
    return 1 / (1 + np.exp(-odds)), random.random(n) < 1 / (1 + np.exp(-(0.4 * odds - 1)))


@pytest.mark.parametrize(("n", "weighted"), [(12, False), (400, True)])
def test_platt_is_that_of_scikit_learn(n, weighted):
    raw, yes = overconfident(n, 8)
    weights = np.random.default_rng(0).random(n) * 2 if weighted else None
    a, b = _sigmoid_calibration(log_odds(raw), yes.astype(np.float64), weights)
    found = fit_calibration("platt", raw, yes, weights)
    np.testing.assert_allclose(found.apply(raw), 1 / (1 + np.exp(a * log_odds(raw) + b)), atol=2e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_isotonic_is_that_of_scikit_learn(weighted):
    raw, yes = overconfident(500, 9)
    raw = np.round(raw, 2)
    weights = np.random.default_rng(0).random(500) if weighted else None
    model = IsotonicRegression(out_of_bounds="clip").fit(raw, yes, weights)
    new = np.linspace(0, 1, 333)
    np.testing.assert_allclose(fit_calibration("isotonic", raw, yes, weights).apply(new), model.predict(new), atol=1e-12)


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_a_model_that_is_the_wrong_way_round_is_not_turned_around(method):
    raw = np.linspace(0, 1, 200)
    scores = fit_calibration(method, raw, raw < 0.5).apply(raw)
    assert scores.max() - scores.min() < 1e-9
    assert scores[0] == pytest.approx(0.5, abs=1e-9)


def test_unknown_answers_and_texts_without_a_score_are_left_out():
    raw, yes = overconfident(300, 4)
    more = np.concatenate([raw, [0.5, np.nan]]), np.concatenate([yes.astype(np.int8), [-1, 1]])
    assert fit_calibration("platt", *more) == fit_calibration("platt", raw, yes)


def test_each_source_counts_alike():
    weights = source_weights(["a", "a", "a", "b"])
    np.testing.assert_allclose(weights, [2 / 3, 2 / 3, 2 / 3, 2])
    assert source_weights([]).tolist() == []
    raw = np.full(8, 0.5)
    found = fit_calibration("isotonic", raw, [0, 0, 0, 0, 0, 0, 1, 1], source_weights(["big"] * 6 + ["small"] * 2))
    assert found.apply(0.5) == pytest.approx(0.5)


# ---- Thresholds, compared with a trial of each score.

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


def test_weights_let_a_small_source_speak():
    score, answer = [0.9, 0.8, 0.8, 0.8, 0.8, 0.7, 0.2], [1, 0, 0, 0, 0, 1, 0]
    assert choose_threshold(score, answer, ThresholdRule(kind="precision", value=0.6)) == 0.9
    assert choose_threshold(score, answer, ThresholdRule(kind="precision", value=0.6), [1, 0.1, 0.1, 0.1, 0.1, 1, 1]) == 0.7


@pytest.mark.parametrize(("kind", "value"), [("best_f1", 0.5), ("precision", None), ("kept", 1.5), ("kept", 0)])
def test_rules_that_make_no_sense_are_refused(kind, value):
    with pytest.raises(ValidationError):
        ThresholdRule(kind=kind, value=value)
