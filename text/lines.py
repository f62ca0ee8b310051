# mypy: disallow-untyped-defs=False
"""Finds lines and paragraphs inside kernels, as `str.splitlines`, `split("\\n\\n")`, `re.split("\\n+")` and `re.split("\\n{2,}")` do, and
counts repeated ones."""

import numpy as np

from corpusmill.pipeline.kernel import kernel
from corpusmill.text.hashing import cleared, hash_span, insert
from corpusmill.text.utf8 import NEWLINE, count_byte, count_characters, find_byte, strip_end, strip_start

CARRIAGE_RETURN = 13


@kernel
def only_newlines(text):
    """Whether LF is the only line break in the text at which `str.splitlines` splits, so that `line_end` need not search for others.

    The loops only or truth values, without a branch, so that the compiler can test many bytes at once.
    """
    found = False
    for byte in text:
        found |= (byte >= 0x0B) & (byte <= 0x0D) | (byte >= 0x1C) & (byte <= 0x1E)
    for at in range(text.size - 1):
        found |= (text[at] == 0xC2) & (text[at + 1] == 0x85)
    for at in range(text.size - 2):
        found |= (text[at] == 0xE2) & (text[at + 1] == 0x80) & (text[at + 2] & 0xFE == 0xA8)
    return not found


@kernel
def line_end(data, start, end, newlines):
    """Returns `(end of the line, start of the next)` for the line that begins at `start`, as `str.splitlines` splits lines.

    Both are `end` where no break follows. The breaks: LF, VT, FF, CR, CR LF, FS, GS, RS, NEL, U+2028, U+2029. `newlines`:
    the result of `only_newlines` for the text.
    """
    if newlines:
        at = find_byte(data, start, end, NEWLINE)
        return at, min(at + 1, end)
    for at in range(start, end):
        byte = data[at]
        if byte > 0x1E and byte < 0xC2:
            continue
        if byte <= 0x1E:
            if byte == CARRIAGE_RETURN and at + 1 < end and data[at + 1] == NEWLINE:
                return at, at + 2
            if NEWLINE <= byte <= CARRIAGE_RETURN or byte >= 0x1C:
                return at, at + 1
        elif byte == 0xC2 and data[at + 1] == 0x85:
            return at, at + 2
        elif byte == 0xE2 and data[at + 1] == 0x80 and 0xA8 <= data[at + 2] <= 0xA9:
            return at, at + 3
    return end, end


@kernel
def paragraph_end(data, start, end):
    """Returns `(end of the paragraph, start of the next)` for the paragraph that begins at `start`. Two or more newlines end it."""
    at = start
    while True:
        at = find_byte(data, at, end, NEWLINE)
        after = skip_newlines(data, at, end)
        if at == end or after >= at + 2:
            return at, after
        at = after


@kernel
def skip_newlines(data, at, end):
    while at < end and data[at] == NEWLINE:
        at += 1
    return at


@kernel
def line_duplicates(data, start, end, table):
    """Returns `(lines, repeated lines, characters in repeated lines)` of `re.split("\\n+", text)`. A first copy is not repeated.

    `table` is scratch of at least `table_size(newlines + 1)` slots.
    """
    mask = cleared(table, count_byte(data, start, end, NEWLINE) + 1)
    lines, repeated, characters = 0, 0, 0
    at = start
    while True:
        stop = find_byte(data, at, end, NEWLINE)
        lines += 1
        if insert(table, mask, hash_span(data, at, stop)):
            repeated += 1
            characters += count_characters(data, at, stop)
        if stop == end:
            return lines, repeated, characters
        at = skip_newlines(data, stop, end)


@kernel
def paragraph_duplicates(data, start, end, classes, table):
    """As `line_duplicates`, for the paragraphs of `re.split("\\n{2,}", text.strip())`."""
    mask = cleared(table, count_byte(data, start, end, NEWLINE) // 2 + 1)
    start = strip_start(data, start, end, classes)
    end = strip_end(data, start, end, classes)
    paragraphs, repeated, characters = 0, 0, 0
    at = start
    while True:
        stop, after = paragraph_end(data, at, end)
        paragraphs += 1
        if insert(table, mask, hash_span(data, at, stop)):
            repeated += 1
            characters += count_characters(data, at, stop)
        if stop == end:
            return paragraphs, repeated, characters
        at = after


# ----------------------------------------------------------------------------------------------------
# Repeated lines and paragraphs where all copies count, the first one too. The table has two uint64 a slot: key, number of occurrences.


@kernel
def split_piece_end(data, at, end):
    """Returns the end of the part of `text.split("\\n\\n")` that begins at `at`."""
    stop = find_byte(data, at, end, NEWLINE)
    while stop < end and not (stop + 1 < end and data[stop + 1] == NEWLINE):
        stop = find_byte(data, stop + 1, end, NEWLINE)
    return stop


@kernel
def count_copy(table, mask, key):
    """Counts a line or paragraph. Returns how many repeated ones it adds: 0 for the first copy, 2 for the second (with it, the first
    is repeated, too), 1 for each later one."""
    slot = np.int64(key) & mask
    while table[2 * slot + 1] != 0:
        if table[2 * slot] == key:
            table[2 * slot + 1] += np.uint64(1)
            return 2 if table[2 * slot + 1] == 2 else 1
        slot = (slot + 1) & mask
    table[2 * slot] = key
    table[2 * slot + 1] = np.uint64(1)
    return 0
