# mypy: disallow-untyped-defs=False
"""Union-find (Tarjan) over flat arrays: `parent` (n) leads from each document to the lowest one of its component, its root."""

import numpy as np

from corpusmill.pipeline.kernel import kernel


@kernel
def find_root(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel
def roots(parent):
    for i in range(len(parent)):
        parent[i] = find_root(parent, i)
    return parent


@kernel
def join_links(parent, low, begin, links, beyond):
    """Joins two documents for each of n links (n x 2). The first is of the range that begins with the document `begin`, of which `parent`
    tells; the second, which is never behind it, may be of an earlier range.

    `low`, of each root: the lowest document of earlier ranges that its component is linked to, or -1. What else it is linked to there is
    linked with that one: such links are put into `beyond` (n x 2, the later document first); returns how many there are.
    """
    found = 0
    for i in range(len(links)):
        a, other = find_root(parent, links[i, 0] - begin), links[i, 1]
        if other >= begin:
            b = find_root(parent, other - begin)
            if a == b:
                continue
            a, b = min(a, b), max(a, b)
            parent[b] = a
            other = low[b]
        if other < 0 or other == low[a]:
            continue
        if low[a] >= 0:
            beyond[found, 0], beyond[found, 1] = max(low[a], other), min(low[a], other)
            found += 1
        if low[a] < 0 or other < low[a]:
            low[a] = other
    return found


@kernel
def join_up_to(parent, weight, star, document, limit, smallest, largest):
    """Joins the documents of one star each (`star` ascends), but of stars of `smallest` to `largest` documents alone and never to more than
    `limit` of weight; returns how often documents were left apart. What has no room with a star's first documents begins anew with those
    behind it, so that a million near copies come together in a few components. `weight` holds the weight of each root."""
    apart, begin = 0, 0
    while begin < len(star):
        end = begin
        while end < len(star) and star[end] == star[begin]:
            end += 1
        if smallest <= end - begin <= largest:
            middle = document[begin]
            for i in range(begin + 1, end):
                a, b = find_root(parent, middle), find_root(parent, document[i])
                if a == b:
                    continue
                if weight[a] + weight[b] > limit:
                    apart += 1
                    if weight[b] <= weight[a]:
                        middle = b
                    continue
                weight[min(a, b)] = weight[a] + weight[b]
                parent[max(a, b)] = min(a, b)
        begin = end
    return apart


@kernel
def stars_to_links(star, document):
    """A link for each document of a star (`star` ascends): to the one before it, of the first to itself."""
    links = np.empty((len(star), 2), np.int64)
    for i in range(len(star)):
        links[i, 0] = document[i]
        links[i, 1] = document[i - 1] if i and star[i] == star[i - 1] else document[i]
    return links
