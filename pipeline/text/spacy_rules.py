# mypy: disallow-untyped-defs=False
"""spaCy's rule for English words, read from spaCy: kinds of characters, and the words that its exceptions are made of.

spaCy (`spacy.tokenizer.Tokenizer`) cuts a text at whitespace and each chunk by regular expressions for prefixes, suffixes, infixes
and URLs, and by a list of exceptions. The expressions name characters; where they name classes of letters, only the letters
next to a mark count. So a chunk is a sequence of units: *runs* of letters, digits and their like, and single other characters. Two chunks
have the same pieces, counted in units, where they have equal marks between runs of equal kinds, no run of them occurs in an
exception, and nothing in them can be a URL or a unit after a number. `spacy_tokens` builds on this; tests hold it against spaCy.
"""

import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.hashing import BASE, ONE, find, hash_span, insert, mix64, table_size
from corpusmill.pipeline.text.utf8 import CODE_POINTS, SURROGATES, decode, previous
from corpusmill.pipeline.text.words import hash_word


def import_spacy() -> Any:
    """spaCy, without the torch that its models would run on: that takes 200 MB and most of the time, and words need no model."""
    if "spacy" in sys.modules or "torch" in sys.modules:
        import spacy

        return spacy
    sys.modules["torch"] = None  # type: ignore[assignment]  # how Python marks a module that is not there
    try:
        import spacy
    finally:
        del sys.modules["torch"]
    return spacy


RUN = 1  # part of a run; all other characters are units of their own
SPACE = 2  # str.isspace
ALPHA, LOWER, UPPER = 4, 8, 16  # spaCy's own classes of letters
DIGIT = 32  # 0 to 9
PUNCTUATION = 64  # Unicode category P: spaCy's `is_punct` where all characters of a piece have it
SENTENCE_END = 128  # one of the sentencizer's `punct_chars`

#: Letters that the expressions name themselves: possessives, dollars, degrees.
_NAMED_LETTERS = ("s", "S", "US", "C", "A", "F", "f", "c", "K", "k")

#: In `SpacyRules.run_filter`.
SPLITS, EXCEPTION = 1, 2
_FILTER_BITS = 15


@kernel(inline="always")
def run_hash(first_bytes, length):
    """The place in `run_filter` of a run of ASCII, given its first eight bytes (little-endian, zero where it is shorter)."""
    return (mix64(first_bytes ^ np.uint64(length)) * BASE) >> np.uint64(64 - _FILTER_BITS)


@kernel
def pair_hash(left, right):
    return mix64(mix64(left) * BASE + right)


@dataclass(frozen=True)
class SpacyRules:
    """Tables for the kernels. Sets are open-addressed (`pipeline.text.hashing`)."""

    tokenizer: Any  # spaCy's, of its blank English pipeline, with a vocabulary of its own
    kinds: npt.NDArray[np.uint8]  # by code point
    byte_kinds: npt.NDArray[np.uint8]  # by byte: those of ASCII, 0 for the others
    run_filter: npt.NDArray[
        np.uint8
    ]  # by `run_hash`: SPLITS where spaCy may split the run standing alone, EXCEPTION where it may be in one
    splits_mark: npt.NDArray[np.uint8]  # by `4 * mark + 2 * (last letter but one is capital) + (last is)`: whether it comes off a word
    exception_runs: npt.NDArray[np.uint64]  # `hash_word` of all runs in exceptions
    longest_exception_run: int  # characters
    merged: npt.NDArray[np.uint64]  # `hash_span` of exceptions that spaCy puts together again after cutting
    longest_merged: int  # bytes
    merged_pairs: npt.NDArray[np.uint64]  # `pair_hash` of units side by side in one of them
    merged_units: int  # the most units of one of them


@cache
def spacy_rules() -> SpacyRules:
    """The rules of the spaCy that is installed. Takes a few seconds, most of it spaCy's import; kept per process."""
    tokenizer = _bare(import_spacy().blank("en").tokenizer)
    kinds = _kinds()
    exceptions = sorted(tokenizer.rules)
    runs = sorted({unit for text in exceptions for unit in units(text, kinds) if kinds[ord(unit[0])] & RUN} | set(_NAMED_LETTERS))
    # As `Tokenizer.add_special_case` decides which exceptions are looked for in the pieces, too.
    merged = [s for s in exceptions if tokenizer.find_prefix(s) or tokenizer.find_infix(s) or tokenizer.find_suffix(s) or " " in s]
    merged_units = [list(units(text, kinds)) for text in merged]
    return SpacyRules(
        tokenizer,
        kinds,
        np.concatenate([kinds[:128], np.zeros(128, np.uint8)]),
        _run_filter(runs, [run for run in runs if len(tokenizer(run)) > 1]),
        _splits_mark(tokenizer),
        _set(hash_word(run) for run in runs),
        max(map(len, runs)),
        _set(hash_span(np.frombuffer(text.encode(), np.uint8), 0, len(text.encode())) for text in merged),
        max(len(text.encode()) for text in merged),
        _set(pair_hash(hash_word(left), hash_word(right)) for found in merged_units for left, right in pairwise(found)),
        max(map(len, merged_units)),
    )


def units(text: str, kinds: npt.NDArray[np.uint8]) -> Iterator[str]:
    """The runs and single other characters of a text without spaces."""
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
    from spacy.lang import char_classes as classes
    from spacy.pipeline import Sentencizer

    every = "".join(map(chr, range(CODE_POINTS)))

    def those(test: Callable[[str], bool], characters: str = every) -> npt.NDArray[np.bool_]:
        return np.fromiter(map(test, characters), np.bool_, len(characters))

    def in_class(letters: str) -> npt.NDArray[np.bool_]:
        """By one search of all characters, which is faster than a match for each."""
        found = np.zeros(CODE_POINTS, np.bool_)
        for match in re.finditer(f"[{letters}]+", every):
            found[match.start() : match.end()] = True
        return found

    table = np.zeros(CODE_POINTS, np.uint8)
    major = [category[0] for category in map(unicodedata.category, every)]
    punctuation, symbol = (np.fromiter((letter == kind for letter in major), np.bool_, CODE_POINTS) for kind in "PS")
    named = set(classes.PUNCT + classes.CONCAT_QUOTES + classes.CURRENCY + classes.HYPHENS + "§%=—–+°²'’")
    in_run = ~(punctuation | symbol | in_class(classes.ICONS) | those(named.__contains__))
    in_run[:128] = those(str.isalnum, every[:128])
    table[:128][those(str.isdecimal, every[:128])] |= DIGIT
    for kind, found in (
        (PUNCTUATION, punctuation), (RUN, in_run), (ALPHA, in_class(classes.ALPHA)), (LOWER, in_class(classes.ALPHA_LOWER)),
        (UPPER, in_class(classes.ALPHA_UPPER)),
    ):  # fmt: skip
        table[found] |= kind
    table[those(str.isspace)] = SPACE
    table[SURROGATES.start : SURROGATES.stop] = 0
    for character in Sentencizer.default_punct_chars:
        table[ord(character)] |= SENTENCE_END
    return table


def _bare(tokenizer: Any) -> Any:
    """The same tokenizer with a vocabulary that knows nothing about words but themselves: it computes nothing for new ones, which
    takes spaCy longer than cutting them."""
    from spacy.tokenizer import Tokenizer
    from spacy.vocab import Vocab

    names = ("rules", "prefix_search", "suffix_search", "infix_finditer", "token_match", "url_match", "faster_heuristics")
    return Tokenizer(Vocab(), **{name: getattr(tokenizer, name) for name in names})


def _run_filter(exceptions: Sequence[str], splitting: Iterable[str]) -> npt.NDArray[np.uint8]:
    table = np.zeros(1 << _FILTER_BITS, np.uint8)
    for bit, runs in ((EXCEPTION, exceptions), (SPLITS, splitting)):
        for run in runs:
            if run.isascii():
                table[run_hash(np.uint64(int.from_bytes(run.encode()[:8], "little")), len(run))] |= bit
            elif bit == SPLITS:
                raise RuntimeError(f"spaCy splits {run!r}: runs that are not ASCII are taken for whole")
    return table


def _splits_mark(tokenizer: Any) -> npt.NDArray[np.uint8]:
    table = np.zeros(4 * 128, np.uint8)
    for byte in range(0x21, 0x7F):
        for case, word in enumerate(("qzqz", "qzqZ", "qzQz", "qzQZ")):
            table[4 * byte + case] = len(tokenizer(word + chr(byte))) == 2
    return table


def _set(keys: Iterator[Any]) -> npt.NDArray[np.uint64]:
    """An open-addressed set, sparse enough that most lookups end at once."""
    distinct = sorted({int(key) for key in keys})
    table = np.zeros(4 * table_size(len(distinct)), np.uint64)
    for key in distinct:
        insert(table, table.size - 1, np.uint64(key))
    return table


# ----------------------------------------------------------------------------------------------------
# One chunk (what stands between spaces) inside kernels: where its units are, and under which key its pieces are known.
#
# A chunk's *shape* is all that its pieces depend on, counted in units: its marks and the runs that occur in spaCy's exceptions
# as they are; of other runs, the kinds of the first and the last two characters and whether there are more than one. Where a URL may
# be found (a dot before two small letters), also what spaCy's pattern of URLs sees in a run of ASCII: whether it may be a top
# level domain (small letters only) and how many digits a port may have. Some chunks are known only as they are ("exactly"): those
# in which a URL may be found that are not ASCII or longer than MOST_URL bytes (a label of a host has a greatest length), or have
# three dots before digits (addresses); those with letters behind digits (which may be a unit: 5km); those of more than MOST_UNITS units.

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
