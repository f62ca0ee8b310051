import re

from hypothesis import given
from hypothesis import strategies as st

from corpusmill.ingest.urls.filter import UrlFilterConfig
from corpusmill.ingest.urls.lists import WordLists, squeeze

WORDS = st.lists(st.text("abc1", min_size=1, max_size=4), max_size=8)


@given(WORDS, WORDS, WORDS, st.text("abcABC1-/.é\n", max_size=30))
def test_words_are_found_as_one_by_one(hard: list[str], soft: list[str], subwords: list[str], text: str) -> None:
    words = set(re.split("[^a-zA-Z0-9]+", text))
    squeezed = re.sub("[^a-zA-Z0-9]+", "", text).lower()
    found = WordLists(hard, soft, subwords).find(text)
    assert found.hard == sorted(set(hard) & words)
    assert found.soft == sorted(set(soft) & words)
    assert found.subwords == sorted(word for word in set(subwords) if word in squeezed)


def test_words_of_a_recipe_are_squeezed() -> None:
    assert UrlFilterConfig(subwords=["Baby Batter!"]).subwords == ["babybatter"] and squeeze("2 g-1 cup\n") == "2g1cup"
