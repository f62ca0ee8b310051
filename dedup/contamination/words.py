# mypy: disallow-untyped-defs=False
"""The words of documents and test items as 64-bit hashes, so that case, punctuation, accents and white space don't matter.

A word is a run of `\\w` characters in the form that NFKD gives them, lower-cased and without marks. Apostrophes and combining
marks don't end a word and don't count. A character of a script that is written without spaces is a word of its own.
"""

import re
import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt

from corpusmill.dedup.words import decode
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.classes import CODE_POINTS, SURROGATES
from corpusmill.pipeline.text.hashing import mix64
from corpusmill.pipeline.text.words import UNSPACED

SKIPPED = 1 << 30  # neither part of a word nor its end
SINGLE = 1 << 31  # a word of its own
#: Apostrophes, the soft hyphen, joiners: what edits and encodings add to and take from words.
INVISIBLE = "'‘’ʼ＇\u00ad\u200c\u200d\u2060\ufeff"


@cache
def word_codes() -> npt.NDArray[np.uint32]:
    """uint32 of length 0x110000: one more than the plain form of each `\\w` character, 0 for what ends words, SKIPPED, or with SINGLE.

    About a second; kept per process.
    """
    import regex

    everything = "".join(chr(point) for point in range(CODE_POINTS) if point not in SURROGATES)
    codes = np.zeros(CODE_POINTS, np.uint32)
    for match in re.finditer(r"\w", everything):
        codes[ord(match.group())] = ord(_plain(match.group())) + 1
    singles = [ord(match.group()) for match in regex.finditer(f"[{UNSPACED}]", everything, regex.V1)]
    codes[singles] |= np.where(codes[singles] > 0, np.uint32(SINGLE), np.uint32(0))
    for match in regex.finditer(r"\p{M}", everything):
        codes[ord(match.group())] = SKIPPED
    codes[[ord(character) for character in INVISIBLE]] = SKIPPED
    return codes


def _plain(character: str) -> str:
    """The character in lower case without its marks, where that is one character that belongs to words."""
    form = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.category(c).startswith("M")).lower()
    for found in (form, character.lower()):
        if len(found) == 1 and re.match(r"\w", found):
            return found
    return character


@kernel(error_model="numpy")
def word_hashes(data, start, end, codes, out):
    """Writes the hash of each word of `data[start:end]` to `out` (uint64, at least (end - start) // 2 + 1 long); returns their number.

    Without a branch on where words end, as in `dedup.words.word_hashes`.
    """
    count = 0
    value = np.uint64(0)  # 0 between words: the first character makes it positive
    i = start
    while i < end:
        point = np.int64(data[i])
        if point < 0x80:
            i += 1
        else:
            point, step = decode(data, i, end)
            i += step
        code = np.uint64(codes[point])
        if code >= SKIPPED:
            if code != SKIPPED:
                out[count] = value
                count += int(value != np.uint64(0))
                out[count] = code
                count += 1
                value = np.uint64(0)
            continue
        inside = code != np.uint64(0)
        out[count] = value
        count += int((value != np.uint64(0)) & (not inside))
        value = value * np.uint64(0x9E3779B97F4A7C15) + code if inside else np.uint64(0)
    if value:
        out[count] = value
        count += 1
    for w in range(count):
        out[w] = mix64(out[w])
    return count


@kernel(error_model="numpy")
def word_spans(data, start, end, codes, spans):
    """Writes where each word of `word_hashes` begins and ends to `spans` (int64, words x 2); returns their number."""
    count = 0
    inside = False
    i = start
    while i < end:
        begin = i
        point, step = decode(data, i, end)
        i += step
        code = codes[point]
        if code == SKIPPED:
            if count and (inside or spans[count - 1, 1] == begin):  # a mark goes with its word
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


def words_of(text: bytes) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """The hashes of the words of one text, and their spans in bytes (words x 2)."""
    from corpusmill.dedup.words import read_only

    data = read_only(np.frombuffer(text, np.uint8))
    hashes, spans = np.empty(len(text) // 2 + 1, np.uint64), np.empty((len(text) // 2 + 1, 2), np.int64)
    count = word_hashes(data, 0, len(text), word_codes(), hashes)
    word_spans(data, 0, len(text), word_codes(), spans)
    return hashes[:count], spans[:count]
