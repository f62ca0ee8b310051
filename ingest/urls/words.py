"""Words in a URL: whole ones from two lists, and parts of words from a third."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

#: What separates the words of a URL: anything but ASCII letters and digits, as in datatrove.
SEPARATORS = re.compile(r"[^a-zA-Z0-9]+")


def squeeze(text: str) -> str:
    """The ASCII letters and digits of `text` alone, in lower case."""
    return SEPARATORS.sub("", text).lower()


class Found(NamedTuple):
    hard: list[str]  # in alphabetical order, as all of these
    soft: list[str]  # different ones, whether they are enough or not
    subwords: list[str]


NOTHING = Found([], [], [])


class WordLists:
    """Looks for all words at once. Words are squeezed: letters and digits in lower case.

    A whole word is compared in the case that the URL has it in; `subwords` are looked for in the squeezed URL.
    """

    def __init__(self, hard: Iterable[str], soft: Iterable[str], subwords: Iterable[str]):
        self.hard, self.soft = frozenset(hard), frozenset(soft)
        self._whole = self.hard | self.soft
        self._subwords = sorted(set(subwords))
        self._any_subword = re.compile(_any_of(self._subwords)) if self._subwords else None

    def find(self, text: str) -> Found:
        """The listed words in `text`."""
        words = SEPARATORS.split(text)
        squeezed = "".join(words).lower()
        whole = not self._whole.isdisjoint(words)
        part = self._any_subword is not None and self._any_subword.search(squeezed)
        if not whole and not part:
            return NOTHING
        return Found(
            sorted(self.hard.intersection(words)),
            sorted(self.soft.intersection(words)),
            [word for word in self._subwords if word in squeezed] if part else [],
        )


def _any_of(words: Iterable[str]) -> str:
    """A pattern for any of `words` (letters and digits) as a trie, which is tried 6 times faster than a list of them.

    A word that begins with another of them is left out: the shorter one is found wherever it is.
    """
    root: dict[str, Any] = {}
    for word in words:
        node = root
        for character in word:
            node = node.setdefault(character, {})
        node[""] = {}
    return _pattern(root)


def _pattern(node: dict[str, Any]) -> str:
    if "" in node:
        return ""
    parts = [character + _pattern(child) for character, child in sorted(node.items())]
    return parts[0] if len(parts) == 1 else f"(?:{'|'.join(parts)})"
