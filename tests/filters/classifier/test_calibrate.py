"""Tests the calibration of raw scores, and the choice of thresholds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import _sigmoid_calibration
from sklearn.metrics import f1_score, precision_score

from corpusmill.filters.classifier.calibrate import choose_threshold, fit_calibration, log_odds
from corpusmill.pipeline.errors import InputError

# ---- Calibrations: scikit-learn's own predictions, and what does not count in them.


def overconfident(n, seed):
    """Simulates raw scores of fastText: pushed towards 0 and 1, and too high; the truth is a logistic curve of their log-odds."""
    random = np.random.default_rng(seed)
    odds = random.normal(0, 4, n)
    return 1 / (1 + np.exp(-odds)), random.random(n) < 1 / (1 + np.exp(-(0.4 * odds - 1)))


@pytest.mark.parametrize("n", [12, 400])
def test_platt_is_that_of_scikit_learn(n):
    raw, yes = overconfident(n, 8)
    a, b = _sigmoid_calibration(log_odds(raw), yes.astype(np.float64), None)
    np.testing.assert_allclose(fit_calibration(raw, yes).apply(raw), 1 / (1 + np.exp(a * log_odds(raw) + b)), atol=2e-5)


def test_a_model_that_is_the_wrong_way_round_is_not_turned_around():
    raw = np.linspace(0, 1, 200)
    scores = fit_calibration(raw, raw < 0.5).apply(raw)
    assert scores.max() - scores.min() < 1e-9
    assert scores[0] == pytest.approx(0.5, abs=1e-9)


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
            choose_threshold(score, answer)
        return
    values = [f1_score(answer[known], score[known] >= c, zero_division=0) for c in candidates]
    found = choose_threshold(score, answer)
    assert values[candidates.index(found)] == pytest.approx(max(values))
    assert all(v < max(values) - 1e-12 for c, v in zip(candidates, values) if c > found)


@given(EXAMPLES, st.sampled_from([0.3, 0.5, 2 / 3, 0.9, 1.0]))
def test_target_precision(examples, target):
    score, answer = arrays(examples)
    known = answer >= 0
    candidates = sorted({s for s in score[known] if s == s})
    fits = [c for c in candidates if precision_score(answer[known], score[known] >= c, zero_division=0) >= target]
    if not fits:
        with pytest.raises(InputError, match="^threshold: "):
            choose_threshold(score, answer, target)
        return
    assert choose_threshold(score, answer, target) == fits[0]
