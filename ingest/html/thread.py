"""The posts of a forum's thread: the nodes that hold one each, who wrote it, and when."""

from collections import defaultdict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from corpusmill.ingest.html.metadata import DOTTED, IN_WORDS, ISO, LONGEST_NAME, day
from corpusmill.ingest.html.tree import Tree
from corpusmill.ingest.html.walk import ADDRESS, ALIKE, CHARS, FIRST, LAST, PARENT, WHICH, Page

#: Classes of elements that name the author of a post, and that hold its date as text or title: XenForo, vBulletin, phpBB, MyBB, Simple
#: Machines, Invision, Discourse, Stack Exchange, Hacker News. Dates also stand in <time>, authors in `itemprop="author"`.
AUTHORS = (b"username", b"author", b"poster", b"creator", b"post_author", b"user-details", b"ipsComment_author", b"hnuser")
DATES = (b"relativetime", b"post_date", b"postdate", b"dateline", b"DateTime", b"age", b"date")
#: A group of posts counts by the sum of their lengths to this power: many posts are likelier a thread than few of the same length.
POWER = 0.5


class Thread(NamedTuple):
    """`posts`: author and date (YYYY-MM-DD; each may be empty) by the node of each post, in the order of the page. `said`: the texts of the
    elements that say these."""

    posts: dict[int, tuple[str, str]] = {}
    said: frozenset[str] = frozenset()


def thread_of(tree: Tree, page: Page, kept: NDArray[np.bool_]) -> Thread:
    """Returns the thread of a page.

    Posts are nodes with equal names and classes that hold main text and an author or a date. Of all such groups the one with the most
    text is the thread. `page`: walked with `structure`.
    """
    node_of = {row[ADDRESS]: row[WHICH] for row in page.elements.tolist() if row[WHICH] >= 0}
    authors = [*(element for name in AUTHORS for element in tree.named(name, by_class=True)), *tree.having(b"itemprop", b"author")]
    dates = [*tree.named(b"time"), *(element for name in DATES for element in tree.named(name, by_class=True))]
    values = [(element, 0, _author(tree, element)) for element in authors] + [(element, 1, _date(tree, element)) for element in dates]
    given: dict[int, list[str]] = defaultdict(lambda: ["", ""])
    for element, kind, value in values:
        at = element
        while at and at not in node_of:
            at = tree.parent(at)
        if at and value:
            found = given[node_of[at]]
            found[kind] = found[kind] or value
    parents, alike = page.nodes[:, PARENT].tolist(), page.nodes[:, ALIKE].tolist()
    sums = np.concatenate([[0], np.cumsum(page.blocks[:, CHARS] * kept)])
    held = (sums[page.nodes[:, LAST]] - sums[page.nodes[:, FIRST]]).tolist()
    groups, seen = defaultdict[int, list[int]](list), {0}
    for node in given:
        while node not in seen and node > 0:
            seen.add(node)
            if held[node]:
                groups[alike[node]].append(node)
            node = parents[node]
    threads = [sorted(group) for group in groups.values() if len(group) > 1]
    posts = {node: ["", ""] for node in max(threads, key=lambda group: (sum(held[node] ** POWER for node in group), -group[0]), default=[])}
    for node in sorted(given):
        post = node
        while post > 0 and post not in posts:
            post = parents[post]
        if post in posts:
            posts[post] = [known or new for known, new in zip(posts[post], given[node], strict=True)]
    said = frozenset(" ".join((tree.text(element) or "").split()) for element in (*authors, *dates))
    return Thread({node: (author, date) for node, (author, date) in posts.items()}, said)


def _author(tree: Tree, element: int) -> str:
    """Returns the first line of an element; nothing where it is too long for a name, or a letter in the place of a picture."""
    lines = (tree.text(element) or "").strip().splitlines()
    name = " ".join(lines[0].split("»")[0].split()).removeprefix("by ") if lines else ""
    return name if 1 < len(name) <= LONGEST_NAME else ""


def _date(tree: Tree, element: int) -> str:
    stated = (tree.attribute(element, name) for name in (b"datetime", b"title"))
    return next(filter(None, (day(value, ISO, DOTTED, *IN_WORDS) for value in (*stated, tree.text(element)))), "")
