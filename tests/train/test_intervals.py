"""Intervals against closed forms and against coverage."""

import numpy as np
import pytest

from corpusmill.train.intervals import bootstrap_ratio, wilson


def test_wilson_against_its_published_values():
    low, high = wilson(81, 263, 0.95)  # Newcombe 1998, table I
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    low, high = wilson(0, 20, 0.95)
    assert (round(low, 4), round(high, 4)) == (0.0, 0.1611)


def test_the_bootstrap_of_a_mean_is_the_normal_interval():
    values = np.random.default_rng(0).normal(3.0, 1.0, 400)
    low, high = bootstrap_ratio(values, np.ones(400), 4000, 0.95, 0)
    spread = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - spread, abs=0.02)
    assert high == pytest.approx(values.mean() + spread, abs=0.02)


def test_equal_documents_leave_no_doubt():
    assert bootstrap_ratio(np.full(9, 2.0), np.full(9, 4.0), 100, 0.95, 0) == (0.5, 0.5)


def test_documents_without_bytes_are_left_out():
    assert bootstrap_ratio(np.array([2.0, 0.0]), np.array([4.0, 0.0]), 100, 0.95, 0) == (0.5, 0.5)
