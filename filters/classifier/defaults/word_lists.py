"""Swear words out of two packages: LDNOOBW's lists in 28 languages, and cuss's English ones with a rating of how sure each is one."""

import json
import re
from functools import cache
from pathlib import Path

from corpusmill.pipeline.cache import NpmPackage, alone, cache_folder
from corpusmill.pipeline.storage import Storage

HOW = "without it no built-in word list is there: give your own files in a spec (docs/classifiers.md)"
LDNOOBW = NpmPackage("naughty-words", "1.2.0", "c34b05e10a97ec7b9e0c3dd91d09888187c0f08d0812eaea79679795585b217e", HOW)
CUSS = NpmPackage("cuss", "2.2.0", "66b19c6086d3fb3eac3769daf97dd695290ecc24b0fddbc30688418c629b776f", HOW)
#: cuss's ratings: a word is seldom, at times, or mostly meant to be profane.
SELDOM, SOMETIMES, MOSTLY = range(3)
_RATING = re.compile(r"""^\s*(?:'([^']+)'|"([^"]+)"|([\w$]+)): ([012]),?$""", re.MULTILINE)


@cache
def ldnoobw() -> dict[str, list[str]]:
    """LDNOOBW's words by language (en, de, fr-CA-u-sd-caqc, ...), in the lists' order. Raises InputError where the package can't be had."""
    files = LDNOOBW.files(r"[a-z]{2,3}(-[A-Za-z0-9-]+)?\.json")
    return {name.removesuffix(".json"): json.loads(content) for name, content in files.items()}


def ldnoobw_folder() -> Path:
    """A folder in the user's cache with a file a language, a word a line, as the step `bad_words` takes them. Raises InputError."""
    folder = cache_folder() / "word-lists" / LDNOOBW.sha256[:16]
    whole = folder / ".whole"
    if not whole.is_file():
        with alone(folder):
            storage = Storage(str(folder))
            for name, words in ldnoobw().items():
                storage.write_bytes(name, "".join(f"{word}\n" for word in words).encode())
            storage.write_bytes(whole.name, b"")
    return folder


@cache
def cuss() -> dict[str, int]:
    """cuss's English words and their ratings. Raises InputError where the package can't be had."""
    ((_, source),) = CUSS.files(r"index\.js").items()
    return {a or b or c: int(rating) for a, b, c, rating in _RATING.findall(source.decode("utf-8"))}


@cache
def english() -> tuple[frozenset[str], frozenset[str]]:
    """`(sure, unsure)`: English words, lower-cased, that are mostly meant to be profane, and those of either list that may be meant so.

    Sure are cuss's surest and those of LDNOOBW, unless cuss holds them for harmless mostly. The rest of both is unsure.
    """
    rated = {word.lower(): rating for word, rating in cuss().items()}
    listed = {word.strip().lower() for word in ldnoobw()["en"]}
    sure = {word for word, rating in rated.items() if rating == MOSTLY} | {word for word in listed if rated.get(word) != SELDOM}
    return frozenset(sure), frozenset(rated.keys() | listed) - sure
