"""All measures against scikit-learn, with ties and with the weights that a resample gives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, precision_score, recall_score, roc_auc_score

from corpusmill.filters.classifier.evaluate import BINS, MEASURES, bin_of, mass_edges, measure, measures, rank

#: Few different scores, so that ties are many.
TIED = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]), st.booleans()), min_size=1, max_size=40)


def of_sklearn(score, yes, weight, thresholds):
    found = [roc_auc_score(yes, score, sample_weight=weight), average_precision_score(yes, score, sample_weight=weight)]
    found += [brier_score_loss(yes, score, sample_weight=weight)]
    for threshold in thresholds:
        options = {"sample_weight": weight, "zero_division": np.nan}
        found += [f(yes, score >= threshold, **options) for f in (precision_score, recall_score, f1_score)]
        found += [np.average(score >= threshold, weights=weight)]
    return found


def without_calibration(found):
    return np.delete(found, [3, 4])


@given(TIED, st.randoms(use_true_random=False))
def test_measures_are_those_of_scikit_learn_with_ties_and_weights(examples, random):
    score, yes = np.array([s for s, _ in examples]), np.array([y for _, y in examples])
    draws = np.array([random.randrange(len(yes)) for _ in yes])
    weight = np.bincount(draws, minlength=len(yes))
    drawn = yes[draws]
    thresholds = (0.0, 0.25, 0.3, 1.0)
    ranking = rank(score, yes, thresholds)
    order = np.argsort(-score, kind="stable")
    places = np.argsort(order)[draws]
    found = measure(places[None, :], *ranking)[0]
    if drawn.all() or not drawn.any():
        assert np.isnan(found[0])
        return
    np.testing.assert_allclose(without_calibration(found), of_sklearn(score, yes, weight, thresholds), atol=1e-12)


def test_measures_of_many_examples_are_those_of_scikit_learn():
    random = np.random.default_rng(3)
    score = np.round(random.random(20_000), 3)
    yes = random.random(20_000) < score**2
    thresholds = (0.2, 0.5, 0.9)
    found = measures(rank(score, yes, thresholds))
    np.testing.assert_allclose(without_calibration(found), of_sklearn(score, yes, None, thresholds), rtol=1e-10)
    assert 0.8 < found[0] < 0.9


@pytest.mark.parametrize(("strategy", "column"), [("quantile", 3), ("uniform", 4)])
def test_calibration_errors_come_from_the_bins_of_scikit_learn(strategy, column):
    random = np.random.default_rng(5)
    score = np.round(random.beta(0.5, 2, 5000), 2)
    yes = random.random(5000) < score**1.5
    edges = mass_edges(score) if strategy == "quantile" else np.linspace(0, 1, BINS + 1)
    places = bin_of(score, edges)
    counts = np.bincount(places, minlength=BINS)
    share, mean = calibration_curve(yes, score, n_bins=BINS, strategy=strategy)
    expected = np.sum(counts[counts > 0] / len(score) * np.abs(share - mean))
    assert measures(rank(score, yes))[column] == pytest.approx(expected, rel=1e-10)
    assert MEASURES[column].startswith("calibration_error")


def test_few_examples_have_few_bins():
    assert len(mass_edges(np.linspace(0, 1, 70))) - 1 == 3
    assert len(mass_edges(np.linspace(0, 1, 5))) - 1 == 1
    assert len(mass_edges(np.linspace(0, 1, 5000))) - 1 == BINS


def test_one_answer_alone_has_no_auc_and_no_crash():
    only_yes, only_no, none = (measures(rank(s, y, (0.5,))) for s, y in (([0.2, 0.8], [1, 1]), ([0.2, 0.8], [0, 0]), ([], [])))
    assert np.isnan(only_yes[0])
    assert only_yes[1] == 1 and only_yes[2] == pytest.approx((0.64 + 0.04) / 2)
    np.testing.assert_allclose(only_yes[5:], [1, 0.5, 2 / 3, 0.5])
    assert np.isnan(only_no[[0, 1]]).all()
    np.testing.assert_array_equal(only_no[5:], [0, np.nan, 0, 0.5])
    assert np.isnan(none).all()
