"""Examples of swearing without anybody's judgement: listed words, and pieces of ordinary texts that have one or none.

Lists of swear words hold many that have another use ("intercourse", "slave"). Nobody swears in an encyclopedia or before Congress, so a
word that is found there proves nothing about a text.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from corpusmill.filters.bad_words import usual_lower
from corpusmill.filters.bad_words_kernel import build_trie, count_words
from corpusmill.filters.classifier.defaults import sources
from corpusmill.filters.classifier.defaults.word_lists import english
from corpusmill.pipeline.text.buffers import text_buffers
from corpusmill.pipeline.text.classes import character_classes

#: Words of a piece: about a tweet.
PIECE_WORDS = 25
#: Pieces without a listed word of each corpus, and phrases, drawn by hash.
CLEAN_PIECES, PHRASES = 4_000, 4_000
LONGEST_PHRASE = 3
_WORD = re.compile(r"[^\W\d_][\w'-]*")


@cache
def sure_and_unsure() -> tuple[frozenset[str], frozenset[str]]:
    """The listed English words (lower-cased) that prove swearing, and all others."""
    sure, unsure = english()
    formal = [piece for rows in (sources.encyclopedia, sources.addresses) for row in rows() for piece in _pieces(str(row["text"]))]
    hit = [piece.lower() for piece, found in zip(formal, listed(formal, sure, ())) if found]
    used = {word for word in sure if any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", piece) for piece in hit)}
    return sure - used, unsure | used


def swear_words() -> Iterator[dict[str, object]]:
    """`{text, profane}`: all listed English words; `profane` is 1 where they prove swearing, else null."""
    sure, unsure = sure_and_unsure()
    for word in sorted(sure | unsure):
        yield {"text": word, "profane": 1 if word in sure else None}


def phrases() -> Iterator[dict[str, object]]:
    """`{text}`: one to three words of encyclopedia articles that stand together and have no listed word: what lists of words lack."""
    found: dict[str, None] = {}
    for row in sources.encyclopedia():
        words = _WORD.findall(str(row["text"]))
        place = 0
        while place < len(words):
            count = 1 + xxhash.xxh3_64_intdigest(f"{place} {words[place]}") % LONGEST_PHRASE
            found[" ".join(words[place : place + count])] = None
            place += count
    for text in _drawn((text for text, hit in zip(found, listed(list(found), *sure_and_unsure())) if not hit), PHRASES):
        yield {"text": text}


def pieces() -> Iterator[dict[str, object]]:
    """`{text, profane, corpus}`: pieces of mails, articles, speeches and the Brown Corpus. `profane` is 1 where a piece has a word that
    proves swearing, 0 where it has no listed word at all; other pieces are left out, and of the clean ones most."""
    for corpus, rows in (
        ("mails", sources.mails), ("wikipedia", sources.encyclopedia), ("speeches", sources.addresses), ("brown", sources.brown_corpus)
    ):  # fmt: skip
        found = list(dict.fromkeys(piece for row in rows() for piece in _pieces(str(row["text"]))))
        hits = listed(found, *sure_and_unsure())
        for text in (piece for piece, hit in zip(found, hits) if hit == 2):
            yield {"text": text, "profane": 1, "corpus": corpus}
        for text in _drawn((piece for piece, hit in zip(found, hits) if hit == 0), CLEAN_PIECES):
            yield {"text": text, "profane": 0, "corpus": corpus}


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
