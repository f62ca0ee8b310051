"""Tests the intervals of differences against scipy's paired t-test, and by simulated corpora whose truth is known."""

import numpy as np
import pytest
from scipy import stats

from corpusmill.ablate.result import BITS, CHOICE, LATE, TOPIC, kind_of, verdict
from corpusmill.ablate.statistics import PairedDifference, Scores, difference, error_rates


def bits(values: np.ndarray, sizes: np.ndarray | None = None, set_of: np.ndarray | None = None) -> Scores:
    documents = values.shape[1]
    return Scores(
        values,
        np.ones(documents) if sizes is None else sizes,
        np.zeros(documents, np.int64) if set_of is None else set_of,
    )


def test_without_noise_of_documents_it_is_the_paired_t_test() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(2, 0.1, (6, 1)), generator.normal(2.1, 0.1, (6, 1))
    first, second = bits(np.repeat(a, 50, axis=1)), bits(np.repeat(b, 50, axis=1))
    found = difference(second, first, [0], 0.05)
    oracle = stats.ttest_rel(b[:, 0], a[:, 0])
    assert found.documents == pytest.approx(0, abs=1e-12)
    assert (found.low, found.high) == pytest.approx(tuple(oracle.confidence_interval(0.95)))
    assert found.decided == (oracle.pvalue < 0.05)


def test_noise_of_documents_is_that_of_a_bootstrap() -> None:
    generator = np.random.default_rng(1)
    sizes = generator.integers(100, 2000, 300).astype(float)
    change = sizes * generator.normal(0.01, 0.05, 300)
    base = np.tile(2.0 * sizes, (4, 1))
    found = difference(bits(base + change, sizes), bits(base, sizes), [0], 0.05)
    drawn = generator.integers(0, 300, (20_000, 300))
    oracle = (change[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)).std()
    assert found.seeds == pytest.approx(0, abs=1e-12)
    assert found.documents == pytest.approx(oracle, rel=0.05)


def test_intervals_hold_as_often_as_they_say() -> None:
    """Draws and documents are random: an interval that knows one of them alone would hold too rarely."""
    generator = np.random.default_rng(2)
    truth, hits, only_draws, worlds = 0.02, 0, 0, 2000
    for _ in range(worlds):
        of_draw, of_document = generator.normal(0, 0.02, (5, 1)), generator.normal(0, 0.1, (1, 40))
        change = truth + of_draw + of_document + generator.normal(0, 0.05, (5, 40))
        found = difference(bits(2 + change), bits(np.full((5, 40), 2.0)), [0], 0.05)
        hits += found.low <= truth <= found.high
        only_draws += abs(found.mean - truth) <= stats.t.ppf(0.975, 4) * found.seeds
    assert 0.94 <= hits / worlds <= 0.995
    assert only_draws / worlds < 0.93


@pytest.mark.long
def test_two_looks_keep_the_error_rate() -> None:
    """Equal variants are called different by one of both looks in at most 5% of comparisons, three of them together."""
    generator = np.random.default_rng(3)
    early, late = error_rates(0.95, 3)
    wrong, worlds = 0, 1500
    for _ in range(worlds):
        calls = False
        for _ in range(3):
            change = generator.normal(0, 0.03, (8, 1)) + generator.normal(0, 0.02, (1, 30))
            for count, rate in ((4, early), (8, late)):
                calls |= difference(bits(2 + change[:count]), bits(np.full((count, 30), 2.0)), [0], rate).decided
        wrong += calls
    assert wrong / worlds <= 0.055


def test_what_a_budget_can_show_is_shown_in_four_of_five_cases() -> None:
    generator = np.random.default_rng(4)
    plan = difference(bits(2 + generator.normal(0, 0.03, (8, 20))), bits(np.full((8, 20), 2.0)), [0], 0.05)
    effect = np.mean([
        difference(bits(2 + generator.normal(0, 0.03, (8, 20))), bits(np.full((8, 20), 2.0)), [0], 0.05).can_show for _ in range(300)
    ])  # fmt: skip
    shown = [
        difference(bits(2 + effect + generator.normal(0, 0.03, (8, 20))), bits(np.full((8, 20), 2.0)), [0], 0.05).decided
        for _ in range(1000)
    ]
    assert plan.can_show > 0
    assert 0.7 <= np.mean(shown) <= 0.9


def test_sets_have_equal_weight() -> None:
    set_of = np.array([0] * 90 + [1] * 10)
    base = np.full((3, 100), 2.0)
    change = np.where(set_of == 0, 0.1, -0.1) + np.random.default_rng(5).normal(0, 0.001, (3, 100))
    found = difference(bits(base + change, set_of=set_of), bits(base, set_of=set_of), [0, 1], 0.05)
    assert found.mean == pytest.approx(0, abs=0.002)
    assert difference(bits(base + change, set_of=set_of), bits(base, set_of=set_of), [0], 0.05).mean == pytest.approx(0.1, abs=0.002)


def judged(**signs: int) -> dict[str, PairedDifference]:
    names = {"bits": BITS, "late": LATE, "choice": CHOICE, "topic": TOPIC}
    return {
        names[judge]: PairedDifference(0.01 * sign, 0.01 * sign - 0.005, 0.01 * sign + 0.005, 0.002, (0.01, 0.02), 0.001, 0.001, 0.02)
        for judge, sign in signs.items()
    }


@pytest.mark.parametrize(
    ("signs", "moved", "kind"),
    [
        ({"bits": -1, "late": -1, "choice": 0}, 0.0, "better"),
        ({"bits": 1, "late": 0, "choice": 0}, 0.0, "worse"),
        ({"bits": 0, "late": 0, "choice": 0}, 0.0, "none"),
        ({"bits": -1, "late": 1, "choice": 0}, 0.0, "mixed"),
        ({"bits": -1, "late": 0, "choice": 1}, 0.5, "mixed"),
        ({"bits": -1, "late": 0, "choice": 0}, 0.5, "unclear"),
        ({"bits": 1, "late": 0}, 0.5, "worse"),
        ({"bits": -1, "topic": 1}, 0.0, "mixed"),
        ({"bits": 1, "topic": -1}, 0.0, "worse"),
        ({"bits": 0, "topic": 1}, 0.0, "none"),
    ],
)
def test_judges_that_disagree_give_no_single_verdict(signs: dict[str, int], moved: float, kind: str) -> None:
    found = judged(**signs)
    assert kind_of(found, moved) == kind
    sentence = verdict("b", "a", found, 2, moved)
    assert ("better model" in sentence, "worse model" in sentence) == (kind == "better", kind == "worse") or kind == "mixed"
    if kind == "mixed":
        assert sentence.startswith("Mixed: b makes a better model than a: -0.0100") and "but +0.0100" in sentence
    if signs.get("topic") and signs["bits"] <= 0:
        assert "+0.0100 windows not told from another document's" in sentence
    if kind == "unclear":
        assert "50% of its passages stand in other documents of a" in sentence
