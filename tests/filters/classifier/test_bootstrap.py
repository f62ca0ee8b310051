"""Intervals: as scipy.stats.bootstrap gives them for a statistic computed by scikit-learn, and true to their level."""

import numpy as np
from scipy.stats import bootstrap
from sklearn.metrics import roc_auc_score

from corpusmill.filters.classifier.evaluate import intervals, measures, rank


def examples(n, seed):
    random = np.random.default_rng(seed)
    score = random.random(n)
    return score, random.random(n) < score


def test_the_interval_of_the_auc_is_scipys_with_scikit_learns_auc():
    score, yes = examples(300, 1)
    order = np.argsort(-score, kind="stable")

    def auc(draws):
        return roc_auc_score(yes[order][draws.astype(int)], score[order][draws.astype(int)])

    expected = bootstrap((np.arange(300),), auc, n_resamples=200, method="percentile", rng=np.random.Generator(np.random.Philox(7)))
    low, high = intervals(rank(score, yes), 200, 0.95, 7)
    np.testing.assert_allclose([low[0], high[0]], expected.confidence_interval, rtol=1e-12)


def test_equal_seeds_give_equal_intervals_and_others_others():
    ranking = rank(*examples(200, 2), (0.5,))
    first, again, other = (np.array(intervals(ranking, 100, 0.9, seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_intervals_hold_the_true_auc_about_as_often_as_they_say():
    """Of scores drawn evenly, of which each is its own probability of yes, the AUC is 5/6."""
    hits = 0
    for seed in range(200):
        low, high = intervals(rank(*examples(150, 1000 + seed)), 200, 0.9, seed)
        hits += low[0] <= 5 / 6 <= high[0]
    assert 0.82 < hits / 200 < 0.97


def test_the_interval_of_a_calibration_error_reaches_down_to_none():
    """Scores that are probabilities have no error but chance; percentiles of resamples lie above even the measured one."""
    score, yes = examples(600, 4)
    low, high = intervals(rank(score, yes), 300, 0.95, 0)
    value = measures(rank(score, yes))[3:5]
    assert value.min() > 0.02
    np.testing.assert_array_equal(low[3:5], 0)
    assert np.all((value <= high[3:5]) & (high[3:5] < 1.5 * value))


def test_the_interval_of_a_true_calibration_error_holds_it():
    """Scores that are all .2 too low are .2 wrong in each bin."""
    score, yes = examples(3000, 5)
    high_enough = score > 0.2
    low, high = intervals(rank(score[high_enough] - 0.2, yes[high_enough]), 300, 0.95, 0)
    assert np.all((low[3:5] <= 0.2) & (high[3:5] >= 0.2) & (high[3:5] - low[3:5] < 0.06))


def test_no_example_and_one():
    assert np.isnan(intervals(rank([], []), 100, 0.95, 0)).all()
    low, high = intervals(rank([0.3], [True]), 100, 0.95, 0)
    np.testing.assert_array_equal(low, high)
    assert np.isnan(low[0])


def test_resamples_without_a_yes_do_not_spoil_the_interval():
    score = np.linspace(0, 1, 12)
    low, high = intervals(rank(score, score > 0.95), 300, 0.95, 0)
    assert low[0] == high[0] == 1
