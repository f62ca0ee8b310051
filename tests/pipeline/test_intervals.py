import pytest

from corpusmill.pipeline.intervals import wilson


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"), [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
)
def test_wilson_against_its_published_values(hits: int, of: int, low: float, high: float) -> None:
    """The values are those of Newcombe (1998), table I, method 3."""
    assert wilson(hits, of) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))
