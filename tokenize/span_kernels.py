# mypy: disallow-untyped-defs=False
"""Copying documents from one array of tokens to another."""

from corpusmill.pipeline.kernel import kernel


@kernel
def copy_spans(source, firsts, counts, places, out):
    """Puts `source[firsts[i] : firsts[i] + counts[i]]` at `out[places[i]]` for every i."""
    for span in range(len(firsts)):
        first, place = firsts[span], places[span]
        for token in range(counts[span]):
            out[place + token] = source[first + token]
