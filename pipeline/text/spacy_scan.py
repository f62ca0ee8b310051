# mypy: disallow-untyped-defs=False
"""One chunk (what stands between spaces) inside kernels: where its units are, and under which key its pieces are known.

A chunk's *shape* is all that its pieces depend on, counted in units: its marks and the runs that occur in spaCy's exceptions
as they are; of other runs, the kinds of the first and the last two characters and whether there are more than one. Where a URL may
be found (a dot before two small letters), also what spaCy's pattern of URLs sees in a run of ASCII: whether it may be a top
level domain (small letters only) and how many digits a port may have. Some chunks are known only as they are ("exactly"): those
in which a URL may be found that are not ASCII or longer than MOST_URL bytes (a label of a host has a greatest length), or have
three dots before digits (addresses); those with letters behind digits (which may be a unit: 5km); those of more than MOST_UNITS units.
"""

import numpy as np

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.hashing import BASE, ONE, mix64
from corpusmill.pipeline.text.spacy_rules import ALPHA, DIGIT, LOWER, RUN, SPACE, UPPER
from corpusmill.pipeline.text.table import find, hash_span
from corpusmill.pipeline.text.utf8 import decode, previous

#: How a chunk is known.
SHAPE, EXACT, TOO_LONG = 0, 1, 2
#: Units of a chunk that is known by its shape.
MOST_UNITS = 60
#: Bytes of a chunk with a URL that is known by its shape: no label of a host in it can be too long.
MOST_URL = 64
#: spaCy's time grows with the square of some chunks' length. Beyond these limits (half a second) each unit is a word.
MOST_BYTES = 1 << 16
MOST_STEPS = 1 << 22  # characters, times units at the ends that may come off one by one
MOST_COLONS = 1 << 26  # characters, times colons (URLs with a user's name are looked for from each)

_LETTERS = ALPHA | LOWER | UPPER | DIGIT
_DOT, _COLON = 0x2E, 0x3A
_EXACT_SEED = np.uint64(0xA0761D6478BD642F)
_CLASS_SEED = np.uint64(0xE7037ED1A0B428DB)
_URL_SEED = np.uint64(0x8EBC6AF09C88C6E3)


@kernel
def exact_key(data, start, end):
    return mix64((hash_span(data, start, end) ^ _EXACT_SEED) + np.uint64(end - start) * BASE)


@kernel
def context_key(data, first, last, start):
    """The key of the chunk that begins at `start`, among the chunks `data[first:last]`."""
    return mix64(exact_key(data, first, last) * BASE + np.uint64(start - first) + ONE)


@kernel
def scan_chunk(data, start, stop, kinds, exception_runs, longest_exception_run, places):
    """`(end, key, how it is known, units)` of the chunk that begins at `start`. `places` gets where its units begin.

    `places` is int64 of MOST_UNITS + 1; units beyond are not written.
    """
    at, units, characters, colons, digit_dots = start, 0, 0, 0, 0
    head, tail, plain_run = 0, 0, False  # units before the first and behind the last run that is in no exception
    exact, url, after_dot = False, False, False
    shape, url_shape = np.uint64(0), _URL_SEED
    while at < stop:
        point, width = decode(data, at)
        kind = kinds[point]
        if kind & SPACE:
            break
        if units <= MOST_UNITS:
            places[units] = at
        units += 1
        tail += 1
        if not kind & RUN:
            shape = mix64((shape + np.uint64(point) + ONE) * BASE)
            url_shape = mix64((url_shape + np.uint64(point) + ONE) * BASE)
            after_dot = point == _DOT
            colons += point == _COLON
            characters += 1
            at += width
            continue
        value, length, digits = np.uint64(0), 0, 0
        first = before = last = np.uint8(0)
        every = np.uint8(0xFF)
        while True:
            value = value * BASE + np.uint64(point) + ONE
            before, last = last, kind
            if length == 0:
                first = kind
            elif length == 1:
                url |= after_dot and first & LOWER != 0 and kind & LOWER != 0
            every &= kind
            digits += kind & DIGIT != 0
            length += 1
            at += width
            if at >= stop:
                break
            point, width = decode(data, at)
            kind = kinds[point]
            if not kind & RUN:
                break
        characters += length
        exact |= digits > 0 and not last & DIGIT
        digit_dots += after_dot and first & DIGIT != 0
        after_dot = False
        if length > longest_exception_run or find(exception_runs, exception_runs.size - 1, value) < 0:
            value = np.uint64(first & _LETTERS) << np.uint64(16) | np.uint64(last & _LETTERS) | np.uint64(length == 1) << np.uint64(24)
            if length > 1:
                value |= np.uint64(before & _LETTERS) << np.uint64(8)
            small, port = np.uint64(every & LOWER), np.uint64(min(length, 6) if every & DIGIT else 0)
            url_value = mix64((value | small << np.uint64(25) | port << np.uint64(40)) * BASE + _CLASS_SEED)
            value = mix64(value * BASE + _CLASS_SEED)
            if not plain_run:
                head, plain_run = units, True
            tail = 0
            url_shape = mix64((url_shape + url_value) * BASE)
        else:
            url_shape = mix64((url_shape + value) * BASE)
        shape = mix64((shape + value) * BASE)
    steps = head + tail if plain_run else units
    if at - start > MOST_BYTES or characters * steps > MOST_STEPS or characters * colons > MOST_COLONS:
        return at, shape, TOO_LONG, units
    exact |= digit_dots >= 3 or units > MOST_UNITS or (url and (at - start > MOST_URL or at - start > characters))
    if exact:
        return at, exact_key(data, start, at), EXACT, units
    return at, url_shape if url else shape, SHAPE, units


@kernel
def first_unit(data, start, stop, kinds):
    """`hash_word` of the unit that begins at `start`."""
    point, width = decode(data, start)
    value = np.uint64(point) + ONE
    at, in_run = start + width, kinds[point] & RUN
    while in_run and at < stop:
        point, width = decode(data, at)
        in_run = kinds[point] & RUN
        if in_run:
            value = value * BASE + np.uint64(point) + ONE
        at += width
    return value


@kernel
def last_unit(data, low, end, kinds):
    """`hash_word` of the unit that ends at `end`, of a text that begins at `low`."""
    at = previous(data, end)
    if kinds[decode(data, at)[0]] & RUN:
        while at > low and kinds[decode(data, previous(data, at))[0]] & RUN:
            at = previous(data, at)
    return first_unit(data, at, end, kinds)
