# mypy: disallow-untyped-defs=False
r"""Bad words of LDNOOBW's lists in 28 languages, found as datatrove's C4BadWordsFilter finds them.

A word of the document's language counts if it stands in the lower-cased text without a `\w` character next to it; in Japanese, Thai
and Chinese it counts anywhere. The words of the lists are not lower-cased, so words with capitals (most of the Spanish list) are never
found. Blank lines of a list are left out (in datatrove one would match every document).

The preset `c4-paper` finds words as C4 did (tensorflow_datasets/text/c4_utils.py): `[^a-z](word)[^a-z]` within a line, so the line must
have a character on either side. C4 searched the lines that it kept: put the step after `c4`.

There are two differences. The kept share of the documents with bad words is drawn by a hash of the document's id, so every run keeps the
same documents. A language without a list is not an error: its documents have null values and are kept.
"""

import hashlib
import re
from collections import namedtuple
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from corpusmill.filters.language_codes import canonical
from corpusmill.filters.rules import Rule
from corpusmill.filters.step import DocumentBatch, Step, StepOutput
from corpusmill.pipeline.cache import NpmPackage, cache_folder, locked
from corpusmill.pipeline.config import Config, parse_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.storage import Storage
from corpusmill.text.buffers import text_buffers
from corpusmill.text.utf8 import CODE_POINTS, WORD, character_classes, decode, lowercase_table

#: Languages in which words are found without a separator around them, as in datatrove.
UNSEPARATED = ("ja", "th", "zh")
LIST_NAME = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9-]+)?")
#: The value of `lists` for the lists of the npm package naughty-words.
PACKAGE = "package://naughty-words"
HOW = f"give a folder with one list a language with `- bad_words: {{lists: FOLDER}}`, or take those of a package with `lists: {PACKAGE}`"


class BadWordsConfig(Config):
    """Bad words: lists for 28 languages."""

    preset: Literal["datatrove-0.10", "c4-paper"] = Field("datatrove-0.10", description="The pipeline whose search finds the words.")
    lists: str | None = Field(
        None,
        description="Folder with a list for each language, named by its code (en, de, ...), or package://naughty-words; by default "
        "datatrove's pinned downloads.",
    )
    language: str | None = Field(
        None, description="The list for all documents; by default that of the document's language, as a step before found it."
    )
    default_language: str = Field("en", description="The list for documents without a language.")
    keep_fraction: float = Field(0.0, ge=0, le=1, description="Keep this share of the documents that have bad words.")
    max_density: float | None = Field(
        None,
        ge=0,
        description="The most bad words for each 1,000 characters; replaces the rule that one is enough.",
    )

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.max_density is not None and self.keep_fraction:
            raise ValueError("keep_fraction: max_density is given, too; it decides alone")
        return self


def list_files(folder: str | None, language: str | None) -> dict[str, str]:
    """Returns the path of each list by its name, of all languages or of one.

    Without `folder`, the lists are those of datatrove's cache, downloaded if necessary. Raises InputError in one sentence.
    """
    if folder == PACKAGE:
        folder = str(ldnoobw_folder())
    if folder is None:
        from datatrove.pipeline.filters.c4_filters import _BADWORDS_LANGS

        names = list(_BADWORDS_LANGS)
    elif not Path(folder).is_dir():
        raise InputError(f"{folder}: there is no such folder with lists of bad words.")
    else:
        names = [path.name for path in sorted(Path(folder).iterdir()) if path.is_file() and LIST_NAME.fullmatch(path.name)]
    wanted = [name for name in names if language is None or canonical(name) == canonical(language)]
    if not wanted:
        where, which = folder or "bad_words", f"list for {language!r}" if language is not None else "list"
        raise InputError(f"{where}: there is no {which} (expected a file with a language's code for its name; there are {names}).")
    return {name: _download(name) if folder is None else str(Path(folder) / name) for name in wanted}


def _download(name: str) -> str:
    """Returns the path of a list in datatrove's cache, downloaded if necessary."""
    from datatrove.io import cached_asset_path_or_download
    from datatrove.pipeline.filters.c4_filters import _BADWORDS_URL, _EN_BADWORDS_URL

    url = _EN_BADWORDS_URL if name == "en" else _BADWORDS_URL + name
    try:
        path: str = cached_asset_path_or_download(url, progress=False, namespace="filters", subfolder="c4_badwords")
    except Exception as error:  # the transport decides which exception comes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{url}: the list of bad words can't be downloaded ({reason}); {HOW}.") from error
    return path


def read_words(path: str) -> set[str]:
    """Returns the words of a list, without the words that datatrove allows. Raises InputError if the file can't be read."""
    from datatrove.pipeline.filters.c4_filters import _BADWORDS_ALLOWLIST

    try:
        words = {line.strip() for line in Path(path).read_text("utf-8").split("\n")}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read as a list of bad words ({error}).") from error
    return words.difference({""}, *_BADWORDS_ALLOWLIST.values())


def draw(document_id: str) -> float:
    """Returns a number in [0, 1) that depends on the id alone."""
    return int.from_bytes(hashlib.blake2b(document_id.encode(), digest_size=8).digest(), "big") / 2**64


class BadWords(Step):
    Config = BadWordsConfig
    MEANINGS = {
        "bad_words_draw": "it has a word of the list of bad words of its language",
        "bad_words_density": "{number} words of the list of bad words of its language to 1,000 characters",
    }
    config: BadWordsConfig

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {
            "bad_words": pa.int64(),  # number of characters at which a bad word begins; null if the language has no list
            "bad_words_list": pa.string(),
            "bad_words_draw": pa.float64(),  # a number in [0, 1) by the document's id; NaN without bad words
            "bad_words_density": pa.float64(),  # bad words for each 1,000 characters
        }

    @property
    def rules(self) -> tuple[Rule, ...]:
        if self.config.max_density is not None:
            return (Rule("bad_words_density", "bad_words_density", ">", self.config.max_density),)
        return (Rule("bad_words", "bad_words_draw", ">=", self.config.keep_fraction),)

    def model_files(self) -> list[str]:
        return list(list_files(self.config.lists, self.config.language).values())

    def setup(self) -> None:
        self._files = list_files(self.config.lists, self.config.language)
        self._names = {canonical(name): name for name in self._files}
        self._tries: dict[str, Trie] = {}

    def measure(self, batch: DocumentBatch) -> StepOutput:
        data, offsets = text_buffers(usual_lower(batch.text))
        names = self._lists(batch)
        counts = np.zeros(len(batch), np.int64)
        for name in sorted(set(names) - {None}):
            if name not in self._tries:
                self._tries[name] = build_trie(read_words(self._files[name]))
            places = np.flatnonzero(names == name)
            classes, edges = self._boundaries(name)
            count_words(data, offsets, places, self._tries[name], classes, edges, counts)
        found = np.flatnonzero(counts)
        draws = np.full(len(batch), np.nan)
        if len(found):
            draws[found] = [draw(name) for name in batch.documents["id"].take(found).to_pylist()]
        missing = pa.array([name is None for name in names], pa.bool_())
        lengths = pc.utf8_length(batch.text).to_numpy()
        return StepOutput(
            {
                "bad_words": pc.if_else(missing, None, pa.array(counts)),
                "bad_words_list": pa.array(names, pa.string()),
                "bad_words_draw": draws,
                "bad_words_density": pc.if_else(missing, None, pa.array(1000 * counts / np.maximum(lengths, 1))),
            }
        )

    def _boundaries(self, name: str) -> tuple[npt.NDArray[np.uint8], bool]:
        """Returns the character classes, and whether the ends of a text separate words. A character of class WORD separates no words."""
        if self.config.preset == "c4-paper":
            return _letters_and_newline(), False
        if canonical(name) in map(canonical, UNSEPARATED):
            return np.zeros(CODE_POINTS, np.uint8), True
        return character_classes(), True

    def _lists(self, batch: DocumentBatch) -> npt.NDArray[np.object_]:
        """Returns the name of each document's list; None if there is none."""
        names = np.full(len(batch), None, object)
        if self.config.language is not None:
            names[:] = self._names[canonical(self.config.language)]
        else:
            default = self.config.default_language
            column = batch.column("language")
            languages = [default] * len(batch) if column is None else column.to_pylist()
            known = {language: self._names.get(canonical(language or default)) for language in set(languages)}
            names[:] = [known[language] for language in languages]
        return names


@cache
def _letters_and_newline() -> npt.NDArray[np.uint8]:
    """Classes with WORD for the newline and for all characters whose lower case is in a-z."""
    classes = np.zeros(CODE_POINTS, np.uint8)
    classes[[ord(character) for character in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ\u212a\n"]] = WORD
    return classes


def usual_lower(text: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Lower-cases the texts that can't be lower-cased character by character; other texts stay. Raises ValueError if a text is null."""
    unusual = unusual_texts(*text_buffers(text))
    if not unusual.any():
        return text
    lowered = pa.array([each.lower() for each in text.filter(pa.array(unusual)).to_pylist()], text.type)
    return pc.replace_with_mask(text, pa.array(unusual), lowered)


@kernel
def unusual_texts(data, offsets):
    """bool (texts,): whether a text can't be lower-cased character by character. It has a dotted capital I (C4 B0), which becomes two
    characters, or a capital sigma (CE A3), whose lower case depends on its position.
    """
    unusual = np.zeros(offsets.size - 1, np.bool_)
    for text in range(offsets.size - 1):
        found = False
        for at in range(offsets[text], offsets[text + 1] - 1):
            found |= ((data[at] == 0xC4) & (data[at + 1] == 0xB0)) | ((data[at] == 0xCE) & (data[at + 1] == 0xA3))
        unusual[text] = found
    return unusual


# ---- The kernel: walks a trie from every position at which a word can begin

#: A list of words. `symbols`, uint16 of length 0x110000: the number of each character's lower case in this list, 0 if no word has it.
#: `children`, int32 (nodes, symbols): the next node, 0 if there is none. `ends`, bool: whether a word ends at the node.
Trie = namedtuple("Trie", "symbols children ends")


def build_trie(words: Collection[str]) -> Trie:
    """Builds the trie of a list. The words are not lower-cased: a word with a capital is never found in lower-cased text."""
    lower = lowercase_table()
    characters = sorted({character for word in words for character in word})
    numbers = {character: number for number, character in enumerate(characters, 1)}
    symbols = np.zeros(CODE_POINTS, np.uint16)
    for character, number in numbers.items():
        if lower[ord(character)] == ord(character):
            symbols[ord(character)] = number
    symbols = symbols[lower]
    children: list[dict[int, int]] = [{}]
    ends = [False]
    for word in sorted(words):
        node = 0
        for character in word:
            node = children[node].setdefault(numbers[character], len(children))
            if node == len(children):
                children.append({})
                ends.append(False)
        ends[node] = True
    table = np.zeros((len(children), len(characters) + 1), np.int32)
    for node, next_nodes in enumerate(children):
        for number, child in next_nodes.items():
            table[node, number] = child
    return Trie(symbols, table, np.array(ends))


@kernel
def count_words(data, offsets, places, trie, classes, edges, counts):
    """Sets `counts[i]`, for each text i of `places`, to the number of characters at which a word of the list begins.

    A word counts only if the characters before and after it are not of class WORD. `edges`: whether a word may stand at the start or the
    end of the text. The case of the texts is ignored (`str.lower` of each character).
    """
    symbols, children, ends = trie.symbols, trie.children, trie.ends  # unpacked once: each use of a tuple's arrays counts references
    for text in places:
        at, end = offsets[text], offsets[text + 1]
        total, inside = 0, not edges
        while at < end:
            point, width = decode(data, at)
            if not inside:
                node = children[0, symbols[point]]
                if node:
                    total += _begins_word(data, at + width, end, symbols, children, ends, node, classes, edges)
            inside = classes[point] & WORD != 0
            at += width
        counts[text] = total


@kernel(inline="always")
def _begins_word(data, at, end, symbols, children, ends, node, classes, edges):
    """Whether a word ends at `node` or at a later node, given that the characters before `at` led to `node`."""
    found = False
    while node:
        if at >= end:
            found |= edges and ends[node]
            break
        point, width = decode(data, at)
        if ends[node] and not classes[point] & WORD:
            found = True
            break
        node = children[node, symbols[point]]
        at += width
    return found


# ---- Lists of two packages: LDNOOBW's in 28 languages, and cuss's English list, which rates how certainly each word is profane

HOW_WITHOUT = "without it no built-in word list is there: give your own files in a spec (docs/stages/classifiers.md)"
LDNOOBW = NpmPackage("naughty-words", "1.2.0", "c34b05e10a97ec7b9e0c3dd91d09888187c0f08d0812eaea79679795585b217e", HOW_WITHOUT)
CUSS = NpmPackage("cuss", "2.2.0", "66b19c6086d3fb3eac3769daf97dd695290ecc24b0fddbc30688418c629b776f", HOW_WITHOUT)
#: cuss's ratings: a word is seldom, sometimes or mostly meant to be profane.
SELDOM, SOMETIMES, MOSTLY = range(3)
_RATING = re.compile(r"""^\s*(?:'([^']+)'|"([^"]+)"|([\w$]+)): ([012]),?$""", re.MULTILINE)


@cache
def ldnoobw() -> dict[str, list[str]]:
    """Returns LDNOOBW's words by language (en, de, fr-CA-u-sd-caqc, ...), in the order of the lists.

    Raises InputError if the package can't be fetched.
    """
    files = LDNOOBW.files(r"[a-z]{2,3}(-[A-Za-z0-9-]+)?\.json")
    return {name.removesuffix(".json"): parse_json(content) for name, content in files.items()}


def ldnoobw_folder() -> Path:
    """Returns a folder in the user's cache with a file for each language, one word a line, as the step `bad_words` reads it.

    Raises InputError.
    """
    folder = cache_folder() / "word-lists" / LDNOOBW.sha256[:16]
    whole = folder / ".whole"
    if not whole.is_file():
        with locked(folder):
            storage = Storage(str(folder))
            for name, words in ldnoobw().items():
                storage.write_bytes(name, "".join(f"{word}\n" for word in words).encode())
            storage.write_bytes(whole.name, b"")
    return folder


@cache
def cuss() -> dict[str, int]:
    """Returns cuss's English words and their ratings. Raises InputError if the package can't be fetched."""
    ((_, source),) = CUSS.files(r"index\.js").items()
    return {a or b or c: int(rating) for a, b, c, rating in _RATING.findall(source.decode("utf-8"))}


@cache
def english() -> tuple[frozenset[str], frozenset[str]]:
    """Returns `(sure, unsure)`: English words, lower-cased, that are mostly meant to be profane, and all other words of the two lists.

    Sure are the words that cuss rates MOSTLY, and the words of LDNOOBW unless cuss rates them SELDOM.
    """
    rated = {word.lower(): rating for word, rating in cuss().items()}
    listed = {word.strip().lower() for word in ldnoobw()["en"]}
    sure = {word for word, rating in rated.items() if rating == MOSTLY} | {word for word in listed if rated.get(word) != SELDOM}
    return frozenset(sure), frozenset(rated.keys() | listed) - sure
