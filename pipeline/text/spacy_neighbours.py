# mypy: disallow-untyped-defs=False
"""Where the chunks beside one count, inside kernels.

spaCy puts some exceptions together again after it has cut all chunks ("x:(" is "x" and ":("), but not where a longer one
overlaps that goes beyond the chunk (":((" in "x:( ("). So a chunk of which a piece is such an exception depends on its neighbours, if
they are one space away and meet it in two units that are side by side in an exception.
"""

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.spacy_rules import SPACE, pair_hash
from corpusmill.pipeline.text.spacy_scan import first_unit, last_unit
from corpusmill.pipeline.text.table import find, hash_span
from corpusmill.pipeline.text.utf8 import decode, previous

#: Bytes of neighbours that are looked at.
MOST_CONTEXT = 4096
_SPACE = 0x20


@kernel
def continues(data, start, end, low, high, rules):
    """Whether a neighbour, one space away, meets the chunk in two units that are side by side in an exception."""
    pairs = rules.merged_pairs
    if end + 1 < high and data[end] == _SPACE:
        pair = pair_hash(last_unit(data, start, end, rules.kinds), first_unit(data, end + 1, high, rules.kinds))
        if find(pairs, pairs.size - 1, pair) >= 0:
            return True
    if start - 1 > low and data[start - 1] == _SPACE:
        pair = pair_hash(last_unit(data, low, start - 1, rules.kinds), first_unit(data, start, end, rules.kinds))
        return find(pairs, pairs.size - 1, pair) >= 0
    return False


@kernel
def context(data, start, end, low, high, rules):
    """`(first, last)` byte of the chunk with as many neighbours, one space apart, as an exception can go beyond it."""
    first, last = start, end
    for _ in range(rules.merged_units):
        if first - 1 <= low or data[first - 1] != _SPACE:
            break
        at = first - 1
        while at > low and start - at < MOST_CONTEXT:
            before = previous(data, at)
            if rules.kinds[decode(data, before)[0]] & SPACE:
                break
            at = before
        if at == first - 1 or start - at >= MOST_CONTEXT:
            break
        first = at
    for _ in range(rules.merged_units):
        if last + 1 >= high or data[last] != _SPACE:
            break
        at = last + 1
        while at < high and at - end < MOST_CONTEXT:
            point, width = decode(data, at)
            if rules.kinds[point] & SPACE:
                break
            at += width
        if at == last + 1 or at - end >= MOST_CONTEXT:
            break
        last = at
    return first, last


@kernel
def has_merged(data, begins, start, end, rules):
    """Whether some pieces side by side, fewer than all, are an exception that spaCy looks for in the pieces."""
    for first in range(start, end):
        if begins[first]:
            for last in range(first + 1, min(first + rules.longest_merged, end) + 1):
                piece = (last == end or begins[last]) and not (first == start and last == end)
                if piece and find(rules.merged, rules.merged.size - 1, hash_span(data, first, last)) >= 0:
                    return True
    return False
