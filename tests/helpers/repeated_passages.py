"""Finds repeated passages by brute force: a dictionary of all windows of words."""

import regex

from corpusmill.text.words import UNSPACED

ALONE = rf"[[{UNSPACED}]&&[\u0e00-\U0010ffff]&&\w--\p{{M}}]"
MARK = rf"[[{UNSPACED}]&&[\u0e00-\U0010ffff]&&\p{{M}}]"
WORD = regex.compile(rf"{ALONE}{MARK}*|(?:(?!{ALONE})[^\s\x1c-\x1f])+", regex.V1)


def words(text: str) -> list[tuple[int, int]]:
    """Returns start and end of each word of a text: runs between spaces, and each character of a script without spaces."""
    return [match.span() for match in WORD.finditer(text)]


def repeats(texts: list[str], tokens: int, keep: str) -> list[set[int]]:
    """Returns for each text the words that are cut: those in a window of `tokens` words that occurs at least twice. With `first`, its
    first occurrence stays, and so do the words of it that a later one overlaps.
    """
    seen: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for number, text in enumerate(texts):
        split = [text[a:b] for a, b in words(text)]
        for at in range(len(split) - tokens + 1):
            seen.setdefault(tuple(split[at : at + tokens]), []).append((number, at))
    cut: list[set[int]] = [set() for _ in texts]
    for places in seen.values():
        if len(places) == 1:
            continue
        first = places[0] if keep == "first" else (-1, 0)
        for number, at in places:
            if (number, at) != first:
                begin = max(at, first[1] + tokens) if number == first[0] else at
                cut[number] |= set(range(begin, at + tokens))
    return cut


def without(text: str, cut: set[int]) -> str:
    """Returns the text without some words; of the two spaces around a cut, the one with more newlines stays."""
    if not cut:
        return text
    spans = words(text)
    kept = [place for place in range(len(spans)) if place not in cut]
    out = ""
    for place, after in zip(kept, [*kept[1:], None][: len(kept)], strict=True):
        begin = 0 if place == 0 else spans[place][0]
        out += text[begin : spans[place][1]]
        if after is None:
            out += text[spans[place][1] :] if place == len(spans) - 1 else ""
        elif after == place + 1:
            out += text[spans[place][1] : spans[after][0]]
        else:
            before, behind = text[spans[place][1] : spans[place + 1][0]], text[spans[after - 1][1] : spans[after][0]]
            out += max([before, behind], key=lambda space: (space.count("\n"), space != "")) or " "
    return out
