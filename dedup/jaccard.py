# mypy: disallow-untyped-defs=False
"""How much two documents have in common, exactly: on the sets of their 64-bit shingle hashes."""

from corpusmill.pipeline.kernel import kernel


@kernel(error_model="numpy")
def shared(a, b):
    """|a & b| of two ascending arrays without repeats."""
    i = j = common = 0
    while i < len(a) and j < len(b):  # which array is behind can't be predicted, so there is no branch on it
        x, y = a[i], b[j]
        common += int(x == y)
        i += int(x <= y)
        j += int(y <= x)
    return common
