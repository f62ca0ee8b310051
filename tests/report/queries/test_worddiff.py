"""Tests the word diff: it gives back both texts, and it is short."""

import difflib
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.report.queries.passages import CHANGES, WordChange, Words, compare, diff, runs

texts = st.text(alphabet="abc \n中文かdé", max_size=60)


def check(changes: list[WordChange], a: list[str], b: list[str]) -> None:
    """Checks that the changes applied to one text give the other, in both directions."""
    assert [w for c in changes for w in (a[c.a0 : c.a1] if c.equal else b[c.b0 : c.b1])] == b
    assert [w for c in changes for w in (b[c.b0 : c.b1] if c.equal else a[c.a0 : c.a1])] == a
    assert all(c.equal != d.equal and (c.a1, c.b1) == (d.a0, d.b0) for c, d in itertools.pairwise(changes))
    assert all(c.a0 < c.a1 or c.b0 < c.b1 for c in changes)


def test_words_of_scripts_without_spaces_are_characters() -> None:
    assert Words("日本語の text, ここ").list() == ["日", "本", "語", "の", "text,", "こ", "こ"]
    assert Words(" a\u3000b\u00a0c\n").list() == ["a", "b", "c"]


def mutated(words: list[str], share: float, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [w if draw.random() > share else f"changed{draw.random()}" for w in words]


@pytest.mark.parametrize("kind", ["shuffled", "nested", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("changes", "two words"))])
def test_a_hundred_thousand_words_are_compared(kind: str) -> None:
    """A comparison of all pairs would take hours."""
    draw = random.Random(1)
    a = [f"w{int(draw.paretovariate(0.9))}" for _ in range(100_000)]
    nested = [f"n{i}" for i in range(50_000)]
    other = {
        "changes": lambda: mutated(a, 0.15, 3),
        "two words": lambda: [draw.choice("ab") for _ in a],
        "shuffled": lambda: draw.sample(a, len(a)),
        "nested": lambda: [*nested[::-1], *nested],  # single words only appear where a text is split
    }[kind]()
    a = {"two words": [draw.choice("ab") for _ in a], "nested": [*nested, *nested[::-1]]}.get(kind, a)
    changes = diff(Words(" ".join(a)), Words(" ".join(other)))
    check(changes, a, other)
    equal = sum(c.a1 - c.a0 for c in changes if c.equal)
    if kind == "changes":
        assert equal >= 0.99 * sum(x == y for x, y in zip(a, other, strict=True))  # except for single words that `tidy` joined


def test_about_as_good_as_difflib_on_real_edits(shared_data) -> None:
    text = (shared_data / "text" / "wiki_demo.txt").read_text()[:40_000]
    a = Words(text).list()
    b = mutated(a, 0.05, 4)
    b = b[:1000] + b[1200:3000] + b[100:150] + b[3000:]  # a passage is cut, another is copied
    equal = sum(length for _, _, length in runs(a, b))
    assert equal >= 0.99 * sum(block.size for block in difflib.SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks())


# ---- passages ---------------------------------------------------------------------------------------


@given(texts, texts)
def test_passages_of_short_texts_hold_both(one: str, two: str) -> None:
    found = compare(one, two)
    if len(found.passages) <= CHANGES and not any(p.kind == "left out" for p in found.passages):
        removed = [w for p in found.passages if p.kind != "added" for w in Words(p.text).list()]
        added = [w for p in found.passages if p.kind != "removed" for w in Words(p.text).list()]
        assert (removed, added) == (Words(one).list(), Words(two).list())
    assert found.same == (Words(one).list() == Words(two).list())


def test_what_is_equal_for_long_is_counted_not_shown() -> None:
    middle = [f"m{i}" for i in range(300)]
    found = compare(" ".join(["old", *middle, "red", *middle[:4]]), " ".join(["new", *middle, "blue", *middle[:4]]))
    kinds = [(p.kind, p.words) for p in found.passages]
    assert kinds == [
        ("removed", 1), ("added", 1), ("equal", 10), ("left out", 280), ("equal", 10), ("removed", 1), ("added", 1), ("equal", 4),
    ]  # fmt: skip
    assert found.passages[2].text == " ".join(middle[:10]) and found.passages[4].text == " ".join(middle[-10:])
    assert found.passages[3].text == "280 equal words"
    assert (found.equal, found.removed, found.added) == (304, 2, 2)


def test_the_output_is_bounded() -> None:
    words = [f"w{i}" for i in range(50_000)]
    found = compare(" ".join(words), " ".join(w if i % 7 else "x" * 200 for i, w in enumerate(words)))
    assert len(found.passages) < 8 * CHANGES and sum(len(p.text) for p in found.passages) < 20_000
    assert found.passages[-1].text == f"and {len(range(0, 50_000, 7)) - CHANGES:,} more changes"
    found = compare("a " * 5000, "b " * 5000)
    assert [p.text for p in found.passages if p.kind == "left out"] == ["4,940 removed words", "4,940 added words"]
