"""Which of the kernels' rules a regular expression is, and what `tokenizers` takes for letters, numbers and spaces."""

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from corpusmill.tokenize.patterns import PATTERNS
from corpusmill.tokenize.pieces import CL100K, GPT2, LETTER, LOWER, NEWLINE, NUMBER, O200K, SPACE, UPPER

CODE_POINTS = 0x110000
#: What may be a letter, a number, a mark or a space: planes 0 to 3, and the variation selectors. The rest is private or not assigned.
PROBED = (*range(0xD800), *range(0xE000, 0x40000), *range(0xE0000, 0xE1000))
CLASSES = {
    LETTER: r"\p{L}",
    NUMBER: r"\p{N}",
    SPACE: r"\s",
    UPPER: r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]",
    LOWER: r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]",
}
#: The three expressions, and as others write them: GPT-2's own code, which is `tokenizers`' ByteLevel, too. That of cl100k in tiktoken
#: since 0.8 (`\s++$` before line breaks) is not the same at the end of a text.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SPELLINGS = {
    GPT2: (PATTERNS["gpt2"], GPT2_PATTERN),
    CL100K: (PATTERNS["cl100k"],),
    O200K: (PATTERNS["o200k"],),
}
#: How the part about numbers is written, and the longest run that it allows (0: any).
NUMBERS = {r"\p{N}+": 0, r"\p{N}{1,3}": 3, r"\p{N}{1,2}": 2, r"\p{N}{1}": 1, r"\p{N}": 1}


class Rule(NamedTuple):
    """How the kernels cut a text: `number` is one of those of `pieces.py`, `digits` the longest run of numbers (0: any)."""

    number: int
    digits: int


@cache
def _rules() -> dict[str, Rule]:
    found = {}
    for number, spellings in SPELLINGS.items():
        for spelling in spellings:
            written = next(part for part in NUMBERS if f"|{part}|" in spelling or f"| ?{part}|" in spelling)
            blank = " ?" if f"| ?{written}|" in spelling else ""
            for part, digits in NUMBERS.items():
                found[spelling.replace(f"|{blank}{written}|", f"|{blank}{part}|")] = Rule(number, digits)
    return found


def rule_of(regex: str) -> Rule | None:
    """The kernels' rule that cuts as this regular expression does; None where there is none."""
    return _rules().get(regex)


@cache
def piece_classes() -> npt.NDArray[np.uint8]:
    """uint8 of length 0x110000: the classes (bits of `pieces.py`) of each code point, as `tokenizers`' regular expressions see them."""
    table = np.zeros(CODE_POINTS, np.uint8)
    points = np.array(PROBED)
    text = points.astype("<u4").tobytes().decode("utf-32-le")
    for bit, expression in CLASSES.items():
        table[points[_matched(expression, text)]] |= bit
    table[[0x0A, 0x0D]] |= NEWLINE
    return table


def _matched(expression: str, text: str) -> npt.NDArray[np.bool_]:
    """Which characters of the text the expression matches."""
    from tokenizers import Regex, pre_tokenizers

    matched = np.ones(len(text), np.bool_)
    for _, (start, end) in pre_tokenizers.Split(Regex(f"{expression}+"), "removed").pre_tokenize_str(text):
        matched[start:end] = False
    return matched
