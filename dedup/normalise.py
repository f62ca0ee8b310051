# mypy: disallow-untyped-defs=False
"""Normal forms of texts: those for exact copies (texts are copies if their forms have one hash), and those that other pipelines compare."""

import re
import string
import unicodedata
from collections import namedtuple
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from corpusmill.dedup.config import ExactForm
from corpusmill.dedup.words import character, chunks, decode
from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import read_only, text_array, text_buffers
from corpusmill.text.utf8 import CODE_POINTS, SPACE, WORD, character_classes, lowercase_table, write_character

HASH_BYTES = 16
#: Bytes of text that are normalised at once (a longer document by itself): they stay in the processor's cache until they are hashed.
CHUNK_BYTES = 1 << 18
#: Bytes of ASCII that `_write_block` normalises at once.
BLOCK = 32
#: An entry of `_forms` has the size of the form in its upper 32 bits. The entry of a space.
_SIZE = np.uint64(32)
_SPACE_FORM = np.uint64(1 << 32 | 0x20)


@cache
def _forms(how: ExactForm, words: bool) -> npt.NDArray[np.uint64]:
    """Returns the form of each character (uint64 of length 0x110000): its UTF-8 in the low bytes, the first one lowest, and the number of
    these bytes in the upper 32 bits. A character that is left out becomes a space."""
    classes = character_classes()
    kept = classes & WORD if words else ~classes & SPACE
    points = np.arange(CODE_POINTS, dtype=np.uint32) if how == "whitespace" else lowercase_table()
    forms = np.where(kept, points, np.uint32(32)).astype(np.uint64)
    tail = [(forms >> np.uint64(shift) & np.uint64(63)) | np.uint64(0x80) for shift in (0, 6, 12)]
    two = forms >> np.uint64(6) | np.uint64(0xC0) | tail[0] << np.uint64(8)
    three = forms >> np.uint64(12) | np.uint64(0xE0) | tail[1] << np.uint64(8) | tail[0] << np.uint64(16)
    four = forms >> np.uint64(18) | np.uint64(0xF0) | tail[2] << np.uint64(8) | tail[1] << np.uint64(16) | tail[0] << np.uint64(24)
    sizes = [forms < np.uint64(limit) for limit in (0x80, 0x800, 0x10000)]
    content = np.select(sizes, [forms, two, three], four)
    return content | np.select(sizes, [np.uint64(1), np.uint64(2), np.uint64(3)], np.uint64(4)) << _SIZE


@kernel(inline="always")
def _is_space(byte):
    return ((byte >= 0x09) & (byte <= 0x0D)) | ((byte >= 0x1C) & (byte <= 0x20))


@kernel
def _write_block(data, at, case, out, place):
    """Writes the form of BLOCK bytes from `data[at]` to `out[place]`; returns whether it is valid: it is where all bytes are ASCII and no
    space follows a space.

    `at` and `place` are unsigned, and `at` is not 0. `case` (uint8) is 0x20 to lower the case, else 0. The loop has no jump, so that the
    compiler vectorises it.
    """
    odd = False
    for k in range(BLOCK):
        byte, before = data[at + np.uint64(k)], data[at + np.uint64(k) - np.uint64(1)]
        space = _is_space(byte)
        odd |= (byte >= 0x80) | (space & _is_space(before))
        lower = byte | (case if (byte >= 0x41) & (byte <= 0x5A) else np.uint8(0))
        out[place + np.uint64(k)] = np.uint8(0x20) if space else np.uint8(lower)
    return not odd


@kernel(error_model="numpy")
def _write(data, start, end, forms, blocks, case, out, begin):
    """Writes the form of `data[start:end]` to `out` from `begin`; returns its end. A run of spaces becomes one, and none stays at the ends.

    With `blocks`, most ASCII is written by `_write_block`; this is for forms that differ from the text only in spaces and case. Characters
    are written without a branch on where words end, as in `words.word_hashes`: four bytes are always written.
    """
    place, spaced, i, last = begin, np.int64(1), start, end - 1
    while i < end:
        if blocks and start < i <= end - BLOCK:
            if spaced and _is_space(data[i]):
                i += 1
                continue
            if _write_block(data, np.uint64(i), case, out, np.uint64(place)):
                place, i = place + BLOCK, i + BLOCK
                spaced = np.int64(_is_space(data[i - 1]))
                continue
        limit = min(i + BLOCK, end)
        while i < limit:
            point = np.int64(data[i])
            if point < 0x80:
                i += 1
            else:
                point, width = character(data[i], data[min(i + 1, last)], data[min(i + 2, last)], data[min(i + 3, last)], end - i)
                i += width
            form = forms[point]
            first = np.uint64(place)
            for k in range(4):
                out[first + np.uint64(k)] = np.uint8(form >> np.uint64(8 * k))
            space = np.int64(form == _SPACE_FORM)
            place += np.int64(form >> _SIZE) * (1 - (space & spaced))
            spaced = space
    return place - (spaced & np.int64(place > begin))


@kernel(error_model="numpy")
def _normalise(data, offsets, forms, symbols, blocks, case, out, places):
    """Normalises n texts. A text without words, whose form by `forms` would be empty, is written by `symbols`; otherwise all such texts
    would be equal."""
    for d in range(len(offsets) - 1):
        begin = places[d]
        place = _write(data, offsets[d], offsets[d + 1], forms, blocks, case, out, begin)
        if place == begin and not blocks:
            place = _write(data, offsets[d], offsets[d + 1], symbols, blocks, case, out, begin)
        places[d + 1] = place


def normalised(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], how: ExactForm
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Returns Arrow text `(data, offsets)` in normalised form, with the same layout.

    A character is lower-cased by `str.lower`, unless that gives several characters.
    """
    if how == "none":
        return data, offsets
    out = np.empty(int(offsets[-1] - offsets[0]) * 3 + BLOCK, np.uint8)  # invalid bytes grow to three
    places = np.zeros(len(offsets), np.int64)
    words, case = how == "words", np.uint8(0x20 if how == "lowercase" else 0)
    forms, symbols = _forms(how, words), _forms(how, False)
    _normalise(read_only(data), read_only(offsets), forms, symbols, not words, case, out, places)
    return out, places


def repaired(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Returns the texts as valid UTF-8: invalid bytes become U+FFFD."""
    try:
        text_array(data, offsets).validate(full=True)
    except pa.ArrowInvalid:
        texts = [data[a:b].tobytes().decode(errors="replace") for a, b in pairwise(offsets.tolist())]
        return text_buffers(pa.array(texts, pa.large_string()))
    return data, offsets


def exact_hashes(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], how: ExactForm) -> bytes:
    """Returns the XXH3-128 (canonical bytes) of each normalised text, one after the other: 16 bytes for each document."""
    hashes: list[bytes] = []
    for first, last in chunks(offsets, CHUNK_BYTES):
        form, places = normalised(data, offsets[first : last + 1], how)
        view = form.data
        hashes += [xxhash.xxh3_128_digest(view[a:b]) for a, b in pairwise(places.tolist())]
    return b"".join(hashes)


# ---- the forms that other pipelines compare: a reference in Python, and tables of characters --------------


Simplification = Literal["datatrove", "redpajama", "refinedweb"]
SIMPLIFICATIONS = ("datatrove", "redpajama", "refinedweb")

#: The kinds of a character. BLANK: it ends a word; a run of these becomes one space. GONE: it is dropped before spaces are counted. DIGIT:
#: a number of these becomes one 0. SEPARATOR: it may stand in a number once. SIGMA: the capital sigma. CASED: it has upper or lower case.
#: IGNORABLE: the search for a cased neighbour skips it. CHANGED: its form differs from the character.
BLANK, GONE, DIGIT, SEPARATOR, SIGMA, CASED, IGNORABLE, CHANGED = 1, 2, 4, 8, 16, 32, 64, 128
#: The code points that have an entry in the tables. Any other character is its own form and has no case.
KNOWN = [*range(0xD800), *range(0xE000, 0x32000), *range(0xE0000, 0xE0200)]

#: Tables by code point (length 0x110000). `kinds` (uint8): the kinds of the character. `begins` (int32), `sizes` (uint8): where its form
#: lies in `forms` (uint8, UTF-8). `first`, `last` (uint8): the canonical combining classes of the form's first and last character.
Tables = namedtuple("Tables", "kinds begins sizes forms first last")

_SPACES = re.compile(r"\s+")
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)


def redpajama(text: str) -> str:
    """RedPajama v2's `normalize` (app/src/utilities/text/normalization.py)."""
    text = text.translate(_ASCII_PUNCTUATION).lower()
    return unicodedata.normalize("NFD", _SPACES.sub(" ", text.strip()))


def refinedweb(text: str) -> str:
    """RefinedWeb's form (appendix G.3.1): no punctuation (Unicode's category P and ASCII's), lower case, NFD, no accents, single spaces."""
    text = text.translate(_ASCII_PUNCTUATION)
    text = "".join(c for c in text if unicodedata.category(c)[0] != "P").lower()
    text = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
    return _SPACES.sub(" ", text).strip()


def reference(how: Simplification) -> Callable[[str], str]:
    """Returns a function that simplifies one text in Python: datatrove's own, or ours, written after the other pipelines' sources."""
    if how == "datatrove":
        from datatrove.utils.text import simplify_text

        return simplify_text
    return redpajama if how == "redpajama" else refinedweb


@cache
def tables(how: Simplification) -> Tables:
    """Returns the tables of characters for the kernel. Takes about half a second, once for each process."""
    kinds = np.zeros(CODE_POINTS, np.uint8)
    begins, sizes = np.zeros(CODE_POINTS, np.int32), np.zeros(CODE_POINTS, np.uint8)
    first, last = np.zeros(CODE_POINTS, np.uint8), np.zeros(CODE_POINTS, np.uint8)
    known = "".join(map(chr, KNOWN))
    blank, gone, digits, separators = _classes(how, known)
    _mark_case(known, kinds)
    forms = bytearray()
    for point, letter in zip(KNOWN, known, strict=True):
        lower = letter.lower()
        if letter in gone:
            kinds[point] = GONE
        elif letter in digits:  # tested before `blank`: datatrove's punctuation includes a １
            kinds[point] |= DIGIT
        elif letter in blank or lower in blank:
            kinds[point] |= BLANK | (SEPARATOR if letter in separators else 0)
        else:
            form = unicodedata.normalize("NFD", lower)
            if form == letter and letter not in separators and not unicodedata.combining(letter) and unicodedata.category(letter) != "Mn":
                continue  # as nearly all: it is its own form
            if how != "redpajama":
                form = "".join(c for c in form if unicodedata.category(c) != "Mn")
            kinds[point] |= (SEPARATOR if letter in separators else 0) | (SIGMA if letter == "Σ" else 0)
            if form != letter:
                content = form.encode()
                kinds[point] |= CHANGED
                begins[point], sizes[point] = len(forms), len(content)
                forms += content
            if form:
                first[point], last[point] = unicodedata.combining(form[0]), unicodedata.combining(form[-1])
    return Tables(kinds, begins, sizes, np.frombuffer(bytes(forms), np.uint8), first, last)


def _classes(how: Simplification, known: str) -> tuple[set[str], set[str], set[str], set[str]]:
    """Returns `(blank, gone, digits, separators)`: the characters of these four kinds."""
    spaces = set(_SPACES.findall("a".join(known)))
    if how == "datatrove":
        import regex
        from datatrove.utils.text import PUNCTUATION

        return spaces | set(PUNCTUATION), set(), set(regex.findall(r"\p{Nd}", known)), set(".,،٫⎖⎗⎘")
    gone = set(string.punctuation)
    if how == "refinedweb":
        gone |= {c for c in known if unicodedata.category(c) == "Mn" or unicodedata.category(c)[0] == "P"}
    return spaces, gone, set(), set()


def _mark_case(known: str, kinds: npt.NDArray[np.uint8]) -> None:
    """Marks characters as CASED or IGNORABLE in `kinds`, as `str.lower` treats them: a sigma is final if it follows a cased character and
    none follows it."""
    others = known.replace("İ", "i")  # the only character whose lower case has two characters
    after = "".join(f"{c}Σ " for c in others).lower()[1::3]
    skipping = "".join(f"A{c}Σ " for c in others).lower()[2::4]
    for point, cased, either in zip(KNOWN, after, skipping, strict=True):
        if either == "ς":
            kinds[point] = CASED if cased == "ς" else IGNORABLE


# ---- the forms that other pipelines compare: the kernel --------------------------------------------------


_SPACE, _ZERO = 0x20, 0x30
_SIGMA, _FINAL_SIGMA = 0x3C3, 0x3C2
#: The kinds that need special treatment.
_SPECIAL = BLANK | GONE | DIGIT | SIGMA
_OUT_OF_ORDER = -1


@kernel
def _after_number(data, i, end, kinds):
    """Returns the end of a number whose first digit ends at `i`: digits, and at most one separator with digits after it."""
    parted = False
    while i < end:
        point, step = decode(data, i, end)
        if not kinds[point] & DIGIT:
            if parted or not kinds[point] & SEPARATOR or i + step >= end:
                break
            digit, _ = decode(data, i + step, end)
            if not kinds[digit] & DIGIT:
                break
            parted = True
        i += step
    return i


@kernel
def _cased_follows(data, i, end, kinds):
    while i < end:
        point, step = decode(data, i, end)
        if not kinds[point] & (IGNORABLE | GONE):
            return kinds[point] & CASED != 0
        i += step
    return False


@kernel(error_model="numpy")
def _simplify_text(data, start, end, t, out, begin):
    """Writes the form of `data[start:end]` to `out` from `begin`; returns its end, or _OUT_OF_ORDER where combining marks need sorting."""
    kinds, place, i = t.kinds, begin, start
    # `blank`: no space may come next. `cased`: whether the last letter has case. `order`: the combining class of the last character
    blank, cased, order = True, False, 0
    while i < end:
        point = np.int64(data[i])
        if point < 0x80:
            i += 1
        else:
            point, step = decode(data, i, end)
            i += step
        kind = kinds[point]
        if kind & _SPECIAL:
            if kind & GONE:
                continue
            order = 0
            if kind & BLANK:
                if not blank and place > begin:
                    out[place] = _SPACE
                    place += 1
                blank = True
            elif kind & DIGIT:
                out[place] = _ZERO
                place += 1
                i = _after_number(data, i, end, kinds)
                blank = False
            else:
                place = write_character(out, place, _FINAL_SIGMA if cased and not _cased_follows(data, i, end, kinds) else _SIGMA)
                blank = False
        else:
            if t.first[point] and t.first[point] < order:
                return _OUT_OF_ORDER
            if kind & CHANGED:
                form = t.begins[point]
                for k in range(t.sizes[point]):
                    out[place] = t.forms[form + k]
                    place += 1
                if t.sizes[point]:
                    order = t.last[point]
            else:
                place = write_character(out, place, point)
                order = t.last[point]
            blank = False
        if not kind & IGNORABLE:
            cased = kind & CASED != 0
    while place > begin and out[place - 1] == _SPACE:
        place -= 1
    return place


@kernel(error_model="numpy")
def _simplify(data, offsets, first, t, out, places):
    """Simplifies the texts from number `first` on; returns the number of the first text that needs Python, or the number of texts."""
    for d in range(first, len(offsets) - 1):
        place = _simplify_text(data, offsets[d], offsets[d + 1], t, out, places[d])
        if place == _OUT_OF_ORDER:
            return d
        places[d + 1] = place
    return len(offsets) - 1


def simplified(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], how: Simplification
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Returns Arrow text `(data, offsets)` in another pipeline's form, with the same layout. Invalid UTF-8 becomes U+FFFD."""
    out = np.empty(int(offsets[-1] - offsets[0]) * 3 + 1, np.uint8)  # no character grows more than threefold
    places = np.zeros(len(offsets), np.int64)
    texts = len(offsets) - 1
    done = 0
    while (done := _simplify(read_only(data), read_only(offsets), done, tables(how), out, places)) < texts:
        text = data[offsets[done] : offsets[done + 1]].tobytes().decode(errors="replace")
        form = reference(how)(text).encode()
        out[places[done] : places[done] + len(form)] = np.frombuffer(form, np.uint8)
        places[done + 1] = places[done] + len(form)
        done += 1
    return out, places


def texts_of(data: npt.NDArray[np.uint8], places: npt.NDArray[np.int64]) -> list[str]:
    """Returns the texts as a list of `str`."""
    return [data[a:b].tobytes().decode() for a, b in pairwise(places.tolist())]
