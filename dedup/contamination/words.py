# mypy: disallow-untyped-defs=False
"""Makes 64-bit hashes of the words of documents and test items, so that case, punctuation, accents and white space don't matter.

A word is a run of letters and digits in NFKD, case-folded and without accents; digits of all scripts are read as ASCII's. Apostrophes and
combining marks are ignored and don't end a word. A character of a script without spaces is a word by itself, but not a digit.

Some texts differ from others only by their marks (brackets, operators, emoji). They are read a second time *with marks*: each mark is then
a word by itself.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from corpusmill.dedup.words import EXPANDED, SINGLE, SKIPPED, decode, word_hashes
from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import read_only
from corpusmill.text.utf8 import CODE_POINTS, SURROGATES
from corpusmill.text.words import UNSPACED

#: Apostrophes, the soft hyphen and joiners: characters that editing and encoding add to words or remove from them.
INVISIBLE = "'‘’ʼ＇\u00ad\u200c\u200d\u2060\ufeff"


@cache
def word_codes(marks: bool = False) -> npt.NDArray[np.uint32]:
    """Returns a code for each code point (uint32): 0 where it ends a word, its plain form plus 1, or a code with a flag of `dedup.words`.

    After the code points come the expansions ("ss" for "ß"). With `marks`, each mark is a word by itself. Takes about a second, once for
    each process.
    """
    import regex  # `re` has neither scripts nor categories

    everything = "".join(chr(point) for point in range(CODE_POINTS) if point not in SURROGATES)
    if marks:
        codes = word_codes().copy()
        for character in regex.findall(r"[\p{P}\p{S}]", everything):
            if not codes[ord(character)]:
                form = unicodedata.normalize("NFKC", character)
                codes[ord(character)] = SINGLE | (ord(form if len(form) == 1 else character) + 1)
        return codes
    codes = np.zeros(CODE_POINTS, np.uint32)
    expansions: list[int] = []
    for character in re.findall(r"[^\W_]", everything):
        form = _plain(character)
        if len(form) == 1:
            codes[ord(character)] = ord(form) + 1
        else:
            codes[ord(character)] = EXPANDED | (CODE_POINTS + len(expansions))
            expansions += [len(form), *(ord(c) + 1 for c in form)]
    for character in regex.findall(f"[{UNSPACED}]", everything, regex.V1):
        code = codes[ord(character)]
        if code and not character.isdecimal():
            codes[ord(character)] = SINGLE | (code if code < EXPANDED else ord(character) + 1)
    codes[[ord(character) for character in (*regex.findall(r"\p{M}", everything), *INVISIBLE)]] = SKIPPED
    return np.concatenate([codes, np.array(expansions, np.uint32)])


def _plain(character: str) -> str:
    """Returns the character case-folded, without accents, a digit as ASCII's; unchanged if the result is not letters and digits alone."""
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if character == unicodedata.normalize("NFKD", character) == character.casefold().replace("ı", "i"):  # both have the capital "I"
        return character
    form = _bare(_bare(character).casefold()).replace("ı", "i")
    return form if form.isalnum() else character


def _bare(text: str) -> str:
    kept = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.category(c).startswith("M"))
    return unicodedata.normalize("NFC", kept)


@kernel(error_model="numpy")
def word_spans(data, start, end, codes, spans):
    """Writes where each word that `word_hashes` finds begins and ends to `spans` (int64, words x 2); returns the number of words."""
    count = 0
    inside = False
    i = start
    while i < end:
        begin = i
        point, step = decode(data, i, end)
        i += step
        code = codes[point]
        if code == SKIPPED:
            if count and (inside or spans[count - 1, 1] == begin):  # a mark belongs to the word before it
                spans[count - 1, 1] = i
        elif code == 0:
            inside = False
        else:
            if code >= SINGLE or not inside:
                spans[count, 0] = begin
                count += 1
            spans[count - 1, 1] = i
            inside = code < SINGLE
    return count


def words_of(text: bytes, marks: bool = False) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Returns the hashes of the words of one text, and their spans in bytes (words x 2)."""
    data, codes = read_only(np.frombuffer(text, np.uint8)), word_codes(marks)
    hashes, spans = np.empty(len(text) + 1, np.uint64), np.empty((len(text) + 1, 2), np.int64)
    count = word_hashes(data, 0, len(text), codes, hashes)
    word_spans(data, 0, len(text), codes, spans)
    return hashes[:count], spans[:count]


# ---- passages of a text ----------------------------------------------------------------------------------


#: Characters of a passage that the report shows, at most.
SHOWN = 1000

Span = tuple[int, int]


def character_spans(text: str, ranges: Sequence[Span], marks: bool = False) -> list[Span]:
    """Returns the spans of ranges of words (numbered as by `words_of`) in a text, in characters, with the marks that touch them."""
    content = text.encode()
    _, spans = words_of(content, marks)
    places = [(int(spans[first, 0]), int(spans[behind - 1, 1])) for first, behind in ranges]
    characters, before, count = {}, 0, 0
    for place in sorted({place for span in places for place in span}):
        count += len(content[before:place].decode())
        characters[place], before = count, place
    return [_with_marks(text, characters[start], characters[end]) for start, end in places]


def _with_marks(text: str, start: int, end: int) -> Span:
    while start > 0 and _is_mark(text[start - 1]):
        start -= 1
    while end < len(text) and _is_mark(text[end]):
        end += 1
    return start, end


def _is_mark(character: str) -> bool:
    return not (character.isalnum() or character.isspace())


def united(spans: Sequence[Span]) -> list[Span]:
    """Returns the spans in ascending order, with overlapping and touching ones joined."""
    result: list[Span] = []
    for start, end in sorted(spans):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def without(text: str, spans: Sequence[Span]) -> str:
    """Returns the text without these spans of characters.

    The two sides of a cut are separated by a space, or by a line break if the span had one. Lines that become empty are dropped.
    """
    kept: list[str] = []
    behind = 0
    for start, end in united(spans):
        _append(kept, text[behind:start], behind > 0)
        if "\n" in text[start:end] and _trim(kept) not in ("", "\n"):
            kept.append("\n")
        behind = end
    _append(kept, text[behind:], behind > 0)
    return "".join(kept)


def _append(kept: list[str], right: str, cut: bool) -> None:
    """Appends `right` to the parts of the text that stay. `cut`: whether a span was cut before `right`."""
    if cut:
        last, right = _trim(kept), right.lstrip(" \t")
        if last in ("", "\n"):
            right = right.removeprefix("\n")
        elif right and not right.startswith("\n"):
            kept.append(" ")
    kept.append(right)


def _trim(kept: list[str]) -> str:
    """Removes spaces from the end; returns the last character that stays, or an empty string where none does."""
    while kept:
        kept[-1] = kept[-1].rstrip(" \t")
        if kept[-1]:
            return kept[-1][-1]
        kept.pop()
    return ""
