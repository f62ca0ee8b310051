"""spaCy's tokenizer for English, in Python: where its tokens begin in a text.

The patterns and exceptions are those of spaCy 3.8, in `spacy_english.json` (`tests/helpers/spacy_data.py` writes it). The algorithm is that
of `spacy.tokenizer.Tokenizer`, with spaCy's words for its parts:

1. Text is split between spaces and other characters. One blank after a word belongs to no token.
2. Prefixes and suffixes are taken off a chunk one by one, until the rest is an exception or has none.
3. The rest is one token if it is a URL. Otherwise infixes split it.
4. Neighbouring tokens that are those of an exception get the exception's tokens (`a :-)` has one for the face).

Tests compare it with spaCy.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from corpusmill.pipeline.config import parse_json

RULES = Path(__file__).with_name("spacy_english.json")
_SPACES_OR_NOT = re.compile(r"\s+|\S+")


@cache
def english() -> Mapping[str, Any]:
    """Returns the content of `spacy_english.json`: patterns, exceptions with their tokens, and kinds of characters."""
    content: dict[str, Any] = parse_json(RULES.read_text("utf-8"))
    return content


class EnglishTokenizer:
    """`exceptions`: texts with their tokens. `merged`: the exceptions that are searched among tokens."""

    def __init__(self) -> None:
        patterns = {name: re.compile(pattern) for name, pattern in english()["patterns"].items()}
        self._prefix, self._suffix = patterns["prefix"].search, patterns["suffix"].search
        self._infixes, self._url = patterns["infix"].finditer, patterns["url"].match
        self.exceptions: dict[str, list[str]] = english()["exceptions"]
        found = (self._prefix, self._suffix, patterns["infix"].search)
        self.merged = [text for text in self.exceptions if " " in text or any(search(text) for search in found)]
        # the tokens that an exception would have by the patterns alone, by the first of them
        self._searched: dict[str, set[tuple[str, ...]]] = {}
        for text in self.merged:
            tokens = tuple(token for _, token in self._split(text, {}))
            self._searched.setdefault(tokens[0], set()).add(tokens)

    def begins(self, text: str) -> list[int]:
        """Returns the places of the characters at which tokens begin, white space among them."""
        places, tokens = [], []
        for place, token in self._split(text, self.exceptions):
            places.append(place)
            tokens.append(token)
        return self._merge(text, places, tokens)

    def count(self, text: str) -> int:
        """Returns the number of tokens of a text."""
        return len(self.begins(text))

    def _split(self, text: str, exceptions: Mapping[str, Sequence[str]]) -> Iterator[tuple[int, str]]:
        """Yields tokens with their places."""
        for chunk in _SPACES_OR_NOT.finditer(text):
            place, characters = chunk.start(), chunk[0]
            if place and characters[0] == " ":
                place, characters = place + 1, characters[1:]
            for token in self._tokens(characters, exceptions):
                yield place, token
                place += len(token)

    def _tokens(self, chunk: str, exceptions: Mapping[str, Sequence[str]]) -> Iterable[str]:
        """Returns the tokens of a chunk without spaces, or of spaces."""
        if chunk in exceptions:
            return exceptions[chunk]
        prefixes: list[str] = []
        suffixes: list[str] = []
        rest, before = chunk, -1
        while rest and rest not in exceptions and len(rest) != before:
            before = len(rest)
            found = self._prefix(rest)
            first = found.end() - found.start() if found else 0
            if first and rest[first:] in exceptions:
                prefixes.append(rest[:first])
                rest = rest[first:]
                break
            found = self._suffix(rest[first:])
            last = found.end() - found.start() if found else 0
            end = len(rest) - last
            if last and rest[:end] in exceptions:
                suffixes.append(rest[end:])
                rest = rest[:end]
                break
            if first:
                prefixes.append(rest[:first])
            if last:
                suffixes.append(rest[end:])
            rest = rest[first:end]
        return [*prefixes, *self._without_affixes(rest, exceptions), *reversed(suffixes)]

    def _without_affixes(self, text: str, exceptions: Mapping[str, Sequence[str]]) -> Sequence[str]:
        if not text:
            return ()
        if text in exceptions:
            return exceptions[text]
        if self._url(text):
            return (text,)
        tokens, start = [], 0
        for infix in self._infixes(text):
            if infix.start() > 0:  # one at the beginning stays with the text after it
                tokens += [text[start : infix.start()], infix[0]]
                start = infix.end()
        return [token for token in (*tokens, text[start:]) if token]

    def _merge(self, text: str, places: list[int], tokens: list[str]) -> list[int]:
        """Returns the places of tokens after the exceptions that several tokens form have got their own; the longest come first."""
        found = [
            (first, first + len(searched))
            for first, token in enumerate(tokens)
            for searched in self._searched.get(token, ())
            if tuple(tokens[first : first + len(searched)]) == searched
        ]
        if not found:
            return places
        seen: set[int] = set()
        begins = dict(enumerate([place] for place in places))
        for first, past in sorted(found, key=lambda match: (match[0] - match[1], match[0])):
            if first not in seen and past - 1 not in seen:
                whole = text[places[first] : places[past - 1] + len(tokens[past - 1])]
                if whole in self.exceptions:
                    lengths = accumulate(map(len, self.exceptions[whole][:-1]), initial=places[first])
                    begins.update((token, []) for token in range(first, past))
                    begins[first] = list(lengths)
            seen.update(range(first, past))
        return [place for each in begins.values() for place in each]


@cache
def english_tokenizer() -> EnglishTokenizer:
    return EnglishTokenizer()
