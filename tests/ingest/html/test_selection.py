"""Tests which blocks are kept."""

import numpy as np
from page_blocks import texts, walked

from corpusmill.ingest.html.features import context_of
from corpusmill.ingest.html.main_text import ENOUGH_CHARS, LONG_CHARS, keep

SENTENCE = "This is a sentence of exactly eleven words that has an end. "


def kept(html: str, scores: list[float], threshold: float = 0.4, comments: bool = False) -> list[bool]:
    page = walked(html)
    found: list[bool] = keep(page, context_of(page), np.array(scores), threshold, comments).tolist()
    return found


def test_comments_go_unless_they_are_all_that_there_is() -> None:
    article, comment = f"<p>{'word ' * ENOUGH_CHARS}</p>", "<div class='comment-list'><p>first!</p></div>"
    assert kept(article + comment, [0.9, 0.8]) == [True, False]
    assert kept(article + comment, [0.9, 0.8], comments=True) == [True, True]
    assert kept(article + comment, [0.9, 0.8], 0.85, True) == [True, False]
    forum = "<p>A thread</p>" + comment * 3
    assert all(kept(forum, [0.9] * 4)) and texts(walked(forum))[1:] == ["first!"] * 3


def test_the_core_of_a_long_document_is_kept_but_for_what_speaks_against_itself() -> None:
    paragraphs = LONG_CHARS // 48 + 1
    core = f"<main>{f'<p>{SENTENCE}</p>' * paragraphs}<p>vim</p></main>"
    scores = [0.2] * (paragraphs - 1) + [0.05, 0.2]
    assert kept(f"<p>before</p>{core}", [0.2, *scores]) == [False] + [True] * (paragraphs - 1) + [False, True]
    assert not any(kept(core, [0.05] * (paragraphs + 1)))
    short = f"<main>{f'<p>{SENTENCE}</p>' * 20}</main>"
    assert not any(kept(short, [0.2] * 20))
    links = f"<main>{'<p><a>' + SENTENCE + '</a></p>' * paragraphs}</main>"
    assert not any(kept(links, [0.2] * len(walked(links).blocks)))
