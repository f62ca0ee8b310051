"""spaCy's rule for English words, read from spaCy: kinds of characters, and the words that its exceptions are made of.

spaCy (`spacy.tokenizer.Tokenizer`) cuts a text at whitespace and each chunk by regular expressions for prefixes, suffixes, infixes
and URLs, and by a list of exceptions. The expressions name characters; where they name classes of letters, only the letters
next to a mark count. So a chunk is a sequence of units: *runs* of letters, digits and their like, and single other characters. Two chunks
have the same pieces, counted in units, where they have equal marks between runs of equal kinds, no run of them occurs in an
exception, and nothing in them can be a URL or a unit after a number. `spacy_kernel` builds on this; tests hold it against spaCy.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.classes import CODE_POINTS, SURROGATES
from corpusmill.pipeline.text.hashing import BASE, mix64
from corpusmill.pipeline.text.spacy_import import import_spacy
from corpusmill.pipeline.text.table import hash_span, insert, table_size
from corpusmill.pipeline.text.words import hash_word

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
def run_hash(first_bytes, length):  # type: ignore[no-untyped-def]
    """The place in `run_filter` of a run of ASCII, given its first eight bytes (little-endian, zero where it is shorter)."""
    return (mix64(first_bytes ^ np.uint64(length)) * BASE) >> np.uint64(64 - _FILTER_BITS)


@kernel
def pair_hash(left, right):  # type: ignore[no-untyped-def]
    return mix64(mix64(left) * BASE + right)


@dataclass(frozen=True)
class SpacyRules:
    """Tables for the kernels. Sets are open-addressed (`pipeline.text.table`)."""

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
