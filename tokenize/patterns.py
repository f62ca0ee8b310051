"""The patterns that cut text into pieces before BPE. Each piece is encoded by itself.

The regular expressions are the published ones (`tiktoken_ext/openai_public.py`, MIT licence). Llama 3 uses that of cl100k.
"""

import random
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from corpusmill.tokenize.pieces import CL100K, GPT2, LETTER, LOWER, NEWLINE, NUMBER, O200K, SPACE, UPPER

PatternName = Literal["gpt2", "cl100k", "o200k", "llama3"]

_GPT2 = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""

_CL100K = (
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"""
    r"""|\s*[\r\n]+|\s+(?!\S)|\s+"""
)

_O200K = (
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"""
    r"""|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"""
    r"""|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)

PATTERNS: dict[PatternName, str] = {"gpt2": _GPT2, "cl100k": _CL100K, "o200k": _O200K, "llama3": _CL100K}

#: The part of a pattern for runs of digits, by the longest run that stays one piece.
_DIGITS = {1: r"\p{N}", 2: r"\p{N}{1,2}", 3: r"\p{N}{1,3}"}

#: Characters of every kind that patterns distinguish: letters with and without case, marks, numbers, punctuation, symbols, white space,
#: controls, characters of other planes, private and unassigned ones.
_KINDS = (
    "aZéßǅʰªא中한ーſK\u0301\u0903\u200d\u20dd0९Ⅷ²½٣_-([)]«»!'’\"/\\+<=|~$€^`©°\u00a0 \t\n\r\v\f\x1c\x85\u1680\u2003\u2028\u3000"
    "\x00\x1b\x7f\u00ad\u200b\ufeff\ufffd\ue000\u0378🙂👩𝔸𐐀𐐨𒐀\U000e0001\U000f0000\U0010ffff"
)
NO_NAME = f"no pattern's name ({', '.join(PATTERNS)})"
_PROBES, _PROBE_LENGTH = 400, 60


def regex_of(pattern: str, digits: int | None = None) -> str:
    """Returns the regular expression of a pattern: that of a known name, else the given text itself.

    `digits` is the longest run of digits (`\\p{N}`) in a piece, None for the pattern's own. Raises ValueError if `digits` is set for a
    given expression, whose treatment of digits can't be changed from outside.
    """
    named = {str(name): regex for name, regex in PATTERNS.items()}
    if pattern not in named:
        if digits is not None:
            raise ValueError("a given expression says itself how long runs of digits may be, so leave digits out")
        return pattern
    regex = named[pattern]
    if digits is None:
        return regex
    for written in (r"\p{N}+", r"\p{N}{1,3}"):
        regex = regex.replace(f"|{written}|", f"|{_DIGITS[digits]}|").replace(f"| ?{written}|", f"| ?{_DIGITS[digits]}|")
    return regex


def check_regex(regex: str) -> None:
    """Raises ValueError, with one sentence, unless `tokenizers` and tiktoken both read the expression, cut alike, and lose no text."""
    from tiktoken import _tiktoken
    from tokenizers import Regex, pre_tokenizers

    try:
        split = pre_tokenizers.Split(Regex(regex), "isolated").pre_tokenize_str
    except Exception as error:  # tokenizers raises Exception itself
        raise ValueError(f"{NO_NAME}, and no regular expression for tokenizers ({_line(error)})") from error
    texts = probes()
    pieces = [[piece.encode() for piece, _ in split(text)] for text in texts]
    # tiktoken gives each known piece one id, so its ids show how it cuts.
    known = [bytes([byte]) for byte in range(256)]
    known += sorted({piece for cut in pieces for piece in cut if len(piece) > 1})
    try:
        tiktoken = _tiktoken.CoreBPE({piece: number for number, piece in enumerate(known)}, {}, regex)
    except ValueError as error:
        raise ValueError(f"{NO_NAME}, and no regular expression for tiktoken ({_line(error)})") from error
    for text, cut in zip(texts, pieces):
        theirs = [known[number] for number in tiktoken.encode_ordinary(text)]
        if b"".join(theirs) != text.encode() or b"".join(cut) != text.encode():
            lost = next((c for c in text if not tiktoken.encode_ordinary(c)), text)
            raise ValueError(f"{NO_NAME}, and as an expression it leaves out some of {lost[:20]!r}, where it has to match all")
        if theirs != cut:
            raise ValueError(f"tokenizers and tiktoken do not cut {text[:20]!r} alike by this expression")


def probes() -> list[str]:
    """Returns each kind of character alone, and texts in which kinds meet at random (the same texts each time)."""
    chance = random.Random(0)
    return [*_KINDS, *("".join(chance.choices(_KINDS, k=_PROBE_LENGTH)) for _ in range(_PROBES))]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


# ---- rules of pieces -------------------------------------------------------------------------------------


CODE_POINTS = 0x110000
#: Code points that may be a letter, number, mark or space: planes 0 to 3, and the variation selectors. All others are private or
#: unassigned.
PROBED = (*range(0xD800), *range(0xE000, 0x40000), *range(0xE0000, 0xE1000))
CLASSES = {
    LETTER: r"\p{L}",
    NUMBER: r"\p{N}",
    SPACE: r"\s",
    UPPER: r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]",
    LOWER: r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]",
}
#: The three expressions in all their spellings. GPT2_PATTERN is that of GPT-2's own code and of `tokenizers`' ByteLevel. The cl100k of
#: tiktoken since 0.8 is missing: its `\s++$` before line breaks cuts differently at the end of a text.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SPELLINGS = {
    GPT2: (PATTERNS["gpt2"], GPT2_PATTERN),
    CL100K: (PATTERNS["cl100k"],),
    O200K: (PATTERNS["o200k"],),
}
#: Spellings of the part about numbers, and the longest run that each allows (0: any).
NUMBERS = {r"\p{N}+": 0, r"\p{N}{1,3}": 3, r"\p{N}{1,2}": 2, r"\p{N}{1}": 1, r"\p{N}": 1}


class PieceRule(NamedTuple):
    """How the kernels cut a text: `number` is a rule of `pieces.py`, `digits` the longest run of numbers (0: any)."""

    number: int
    digits: int


@cache
def _rules() -> dict[str, PieceRule]:
    found = {}
    for number, spellings in SPELLINGS.items():
        for spelling in spellings:
            written = next(part for part in NUMBERS if f"|{part}|" in spelling or f"| ?{part}|" in spelling)
            blank = " ?" if f"| ?{written}|" in spelling else ""
            for part, digits in NUMBERS.items():
                found[spelling.replace(f"|{blank}{written}|", f"|{blank}{part}|")] = PieceRule(number, digits)
    return found


def rule_of(regex: str) -> PieceRule | None:
    """Returns the kernels' rule that cuts as this regular expression does, or None."""
    return _rules().get(regex)


@cache
def piece_classes() -> npt.NDArray[np.uint8]:
    """Returns uint8 [0x110000]: the classes (bits of `pieces.py`) of each code point, as the regular expressions of `tokenizers` see
    them."""
    table = np.zeros(CODE_POINTS, np.uint8)
    points = np.array(PROBED)
    text = points.astype("<u4").tobytes().decode("utf-32-le")
    for bit, expression in CLASSES.items():
        table[points[_matched(expression, text)]] |= bit
    table[[0x0A, 0x0D]] |= NEWLINE
    return table


def _matched(expression: str, text: str) -> npt.NDArray[np.bool_]:
    """Whether the expression matches each character of the text."""
    from tokenizers import Regex, pre_tokenizers

    matched = np.ones(len(text), np.bool_)
    for _, (start, end) in pre_tokenizers.Split(Regex(f"{expression}+"), "removed").pre_tokenize_str(text):
        matched[start:end] = False
    return matched
