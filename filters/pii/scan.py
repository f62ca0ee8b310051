# mypy: disallow-untyped-defs=False
"""Where personal data could be: linear scans of UTF-8 bytes that pass over nearly all text, so that checks see only the rest.

Each scan writes start and end in `data` of its candidates, ascending, each inside one document, into `spans` (int64, n by 2) and returns
how many there are, which may be more than fit. A scan looks at each byte a bounded number of times. Only ASCII matters: bytes
of other characters end a run as any other sign does.
"""

import numpy as np

from corpusmill.pipeline.kernel import kernel

WORD, DIGIT, UPPER, HEX, ATOM, HOST, BETWEEN, JOIN = 1, 2, 4, 8, 16, 32, 64, 128


def _classes():
    table = np.zeros(256, np.uint8)
    digits, upper, lower = b"0123456789", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"abcdefghijklmnopqrstuvwxyz"
    for bits, members in (
        (WORD, digits + upper + lower + b"_"),
        (DIGIT, digits),
        (UPPER, upper),
        (HEX, digits + b"abcdefABCDEF"),
        (ATOM, digits + upper + lower + b"!#$%&'*+/=?^_`{|}~-."),  # RFC 5322's atext, and the dots between atoms
        (HOST, digits + upper + lower + b"-."),
        # between the digits of a number: these, no-break spaces (C2 A0, E2 80 AF) and hyphens of Unicode (E2 80 90 to 93)
        (BETWEEN, b" -./()\xc2\xa0\xe2\x80\x90\x91\x92\x93\xaf"),
        (JOIN, b"-./+()"),
    ):
        table[list(members)] |= bits
    return table


CLASSES = _classes()
MOST_BETWEEN = 5  # bytes between two digits of one number
LONGEST_CODE = 34  # letters and digits of an IBAN


@kernel(inline="always")
def _put(spans, count, start, end):
    """Counts one more; it is written as long as there is room."""
    if count < len(spans):
        spans[count, 0] = start
        spans[count, 1] = end
    return count + 1


@kernel
def addresses(data, offsets, spans, classes):
    """What surrounds each `@`: the characters that an email address may have on its left and on its right."""
    count = 0
    for document in range(len(offsets) - 1):
        begin, stop = offsets[document], offsets[document + 1]
        for at in range(begin + 1, stop - 1):
            if data[at] != 64 or not classes[data[at - 1]] & ATOM or not classes[data[at + 1]] & HOST:
                continue
            start, end = at, at + 1
            while start > begin and classes[data[start - 1]] & ATOM:
                start -= 1
            while end < stop and classes[data[end]] & HOST:
                end += 1
            count = _put(spans, count, start, end)
    return count


@kernel
def dotted_numbers(data, offsets, spans, classes):
    """Runs of digits and dots with three dots or more, from their first digit on."""
    count = 0
    for document in range(len(offsets) - 1):
        at, stop = offsets[document], offsets[document + 1]
        while at < stop:
            if not classes[data[at]] & DIGIT:
                at += 1
                continue
            start, dots = at, 0
            while at < stop and (classes[data[at]] & DIGIT or data[at] == 46):
                dots += data[at] == 46
                at += 1
            if dots >= 3:
                count = _put(spans, count, start, at)
    return count


@kernel
def colon_groups(data, offsets, spans, classes):
    """Runs of hexadecimal digits, dots and two colons or more that fit an IPv6 address (at most 45 bytes)."""
    count = 0
    for document in range(len(offsets) - 1):
        begin, stop = offsets[document], offsets[document + 1]
        at = begin
        while at < stop:
            if data[at] != 58:
                at += 1
                continue
            start = at
            while start > begin and at - start < 5 and classes[data[start - 1]] & HEX:
                start -= 1
            colons = 0
            while at < stop and (classes[data[at]] & HEX or data[at] == 58 or data[at] == 46):
                colons += data[at] == 58
                at += 1
            if colons >= 2 and 4 < at - start <= 46:
                count = _put(spans, count, start, at)
    return count


@kernel
def numbers(data, offsets, spans, classes, least, marked_least):
    """Runs of digits with at most five bytes of separators between two, of `least` digits or more; `marked_least` are enough where
    a letter follows or a `+` stands before.

    A `+` or `(` before the first digit belongs to the run.
    """
    count = 0
    for document in range(len(offsets) - 1):
        begin, stop = offsets[document], offsets[document + 1]
        at = begin
        while at < stop:
            if not classes[data[at]] & DIGIT:
                at += 1
                continue
            start, end, digits = at, at, 0
            while at < stop:
                if classes[data[at]] & DIGIT:
                    digits += 1
                    at += 1
                    end = at
                elif at - end < MOST_BETWEEN and classes[data[at]] & BETWEEN:
                    at += 1
                else:
                    break
            at = end
            if digits < marked_least:
                continue
            for _ in range(2):
                if start > begin and (data[start - 1] == 43 or data[start - 1] == 40):
                    start -= 1
            marked = data[start] == 43 or data[start + 1] == 43 or (end < stop and classes[data[end]] & WORD)
            if digits >= least or marked:
                count = _put(spans, count, start, end)
    return count


@kernel
def codes(data, offsets, spans, classes, least_digits):
    """Words of capital letters and digits, parts joined by one of `-./+(`, with a letter and `least_digits` digits or more."""
    count = 0
    for document in range(len(offsets) - 1):
        begin, stop = offsets[document], offsets[document + 1]
        at = begin
        while at < stop:
            if not classes[data[at]] & WORD:
                at += 1
                continue
            start, digits, letters = at, 0, 0
            while at < stop:
                kind = classes[data[at]]
                if kind & DIGIT:
                    digits += 1
                elif kind & UPPER:
                    letters += 1
                elif not (kind & JOIN and at + 1 < stop and classes[data[at + 1]] & (DIGIT | UPPER)):
                    break
                at += 1
            end = at
            while at < stop and classes[data[at]] & WORD:  # a word with small letters is passed over
                at += 1
            if at == end and letters and digits >= least_digits:
                count = _put(spans, count, start, end)
            if at == start:
                at += 1
    return count


@kernel
def account_numbers(data, offsets, spans, classes):
    """Two capital letters and two digits at the edge of a word, then letters and digits, one space or hyphen between: 15 to 34 of them."""
    count = 0
    for document in range(len(offsets) - 1):
        begin, stop = offsets[document], offsets[document + 1]
        at = begin
        while at + 15 <= stop:
            if not (classes[data[at]] & UPPER and classes[data[at + 2]] & DIGIT and classes[data[at + 3]] & DIGIT):
                at += 1
                continue
            if not classes[data[at + 1]] & UPPER or (at > begin and classes[data[at - 1]] & WORD):
                at += 1
                continue
            end, length = at, 0
            while end < stop and length <= LONGEST_CODE:
                if classes[data[end]] & (DIGIT | UPPER):
                    length += 1
                elif not ((data[end] == 32 or data[end] == 45) and end + 1 < stop and classes[data[end + 1]] & (DIGIT | UPPER)):
                    break
                end += 1
            if length >= 15:
                count = _put(spans, count, at, end)
            at += 4
    return count


def prefix_table(prefixes):
    """A table of 65,536 slots that `prefixes_at` looks three bytes up in; some others share their slots."""
    table = np.zeros(1 << 16, np.bool_)
    for prefix in prefixes:
        table[prefix_slot(prefix[0], prefix[1], prefix[2])] = True
    return table


@kernel(inline="always")
def prefix_slot(first, second, third):
    return (np.int64(first) * 31 * 31 + np.int64(second) * 31 + np.int64(third)) & 0xFFFF


@kernel
def prefixes_at(data, offsets, spans, classes, table):
    """The first three bytes of words (and of what begins with a colon or hyphens) that are in the table."""
    count = 0
    for document in range(len(offsets) - 1):
        begin, stop = offsets[document], offsets[document + 1]
        before = np.uint8(0)
        for at in range(begin, stop - 2):
            byte = data[at]
            # a word begins, or a colon stands, or the first of some hyphens
            if ((not before & WORD and byte != 45) or byte == 58 or (byte == 45 and not before & JOIN)) and table[
                prefix_slot(byte, data[at + 1], data[at + 2])
            ]:
                count = _put(spans, count, at, at + 3)
            before = classes[byte]
    return count
