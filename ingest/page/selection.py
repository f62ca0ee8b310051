# mypy: disallow-untyped-defs=False
"""Which blocks are main text: by their scores, and by two rules on the page as a whole."""

from corpusmill.ingest.page.features import ALL, PROSE
from corpusmill.ingest.page.tags import HINT_NAMES
from corpusmill.ingest.page.walk import CHARS, FIRST, HINTS, LAST, NODE, PARENT
from corpusmill.pipeline.kernel import kernel

COMMENT = 1 << HINT_NAMES.index("comment")
#: Comments are only left out of a page where more than so many characters of it are none: else it is a forum.
ENOUGH_CHARS = 250
#: A long document: so many characters, this share of them in its core, and of those this share in paragraphs. Manuals and books on one
#: page are not what the scorer was fitted to, and hold little else: in their cores a block has to speak against itself to be left out.
LONG_CHARS, CORE_SHARE, PROSE_SHARE, DOUBTFUL = 20_000, 0.6, 0.3, 0.1


@kernel
def keep(page, context, scores, threshold, comments):
    """Which blocks are main text, bool: those with a score of at least `threshold`, but for those under a name that says that they
    are comments, unless `comments`; in the core of a long document those with any score to speak of."""
    kept = scores >= threshold
    first, last = _most_of_it(page.nodes, context)
    if _is_long(context.sums, first, last):
        for block in range(first, last):
            kept[block] |= scores[block] >= min(threshold, DOUBTFUL)
    if not comments:
        _leave_comments_out(page, kept)
    return kept


@kernel
def _most_of_it(nodes, context):
    """The blocks of the core, or of the innermost node around it that holds CORE_SHARE of the page: a book's core is one section."""
    node, sums = context.core, context.sums
    while nodes[node, PARENT] > 0 and sums[nodes[node, LAST], ALL] - sums[nodes[node, FIRST], ALL] < CORE_SHARE * sums[-1, ALL]:
        node = nodes[node, PARENT]
    return nodes[node, FIRST], nodes[node, LAST]


@kernel
def _is_long(sums, first, last):
    chars = sums[last, ALL] - sums[first, ALL]
    prose = sums[last, PROSE] - sums[first, PROSE]
    return sums[-1, ALL] >= LONG_CHARS and prose >= PROSE_SHARE * chars


@kernel
def _leave_comments_out(page, kept):
    others = 0
    for block in range(len(kept)):
        if kept[block] and page.nodes[page.blocks[block, NODE], HINTS] & COMMENT == 0:
            others += page.blocks[block, CHARS]
    if others >= ENOUGH_CHARS:
        for block in range(len(kept)):
            if page.nodes[page.blocks[block, NODE], HINTS] & COMMENT != 0:
                kept[block] = False
