"""Taking passages out of a text."""

from collections.abc import Sequence

from corpusmill.dedup.contamination.words import words_of

#: Characters of a passage that are shown in the report.
SHOWN = 1000

Span = tuple[int, int]


def character_spans(text: str, ranges: Sequence[Span]) -> list[Span]:
    """Where ranges of words (`words_of`) lie in a text, in characters; with the marks around them as far as no space is between."""
    content = text.encode()
    _, spans = words_of(content)
    found = []
    for first, behind in ranges:
        start = len(content[: spans[first, 0]].decode())
        end = start + len(content[spans[first, 0] : spans[behind - 1, 1]].decode())
        found.append(_with_marks(text, start, end))
    return found


def _with_marks(text: str, start: int, end: int) -> Span:
    while start > 0 and _is_mark(text[start - 1]):
        start -= 1
    while end < len(text) and _is_mark(text[end]):
        end += 1
    return start, end


def _is_mark(character: str) -> bool:
    return not (character.isalnum() or character == "_" or character.isspace())


def united(spans: Sequence[Span]) -> list[Span]:
    """Overlapping and touching spans as one, ascending."""
    result: list[Span] = []
    for start, end in sorted(spans):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def without(text: str, spans: Sequence[Span]) -> str:
    """The text without these characters. What was on two sides of a passage is parted by a space, or by a line break where the passage
    had one; a line of which nothing is left goes."""
    left, before = "", 0
    for start, end in united(spans):
        left = _join(left, text[before:start], before > 0)
        before = end
        if "\n" in text[start:end] and left and not left.endswith("\n"):
            left = left.rstrip(" \t") + "\n"
    return _join(left, text[before:], before > 0)


def _join(left: str, right: str, cut: bool) -> str:
    """`cut`: something was taken out between the two."""
    if not cut:
        return left + right
    left, right = left.rstrip(" \t"), right.lstrip(" \t")
    if not left or left.endswith("\n"):
        return left + right.removeprefix("\n")
    return left + right if not right or right.startswith("\n") else f"{left} {right}"
