"""The posts of a forum's thread: the nodes that hold one each, who wrote it, and when."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
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
#: Of several groups, the one is the thread whose texts' lengths, each to this power, have the greatest sum: many posts are likelier a
#: thread than few with as much text.
POWER = 0.5


class Thread(NamedTuple):
    """`posts`: author and date (YYYY-MM-DD; each may be empty) by the node of each post. `post_of`: the node of the post around each node,
    0 if there is none. `said`: the texts of the elements that name authors and dates."""

    posts: dict[int, list[str]] = {}
    post_of: Sequence[int] = ()
    said: frozenset[str] = frozenset()


def thread_of(tree: Tree, page: Page, kept: NDArray[np.bool_]) -> Thread:
    """Returns the thread of a page, which was walked with `structure`.

    Posts are nodes with equal names and classes that hold main text and an author or a date; see POWER for which of all such groups.
    """
    authors = [*(element for name in AUTHORS for element in tree.named(name, by_class=True)), *tree.having(b"itemprop", b"author")]
    dates = [*tree.named(b"time"), *(element for name in DATES for element in tree.named(name, by_class=True))]
    node_of = {row[ADDRESS]: row[WHICH] for row in page.elements.tolist() if row[WHICH] >= 0}
    signed: dict[int, list[str]] = defaultdict(lambda: ["", ""])  # by node, the first author and the first date right in it
    for kind, elements, value_of in ((0, authors, _author), (1, dates, _date)):
        for element in elements:
            at = element
            while at and at not in node_of:
                at = tree.parent(at)
            if at and (value := value_of(tree, element)):
                signed[node_of[at]][kind] = signed[node_of[at]][kind] or value
    posts: dict[int, list[str]] = {node: ["", ""] for node in _largest_group(page, kept, signed)}
    post_of: list[int] = []
    for node, above in enumerate(page.nodes[:, PARENT].tolist()):  # parents come before their children
        post_of.append(node if node in posts else post_of[above] if above > 0 else 0)
        if post_of[node] and node in signed:
            posts[post_of[node]] = [known or new for known, new in zip(posts[post_of[node]], signed[node], strict=True)]
    return Thread(posts, post_of, frozenset(" ".join((tree.text(element) or "").split()) for element in (*authors, *dates)))


def _largest_group(page: Page, kept: NDArray[np.bool_], signed: Iterable[int]) -> list[int]:
    """Returns the nodes of the group of posts, in order. `signed`: the nodes right around authors and dates."""
    sums = np.concatenate([[0], np.cumsum(page.blocks[:, CHARS] * kept)])
    held = (sums[page.nodes[:, LAST]] - sums[page.nodes[:, FIRST]]).tolist()  # characters of main text in each node
    parents, alike = page.nodes[:, PARENT].tolist(), page.nodes[:, ALIKE].tolist()
    groups, seen = defaultdict[int, list[int]](list), {0}
    for node in signed:
        while node not in seen and node > 0:
            seen.add(node)
            if held[node]:
                groups[alike[node]].append(node)
            node = parents[node]
    several = [sorted(group) for group in groups.values() if len(group) > 1]
    return max(several, key=lambda group: (sum(held[node] ** POWER for node in group), -group[0]), default=[])


def _author(tree: Tree, element: int) -> str:
    """Returns the first line of an element; nothing where it is too long for a name, or a letter in the place of a picture."""
    lines = (tree.text(element) or "").strip().splitlines()
    name = " ".join(lines[0].split("»")[0].split()).removeprefix("by ") if lines else ""
    return name if 1 < len(name) <= LONGEST_NAME else ""


def _date(tree: Tree, element: int) -> str:
    stated = (tree.attribute(element, name) for name in (b"datetime", b"title"))
    return next(filter(None, (day(value, ISO, DOTTED, *IN_WORDS) for value in (*stated, tree.text(element)))), "")
