"""Taking passages out of a text."""

from collections.abc import Sequence

from corpusmill.dedup.contamination.words import words_of

#: Characters of a passage that are shown in the report.
SHOWN = 1000

Span = tuple[int, int]


def character_spans(text: str, ranges: Sequence[Span], marks: bool = False) -> list[Span]:
    """Where ranges of words (`words_of`) lie in a text, in characters; with the marks around them as far as no space is between."""
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
    """`cut`: something was taken out before `right`."""
    if cut:
        last, right = _trim(kept), right.lstrip(" \t")
        if last in ("", "\n"):
            right = right.removeprefix("\n")
        elif right and not right.startswith("\n"):
            kept.append(" ")
    kept.append(right)


def _trim(kept: list[str]) -> str:
    """Takes spaces off the end; returns the last character, or nothing where there is none."""
    while kept:
        kept[-1] = kept[-1].rstrip(" \t")
        if kept[-1]:
            return kept[-1][-1]
        kept.pop()
    return ""
