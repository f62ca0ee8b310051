"""How other pipelines simplify a text before they compare it: as Python, and as tables of characters for the kernel (`simplify`)."""

import re
import string
import unicodedata
from collections import namedtuple
from collections.abc import Callable
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.text.utf8 import CODE_POINTS

Simplification = Literal["datatrove", "redpajama", "refinedweb"]
SIMPLIFICATIONS = ("datatrove", "redpajama", "refinedweb")

#: What a character is: parts words (and becomes one space with its neighbours); is gone before spaces are counted; a digit of a
#: number, which becomes 0; may stand in a number once; capital sigma; has upper or lower case; is skipped where case is looked
#: for; becomes other characters than itself.
BLANK, GONE, DIGIT, SEPARATOR, SIGMA, CASED, IGNORABLE, CHANGED = 1, 2, 4, 8, 16, 32, 64, 128
#: The code points that a table treats one by one; all others are themselves, and of no case.
KNOWN = [*range(0xD800), *range(0xE000, 0x32000), *range(0xE0000, 0xE0200)]

#: `kinds` uint8 and `begins` int32 of length 0x110000: what a character is, and where its form begins in `forms` (uint8, UTF-8),
#: which is `sizes` (uint8) bytes long. `first` and `last` uint8: the canonical combining classes of the form's ends.
Tables = namedtuple("Tables", "kinds begins sizes forms first last")

_SPACES = re.compile(r"\s+")
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)


def redpajama(text: str) -> str:
    """RedPajama v2's `normalize` (app/src/utilities/text/normalization.py)."""
    text = text.translate(_ASCII_PUNCTUATION).lower()
    return unicodedata.normalize("NFD", _SPACES.sub(" ", text.strip()))


def refinedweb(text: str) -> str:
    """RefinedWeb, appendix G.3.1: no punctuation (Unicode's P and ASCII's), lower case, NFD, no accents, spaces normalised."""
    text = text.translate(_ASCII_PUNCTUATION)
    text = "".join(c for c in text if unicodedata.category(c)[0] != "P").lower()
    text = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
    return _SPACES.sub(" ", text).strip()


def reference(how: Simplification) -> Callable[[str], str]:
    """The simplification of one text, in Python: datatrove's own function, or ours after the others' descriptions."""
    if how == "datatrove":
        from datatrove.utils.text import simplify_text

        return simplify_text
    return redpajama if how == "redpajama" else refinedweb


@cache
def tables(how: Simplification) -> Tables:
    """What the kernel needs to know of each character. About half a second; kept per process."""
    kinds = np.zeros(CODE_POINTS, np.uint8)
    begins, sizes = np.zeros(CODE_POINTS, np.int32), np.zeros(CODE_POINTS, np.uint8)
    first, last = np.zeros(CODE_POINTS, np.uint8), np.zeros(CODE_POINTS, np.uint8)
    known = "".join(map(chr, KNOWN))
    blank, gone, digits, separators = _classes(how, known)
    _mark_case(known, kinds)
    forms = bytearray()
    for point, character in zip(KNOWN, known, strict=True):
        lower = character.lower()
        if character in gone:
            kinds[point] = GONE
        elif character in digits:  # before what parts words: datatrove's punctuation has a １
            kinds[point] |= DIGIT
        elif character in blank or lower in blank:
            kinds[point] |= BLANK | (SEPARATOR if character in separators else 0)
        else:
            form = unicodedata.normalize("NFD", lower)
            if how != "redpajama":
                form = "".join(c for c in form if unicodedata.category(c) != "Mn")
            kinds[point] |= (SEPARATOR if character in separators else 0) | (SIGMA if character == "Σ" else 0)
            if form != character:
                content = form.encode()
                kinds[point] |= CHANGED
                begins[point], sizes[point] = len(forms), len(content)
                forms += content
            if form:
                first[point], last[point] = unicodedata.combining(form[0]), unicodedata.combining(form[-1])
    return Tables(kinds, begins, sizes, np.frombuffer(bytes(forms), np.uint8), first, last)


def _classes(how: Simplification, known: str) -> tuple[set[str], set[str], set[str], set[str]]:
    """The characters that part words, that are gone at once, digits, and what may stand between digits."""
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
    """Marks what Python's `str.lower` looks at to tell a final sigma: behind a cased character, and not before one."""
    others = known.replace("İ", "i")  # the one character that becomes two
    after = "".join(f"{c}Σ " for c in others).lower()[1::3]
    skipping = "".join(f"A{c}Σ " for c in others).lower()[2::4]
    for point, cased, either in zip(KNOWN, after, skipping, strict=True):
        if either == "ς":
            kinds[point] = CASED if cased == "ς" else IGNORABLE
