"""Compares values with a slow version of NeMo Curator's filters (stages/text/filters/heuristic), and with numbers that NeMo printed."""

import math
import re
from collections import Counter
from collections.abc import Callable

import regex
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.filters.compat.nemo import BULLETS, COMMON_WORDS, ELLIPSES, POLICY

SINGLE = "aabA0-*#…•●.!?”',_{}[(⟨\n\n\n\t \u2028\u3000漢é½²٣\u0301😀\0\x08%:/"
LONGER = ["the ", "OF ", "...", "[…]", " read MORE", "read more..\n", "-» ", "##a ", "# ", "#a# ", "ab c ", "ab c ", "a b c d e f "]
LINKS = [
    "http://",
    "https://",
    "httphttp://a",
    "https://x.y/%2f%2?q=1 ",
    "http://%zz",
    "Privacy Policy",
    "Uses cookies",
    "cookie",
    "\n\n",
    "lorem ",
]
TEXT = st.lists(st.one_of(st.sampled_from([*SINGLE, *LONGER, *LINKS]), st.characters(exclude_categories=["Cs"])), max_size=120).map("".join)
URL = re.compile(r"https?://(?:[A-Za-z0-9$\-_@.&+/:=?#~]|[!*\(\),]|(?:%[0-9A-Fa-f]{2}))+")


def share(part: float, whole: float, empty: float = math.nan) -> float:
    return part / whole if whole else empty


def repeated(words: list[str], n: int, text: str) -> float:
    """Returns the score of RepeatingTopNGramsFilter (the earliest of equally frequent n-grams) or RepeatingDuplicateNGramsFilter."""
    if len(words) < n:
        return 1.0
    ngrams = list(zip(*[words[place:] for place in range(n)]))
    if n < 5:
        top = " ".join(Counter(ngrams).most_common(1)[0][0])
        return (len(text) - len(text.replace(top, ""))) / len(text)
    seen: set[tuple[str, ...]] = set()
    characters = overlap = 0
    for ngram in ngrams:
        if ngram in seen:
            characters += sum(map(len, ngram[overlap:])) + min(n - overlap, n - 1)
            overlap = n
        seen.add(ngram)
        overlap = max(overlap - 1, 0)
    return characters / len(text)


def boilerplate(text: str) -> float:
    paragraphs = [paragraph.strip().lower() for paragraph in text.split("\n\n")]
    if any("lorem ipsum" in paragraph for paragraph in paragraphs):
        return 1.0
    return sum(any(phrase in paragraph for phrase in POLICY) for paragraph in paragraphs) / len(paragraphs)


def reference(text: str) -> list[float]:
    """Returns the scores in the order of the columns; NaN where NeMo raises."""
    words = text.split()
    lines = [line for line in text.split("\n") if line.strip()]
    paragraphs = text.split("\n\n")
    symbols = [word in ELLIPSES or len(re.findall("#+", word)) / len(word) > 0.5 for word in words]
    return [
        len(words),
        max(map(len, words), default=0),
        sum(word in COMMON_WORDS for word in words),
        share(sum(map(len, words)), len(words)),
        share(sum(symbols), len(words)),
        share(sum(bool(regex.search("[[:alpha:]]", word)) for word in words), len(words)),
        share(len(text) - len(re.findall("[a-zA-Z0-9\n?!,.]", text)), len(text), 1.0),
        share(len(regex.findall("[[:digit:]]", text)), len(text), 1.0),
        share(sum(c in "\t\n\r\b " for c in text), len(text), 1.0),
        share(len(re.findall(r"{|}|⟨|⟩|\[|\]|\(|\)", text)), len(text), 1.0),
        share(sum(map(len, URL.findall(text))), len(text), 1.0),
        share(sum(line.strip().startswith(tuple(BULLETS)) for line in lines), len(lines)),
        share(sum(line.strip().lower().endswith(ELLIPSES) for line in lines), len(lines)),
        share(sum(not line.strip().endswith((".", "?", "!", '"', "'")) for line in lines), len(lines)),
        share(len(set(lines)), len(lines)),
        share(len("".join(set(lines))), len("".join(lines))),
        len(set(paragraphs)) / len(paragraphs),
        share(len("".join(set(paragraphs))), len("".join(paragraphs))),
        boilerplate(text),
        *(repeated(words, n, text) for n in range(2, 11)),
    ]


def check(measure_step: Callable, texts: list[str]) -> None:
    columns, _ = measure_step("nemo", {}, texts)
    for place, text in enumerate(texts):
        for (name, values), wanted in zip(columns.items(), reference(text), strict=True):
            assert values[place] == wanted or (math.isnan(values[place]) and math.isnan(wanted)), (name, text[:200], values[place], wanted)


def test_real_documents(texts: list[str], measure_step: Callable) -> None:
    check(measure_step, texts)


@given(texts=st.lists(TEXT, min_size=1, max_size=6))
def test_any_text(measure_step: Callable, texts: list[str]) -> None:
    check(measure_step, texts)


def test_many_copies_of_one_letter(measure_step: Callable) -> None:
    columns, _ = measure_step("nemo", {}, ["a " * 2_000_000 + "a" * 2_000_000])
    assert columns["nemo_top_2_gram_ratio"] == [3_000_000 / 6_000_000] and columns["nemo_longest_word"] == [2_000_000]


def test_numbers_that_nemo_printed(measure_step: Callable) -> None:
    page = (
        "# Read more\n• The #tags of the page https://example.org/a%20b?c=(d) and 12 more [x]\n\nThe #tags of the page that have a "
        "very long line in them that is said again and again\n• again … read MORE\n\nWe use cookies to be with you"
    )
    eights = "one two three four five six seven eight one two three four five six seven eight one two"
    columns, _ = measure_step("nemo", {}, [page, eights])
    # NeMo's most frequent n-grams are left out: they tie, and its choice among them varies.
    assert [values[0] for name, values in columns.items() if "top" not in name] == [
        45, 31, 12, 3.888888888888889, 0.044444444444444446, 0.8888888888888888, 0.25339366515837103, 0.01809954751131222,
        0.2081447963800905, 0.01809954751131222, 0.14027149321266968, 0.4, 0.4, 1.0, 1.0, 1.0, 1.0, 1.0, 0.3333333333333333,
        0.09502262443438914, 0.0, 0.0, 0.0, 0.0, 0.0,
    ]  # fmt: skip
    assert columns["nemo_top_2_gram_ratio"][1] == 0.2413793103448276  # the only one of three copies
    assert [values[1] for values in columns.values()][-6:] == [0.5402298850574713] * 6
