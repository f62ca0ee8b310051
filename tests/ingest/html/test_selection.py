"""Tests which blocks are kept."""

from itertools import product

import numpy as np
import pytest
from page_blocks import texts, walked

from corpusmill.ingest.html.features import context_of
from corpusmill.ingest.html.main_text import ENOUGH_CHARS, LONG_CHARS, keep
from corpusmill.ingest.html.page_type import TYPES
from corpusmill.ingest.html.walk import CHARS

SENTENCE = "This is a sentence of exactly eleven words that has an end. "


def kept(html: str, scores: list[float], share: float = 0.5, comments: bool = False, forum: bool = False) -> list[bool]:
    page = walked(html)
    types = np.array([float(name == ("forum" if forum else "documentation")) for name in TYPES])
    found: list[bool] = keep(page, context_of(page), types, np.array(scores), share, comments).tolist()
    return found


def test_comments_go_unless_they_are_all_that_there_is() -> None:
    article, comment = f"<p>{'word ' * ENOUGH_CHARS}</p>", "<div class='comment-list'><p>first!</p></div>"
    assert kept(article + comment, [0.9, 0.8]) == [True, False]
    assert kept(article + comment, [0.9, 0.8], comments=True) == [True, True]
    assert kept(article + comment, [0.9, 0.8], 0.85, True) == [True, False]
    assert kept(article + comment, [0.9, 0.8], forum=True) == [True, True]
    forum = "<p>A thread</p>" + comment * 3
    assert all(kept(forum, [0.9] * 4)) and texts(walked(forum))[1:] == ["first!"] * 3


def test_the_core_of_a_long_document_is_kept_but_for_what_speaks_against_itself() -> None:
    paragraphs = LONG_CHARS // 48 + 1
    core = f"<main>{f'<p>{SENTENCE}</p>' * paragraphs}<p>vim</p></main>"
    scores = [0.2] * (paragraphs - 1) + [0.05, 0.2]
    assert kept(f"<p>before</p>{core}", [0.2, *scores], 1) == [False] + [True] * (paragraphs - 1) + [False, True]
    assert not any(kept(core, [0.05] * (paragraphs + 1), 1))
    short = f"<main>{f'<p>{SENTENCE}</p>' * 20}</main>"
    assert not any(kept(short, [0.2] * 20, 1))
    links = f"<main>{'<p><a>' + SENTENCE + '</a></p>' * paragraphs}</main>"
    assert not any(kept(links, [0.2] * len(walked(links).blocks), 1))


def test_no_other_choice_has_a_higher_expected_f1() -> None:
    random = np.random.default_rng(3)
    for _ in range(50):
        sizes, scores = random.integers(1, 40, 6), random.random(6).round(2) * 0.9 + 0.1
        page = walked("".join(f"<p>{'x' * size}</p>" for size in sizes))
        right = np.array(kept("".join(f"<p>{'x' * size}</p>" for size in sizes), scores.tolist()))
        weights, choices = page.blocks[:, CHARS] + 2.0, np.array(list(product([False, True], repeat=6)))
        expected = 2 * (choices * weights * scores).sum(1) / ((choices * weights).sum(1) + (weights * scores).sum())
        assert expected.max() == pytest.approx(2 * (right * weights * scores).sum() / ((right * weights).sum() + (weights * scores).sum()))
