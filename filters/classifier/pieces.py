"""Long documents as pieces, so that training sees texts of about one length."""

import re
from collections.abc import Sequence

from corpusmill.filters.classifier.spec import Pieces

_WORD = re.compile(r"\S+")
#: A last piece shorter than this share of the others is left out: it would be all but empty.
SHORTEST = 0.2


def cut(texts: Sequence[str], pieces: Pieces) -> tuple[list[str], list[int]]:
    """`(pieces, documents)`: the pieces of all texts, white space kept within them, and the place of the text that each is from."""
    found: list[str] = []
    document: list[int] = []
    for place, text in enumerate(texts):
        parts = _by_words(text, pieces.words) if pieces.words else _by_characters(text, pieces.characters or len(text))
        found += parts
        document += [place] * len(parts)
    return found, document


def _by_words(text: str, count: int) -> list[str]:
    spans = [match.span() for match in _WORD.finditer(text)]
    groups = [spans[start : start + count] for start in range(0, len(spans), count)]
    if len(groups) > 1 and len(groups[-1]) < SHORTEST * count:
        groups.pop()
    return [text[group[0][0] : group[-1][1]] for group in groups]


def _by_characters(text: str, count: int) -> list[str]:
    """Pieces of up to `count` characters that end before white space where there is any in their second half."""
    parts, at = [], 0
    while at < len(text):
        end = min(at + count, len(text))
        if end < len(text):
            space = max(text.rfind(" ", at + count // 2, end + 1), text.rfind("\n", at + count // 2, end + 1))
            end = space if space > at else end
        if piece := text[at:end].strip():
            parts.append(piece)
        at = end
    if len(parts) > 1 and len(parts[-1]) < SHORTEST * count:
        parts.pop()
    return parts
