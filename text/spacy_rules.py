# mypy: disallow-untyped-defs=False
"""spaCy's rules for English words, for kernels: the kinds of characters, and the units of its exceptions.

spaCy (`spacy.tokenizer.Tokenizer`) splits a text at whitespace into chunks, and each chunk into pieces: by regular expressions for
prefixes, suffixes, infixes and URLs, and by a list of exceptions. The expressions name single characters; where they name classes of
letters, only the letters next to a mark count. So a chunk is a sequence of units: *runs* of letters, digits and similar characters, and
single other characters (*marks*). Two chunks have the same pieces, counted in units, where their marks are equal, their runs are of equal
kinds, no run occurs in an exception, and nothing can be a URL or a unit after a number. `spacy_tokens` relies on this, and tests compare
it with spaCy.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel
from corpusmill.text.english_tokenizer import EnglishTokenizer, english, english_tokenizer
from corpusmill.text.hashing import BASE, ONE, find, hash_set, hash_span, mix64
from corpusmill.text.utf8 import CODE_POINTS, SURROGATES, decode, previous
from corpusmill.text.words import hash_word

RUN = 1  # part of a run; all other characters are units of their own
SPACE = 2  # str.isspace
ALPHA, LOWER, UPPER = 4, 8, 16  # spaCy's own classes of letters
DIGIT = 32  # 0 to 9
PUNCTUATION = 64  # Unicode category P: spaCy's `is_punct` where all characters of a piece have it
SENTENCE_END = 128  # one of the sentencizer's `punct_chars`

#: From this code point on all characters (rare ideographs, private, invisible and unassigned ones) are parts of runs and nothing else.
_RUNS_FROM = 0x32000
#: Letters that the expressions name directly: for possessives, dollars and degrees.
_NAMED_LETTERS = ("s", "S", "US", "C", "A", "F", "f", "c", "K", "k")

#: The bits of an item of `SpacyRules.run_filter`.
SPLITS, EXCEPTION = 1, 2
_FILTER_BITS = 15


@kernel(inline="always")
def run_hash(first_bytes, length):
    """Returns the index in `run_filter` of an ASCII run, from its first eight bytes (little-endian, padded with zeros) and length."""
    return (mix64(first_bytes ^ np.uint64(length)) * BASE) >> np.uint64(64 - _FILTER_BITS)


@kernel
def pair_hash(left, right):
    return mix64(mix64(left) * BASE + right)


class SpacyRules(NamedTuple):
    """spaCy's tokenizer rules as arrays for the kernels. A set is a hash table with open addressing (`text.hashing`)."""

    kinds: npt.NDArray[np.uint8]  # by code point
    byte_kinds: npt.NDArray[np.uint8]  # by byte: the kinds of ASCII characters, 0 for other bytes
    run_filter: npt.NDArray[
        np.uint8
    ]  # by `run_hash`: SPLITS where spaCy may split the run if it is a whole chunk, EXCEPTION where the run may be in an exception
    splits_mark: npt.NDArray[np.uint8]  # by `4 * mark + 2 * (last letter but one is capital) + (last is)`: whether the mark is split off
    exception_runs: npt.NDArray[np.uint64]  # set: `hash_word` of all runs in exceptions
    longest_exception_run: int  # characters
    merged: npt.NDArray[np.uint64]  # set: `hash_span` of exceptions that spaCy splits and then merges again
    longest_merged: int  # bytes
    merged_pairs: npt.NDArray[np.uint64]  # set: `pair_hash` of neighbouring units in such an exception
    merged_units: int  # the most units of such an exception


@cache
def spacy_rules() -> SpacyRules:
    """Returns the rules. Takes about a second once a process, mostly for the kinds of all characters."""
    tokenizer = english_tokenizer()
    kinds = _kinds()
    exceptions = sorted(tokenizer.exceptions)
    runs = sorted({unit for text in exceptions for unit in units(text, kinds) if kinds[ord(unit[0])] & RUN} | set(_NAMED_LETTERS))
    merged_units = [list(units(text, kinds)) for text in tokenizer.merged]
    return SpacyRules(
        kinds,
        np.concatenate([kinds[:128], np.zeros(128, np.uint8)]),
        _run_filter(runs, [run for run in runs if tokenizer.count(run) > 1]),
        _splits_mark(tokenizer),
        hash_set(hash_word(run) for run in runs),
        max(map(len, runs)),
        hash_set(hash_span(np.frombuffer(text.encode(), np.uint8), 0, len(text.encode())) for text in tokenizer.merged),
        max(len(text.encode()) for text in tokenizer.merged),
        hash_set(pair_hash(hash_word(left), hash_word(right)) for found in merged_units for left, right in pairwise(found)),
        max(map(len, merged_units)),
    )


def units(text: str, kinds: npt.NDArray[np.uint8]) -> Iterator[str]:
    """Yields the units of a text without spaces: runs and single other characters."""
    start = 0
    for place, character in enumerate(text):
        if not kinds[ord(character)] & RUN:
            if start < place:
                yield text[start:place]
            yield character
            start = place + 1
    if start < len(text):
        yield text[start:]


def _kinds() -> npt.NDArray[np.uint8]:
    classes = english()["classes"]
    every = "".join(map(chr, range(_RUNS_FROM)))

    def those(test: Callable[[str], bool], characters: str = every) -> npt.NDArray[np.bool_]:
        return np.fromiter(map(test, characters), np.bool_, len(characters))

    def in_class(letters: str) -> npt.NDArray[np.bool_]:
        """Tests all characters by one search, which is faster than a match for each."""
        found = np.zeros(_RUNS_FROM, np.bool_)
        for match in re.finditer(f"[{letters}]+", every):
            found[match.start() : match.end()] = True
        return found

    table = np.full(CODE_POINTS, RUN, np.uint8)
    known = table[:_RUNS_FROM]
    known[:] = 0
    major = [category[0] for category in map(unicodedata.category, every)]
    punctuation, symbol = (np.fromiter((letter == kind for letter in major), np.bool_, _RUNS_FROM) for kind in "PS")
    named = set(english()["marks"] + "§%=—–+°²'’")
    in_run = ~(punctuation | symbol | in_class(classes["icons"]) | those(named.__contains__))
    in_run[:128] = those(str.isalnum, every[:128])
    known[:128][those(str.isdecimal, every[:128])] |= DIGIT
    for kind, found in (
        (PUNCTUATION, punctuation), (RUN, in_run), (ALPHA, in_class(classes["alpha"])), (LOWER, in_class(classes["lower"])),
        (UPPER, in_class(classes["upper"])),
    ):  # fmt: skip
        known[found] |= kind
    known[those(str.isspace)] = SPACE
    table[SURROGATES.start : SURROGATES.stop] = 0
    for character in english()["sentence_ends"]:
        table[ord(character)] |= SENTENCE_END
    return table


def _run_filter(exceptions: Sequence[str], splitting: Iterable[str]) -> npt.NDArray[np.uint8]:
    table = np.zeros(1 << _FILTER_BITS, np.uint8)
    for bit, runs in ((EXCEPTION, exceptions), (SPLITS, splitting)):
        for run in runs:
            if run.isascii():
                table[run_hash(np.uint64(int.from_bytes(run.encode()[:8], "little")), len(run))] |= bit
            elif bit == SPLITS:
                raise RuntimeError(f"spaCy splits {run!r}: runs that are not ASCII are taken for whole")
    return table


def _splits_mark(tokenizer: EnglishTokenizer) -> npt.NDArray[np.uint8]:
    table = np.zeros(4 * 128, np.uint8)
    for byte in range(0x21, 0x7F):
        for case, word in enumerate(("qzqz", "qzqZ", "qzQz", "qzQZ")):
            table[4 * byte + case] = tokenizer.count(word + chr(byte)) == 2
    return table


# ----------------------------------------------------------------------------------------------------
# One chunk (the text between two spaces) inside kernels: the places of its units, and the key under which its pieces are stored.
#
# The *shape* of a chunk is everything on which its pieces, counted in units, depend: its marks, and the runs that occur in spaCy's
# exceptions; of each other run, the kinds of its first and its last two characters, and whether it has more than one. Where a URL is
# possible (a dot before two small letters), the shape also has what spaCy's URL pattern tests in an ASCII run: whether it may be a top
# level domain (small letters only), and how many digits a port may have. Some chunks are stored by their exact bytes instead:
#
# * where a URL is possible: chunks that are not ASCII, or longer than MOST_URL bytes (the labels of a host have a maximum length);
# * chunks with three dots before digits (addresses);
# * chunks with letters after digits (which may be a unit: 5km);
# * chunks of more than MOST_UNITS units.

#: The kinds of a chunk's key. A TOO_LONG chunk has none: its units are its pieces.
SHAPE, EXACT, TOO_LONG = 0, 1, 2
#: The most units of a chunk with a SHAPE key.
MOST_UNITS = 60
#: The most bytes of a chunk with a SHAPE key in which a URL is possible: no label of a host in it can be too long.
MOST_URL = 64
#: spaCy's time grows with the square of the length of some chunks. Beyond these limits (half a second) each unit is a word.
MOST_BYTES = 1 << 16
MOST_STEPS = 1 << 22  # characters, times the units at both ends that spaCy may split off one by one
MOST_COLONS = 1 << 26  # characters, times colons (from each colon, spaCy searches for a URL with a user name)

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
    """Returns the key of the chunk that begins at `start`, together with its neighbours, `data[first:last]`."""
    return mix64(exact_key(data, first, last) * BASE + np.uint64(start - first) + ONE)


@kernel
def scan_chunk(data, start, stop, kinds, exception_runs, longest_exception_run, places):
    """Returns `(end, key, kind of the key, number of units)` of the chunk that begins at `start`, and writes to `places` where its
    units begin.

    `places` is int64 of length MOST_UNITS + 1; further units are not written.
    """
    at, units, characters, colons, digit_dots = start, 0, 0, 0, 0
    head, tail, plain_run = 0, 0, False  # units before the first and after the last run that is in no exception
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
    """Returns `hash_word` of the unit that begins at `start`."""
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
    """Returns `hash_word` of the unit that ends at `end`, in a text that begins at `low`."""
    at = previous(data, end)
    if kinds[decode(data, at)[0]] & RUN:
        while at > low and kinds[decode(data, previous(data, at))[0]] & RUN:
            at = previous(data, at)
    return first_unit(data, at, end, kinds)
