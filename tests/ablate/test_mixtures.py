"""Tests the search for a mixture: components, drawn weights, the regression and its proposal, on planted functions."""

import numpy as np
import pytest

from corpusmill.ablate import mixtures

NATURAL = np.array([0.6, 0.25, 0.1, 0.05])


def test_drawn_weights_are_mixtures_and_begin_with_the_natural_one() -> None:
    weights = mixtures.drawn_weights(NATURAL, 65)
    assert weights.shape == (65, 4)
    assert weights[0] == pytest.approx(NATURAL)
    assert weights.sum(axis=1) == pytest.approx(np.ones(65))
    assert (weights >= 0).all()
    assert np.array_equal(weights, mixtures.drawn_weights(NATURAL, 65))
    assert weights.max(axis=0).min() > 0.5  # each component is most of some mixture


@pytest.mark.parametrize("best", [0, 3])
def test_a_planted_best_component_gets_most_of_the_weight(best: int) -> None:
    weights = mixtures.drawn_weights(NATURAL, 64)
    bits = 2.9 - 0.1 * weights[:, best] ** 0.5 + np.random.default_rng(0).normal(0, 0.003, 64)
    fit = mixtures.fitted(weights, bits)
    found = mixtures.proposed(fit, NATURAL)
    assert fit.error < fit.spread / 2
    assert found.sum() == pytest.approx(1)
    assert found[best] >= 0.5


def test_an_optimum_between_components_is_found() -> None:
    weights, target = mixtures.drawn_weights(NATURAL, 128), np.array([0.3, 0.4, 0.2, 0.1])
    bits = 2.5 + 0.5 * ((weights - target) ** 2).sum(axis=1) + np.random.default_rng(1).normal(0, 0.002, 128)
    assert mixtures.proposed(mixtures.fitted(weights, bits), NATURAL) == pytest.approx(target, abs=0.1)


def test_noise_alone_is_not_taken_for_a_rule() -> None:
    weights = mixtures.drawn_weights(NATURAL, 64)
    fit = mixtures.fitted(weights, np.random.default_rng(2).normal(2.9, 0.01, 64))
    assert fit.error > 0.8 * fit.spread
