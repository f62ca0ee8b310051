"""Tests values of features, computed by hand on a small page, and that all are finite."""

import numpy as np
import pytest
from hypothesis import given, settings
from page_blocks import MARKUP, walked

from corpusmill.ingest.html.features import NAMES, context_of, features

SENTENCE = "This is a sentence of exactly eleven words that has an end."
PAGE = (
    "<nav class='menu'><ul><li><a>Home</a><li><a>News</a></ul></nav>"
    f"<article><h1>The headline of it all</h1><p>{SENTENCE}</p><p>{SENTENCE} And <a>more</a></p></article><footer>Imprint</footer>"
)


def all_features(page):
    return features(page, context_of(page), 0, len(page.blocks))


@pytest.fixture(scope="module")
def table() -> dict[str, list[float]]:
    return dict(zip(NAMES, all_features(walked(PAGE)).tolist()))


def test_shape_and_names() -> None:
    found = all_features(walked(PAGE))
    assert found.shape == (len(NAMES), 6) and found.dtype == np.float32 and len(set(NAMES)) == len(NAMES)


def test_of_the_block_itself(table: dict[str, list[float]]) -> None:
    assert table["linked"] == pytest.approx([1, 1, 0, 0, 4 / 55, 0], abs=1e-3)
    assert table["heading"] == [0, 0, 1, 0, 0, 0] and table["tag_p"] == [0, 0, 0, 1, 1, 0] and table["item"] == [1, 1, 0, 0, 0, 0]
    assert table["ends"] == [0, 0, 0, 1, 0, 0] and table["equal"] == [1] * 6
    assert table["log_words"][3] == pytest.approx(np.log1p(12))


def test_of_its_surroundings(table: dict[str, list[float]]) -> None:
    assert table["a0_alike"][:2] == [2, 2] and table["a1_log_blocks"][0] == pytest.approx(np.log1p(2))
    assert table["a1_linked"][0] == 1 and table["a1_ends"][3] == pytest.approx(1 / 3)
    assert table["core_side"] == [-1, -1, 0, 0, 0, 1] and table["core_above"][3] == 1
    assert table["h1_side"] == [3, 3, 2, 1, 1, 1] and table["h1_distance"] == [2, 1, 0, 1, 2, 3]
    assert table["w2_chars"][0] == pytest.approx((4 + 4 + 18) / 3)


def test_hints(table: dict[str, list[float]]) -> None:
    assert table["in_nav"] == [1, 1, 0, 0, 0, 0] and table["in_in_nav"] == [1, 1, 0, 0, 0, 0]
    assert table["in_in_article"] == [0, 0, 1, 1, 1, 0] and table["near_in_article"] == [0, 0, 1, 1, 1, 0]
    assert table["near_nav"] == [0] * 6, "the list lies between an item and the nav"
    assert table["near_in_footer"] == [0, 0, 0, 0, 0, 1]


@settings(max_examples=100, deadline=None)
@given(MARKUP)
def test_all_values_are_finite(parts: list[str]) -> None:
    page = walked("".join(parts))
    if len(page.blocks):
        found = all_features(page)
        assert np.isfinite(found).all()
        middle = len(page.blocks) // 2
        halves = [features(page, context_of(page), *ends) for ends in ((0, middle), (middle, len(page.blocks)))]
        assert np.array_equal(np.concatenate(halves, 1), found)
