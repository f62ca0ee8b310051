"""All texts that are looked for: of every item of every set, in the order in which the sets are given."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import regex

from corpusmill.dedup.contamination.files import SetFile
from corpusmill.dedup.contamination.readers import reader
from corpusmill.dedup.contamination.words import word_codes, word_hashes, words_of
from corpusmill.dedup.words import read_only
from corpusmill.pipeline.formats.evaluation_sets import read_set
from corpusmill.pipeline.text.buffers import text_buffers
from corpusmill.pipeline.text.damage import storable

#: Words of a text that are looked for; what is longer is looked for by its beginning.
MAX_WORDS = 100_000
NUMBER, WORD = re.compile(r"\d+"), re.compile(r"[^\W_]+")
MARK = regex.compile(r"[^\w\s\p{M}]")
APOSTROPHE = re.compile(r"(?<=\w)['‘’ʼ＇](?=\w)")
#: In a text of fewer words, a word that grows together or falls apart hides the text.
SHORT = 30


@dataclass(frozen=True)
class Passages:
    """n texts of items. `item` is ascending and counts through all sets."""

    sets: list[str]  # the names of the sets
    fields: list[str]  # the names of the fields
    set_of: npt.NDArray[np.int32]  # of each text: place in `sets`
    number: npt.NDArray[np.int64]  # of each text: the number of its item in its set, from 0
    field_of: npt.NDArray[np.int32]  # of each text: place in `fields`
    item: npt.NDArray[np.int64]
    texts: list[str]


def read_passages(files: Sequence[SetFile]) -> Passages:
    """Reads all sets; memory is that of the sets. Files of one name are one set, whose items are counted on."""
    sets, fields, items = dict[str, int](), dict[str, int](), Counter[str]()
    texts: list[str] = []
    rows: list[tuple[int, int, int, int]] = []
    item = 0
    for file in files:
        for place, table in read_set(file.ref.path):
            texts_of = reader(place, table, file.config.fields)
            set_ = sets.setdefault(file.name, len(sets))
            for row in table:
                for field, text in texts_of(row):
                    for form in forms(storable(text)):
                        texts.append(form)
                        rows.append((set_, items[file.name], fields.setdefault(field, len(fields)), item))
                items[file.name] += 1
                item += 1
    columns = np.array(rows, np.int64).reshape(-1, 4)
    return Passages(
        list(sets), list(fields), columns[:, 0].astype(np.int32), columns[:, 1].copy(), columns[:, 2].astype(np.int32),
        columns[:, 3].copy(), texts,
    )  # fmt: skip


def forms(text: str) -> list[str]:
    """The text; and the text without its marks, and with spaces for its apostrophes, where that changes a short text or many words."""
    found = [text]
    words = _count(text)
    for form in (MARK.sub("", text), MARK.sub("", text).replace("_", ""), APOSTROPHE.sub(" ", text)):
        changed = abs(_count(form) - words)
        if changed and form not in found and (words < SHORT or changed > 0.1 * words):
            found.append(form)
    return found


def _count(text: str) -> int:
    """How many words a text has, about."""
    return len(WORD.findall(APOSTROPHE.sub("", text)))


def passage_words(texts: Sequence[str], marks: bool = False) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """`(words, bounds)` of n texts: the words of text i are `words[bounds[i]:bounds[i + 1]]`. With `marks`, each mark is a word."""
    data, offsets = text_buffers(pa.array(texts, pa.large_string()))
    data, codes = read_only(data), word_codes(marks)
    scratch = np.empty(int(np.diff(offsets).max(initial=0)) + 1, np.uint64)
    found = [scratch[: min(word_hashes(data, a, b, codes, scratch), MAX_WORDS)].copy() for a, b in pairwise(offsets)]
    bounds = np.concatenate([[0], np.cumsum([len(words) for words in found])]).astype(np.int64)
    return np.concatenate([np.zeros(0, np.uint64), *found]), bounds


def hashes_of(words: Iterable[str], marks: bool = False) -> npt.NDArray[np.uint64]:
    """The hashes of these words, in no order."""
    return words_of(" ".join(sorted(words)).encode(), marks)[0]
