# mypy: disallow-untyped-defs=False
"""Finds the texts of evaluation sets in documents, with an index of the sets.

A text is found *whole* where all its words follow each other in the document. Otherwise it is found by the words that *agree*:

1. If the document has one of the text's own n-grams of `seed` words, the text is aligned with the document at that n-gram.
2. In this alignment, equal words agree, from the n-gram on in both directions until more than `GAP` words in a row differ. The words from
   the first to the last one that agree are a *stretch*.
3. The text is found where, in a window a quarter longer than the text, enough of its words agree, and enough of its own words (`Finder`).
   The order of its parts does not matter. Where the text goes on in the document after at most `INSERTED` other words, those don't count.

An n-gram is a text's *own*, unless more than `common` items of one set have it (as part of an instruction that every item repeats), or it
has numbers alone: such n-grams prove nothing. The words in a text's own n-grams are its own words, but not numbers, which often change
where an item is copied; a text that has fewer than `min_ngram` other words is the exception. The index has the n-grams and their places in
the texts. A text without own n-grams, or of fewer than `min_ngram` words, is only found whole, and is looked up by its rarest
n-gram. A text whose words more than `common` items of one set have is boilerplate. Of several equal texts, only the first is looked for.
Texts that are boilerplate or too short without their marks are read once more with marks (`_with_marks`).

The stem of a question with choices is *ordinary* if its words hardly tell what it is about ("Which of the following statements is true?";
`_ordinary`). Alone it is boilerplate; of a text that begins with it, only n-grams that reach into the choices are own.
"""

from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.dedup.config import ContaminationConfig
from corpusmill.dedup.contamination.sets import MARK, NUMBER, ItemTexts, hashes_of, passage_words
from corpusmill.dedup.contamination.words import SHOWN, Span, character_spans, word_codes
from corpusmill.dedup.words import word_hashes
from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import read_only, text_buffers
from corpusmill.text.hashing import BASE, find, insert, mix64, power, table_size
from corpusmill.text.stop_words import SHIPPED as STOP_WORDS

#: Kinds of texts: not looked for because they are too short, boilerplate, or equal to an earlier one; found only whole; found by the words
#: that agree, also if one differs that is neither the first nor the last (`FRAMED`, of `min_ngram` words), or some. Of several texts of an
#: item, the largest kind is the item's.
SHORT, BOILERPLATE, REPEATED, WHOLE, FRAMED, GRADED = range(-2, 4)
#: By language: `quiz`, words by which a question points at its choices or at what stands beside it ("following", "passage", "statement");
#: `ordinary`, words of any quiz that are no stop words ("best", "describe", "cause").
QUIZ_WORDS = Path(__file__).with_name("quiz_words.json")
#: A word is ordinary, too, if more than this share of the set's items have it in their stems (and more than `common` items).
STEM_SHARE = 0.05
#: Bits of the filter for each n-gram: of 16 n-grams that are not in the index, the filter lets about one pass.
FILTER_BITS = 16
#: A text is looked for with marks if it has at least this many different n-grams that are mostly marks: 8 different marks in a row have
#: that many. Texts such as "| --- | --- | ---" and "--------" have fewer.
MARK_GRAMS = 5


@dataclass(frozen=True)
class PassageIndex:
    """The texts and their n-grams.

    n-grams are numbered by ascending hash. n-gram g occurs in the texts `post_passage[starts[g]:starts[g + 1]]`, at the words
    `post_place[starts[g]:starts[g + 1]]`. The words of text p are `words[bounds[p]:bounds[p + 1]]`.
    """

    filter: npt.NDArray[np.uint64]  # a power of two of bits; the highest bits of an n-gram's hash are the number of its bit
    table: npt.NDArray[np.uint64]  # open addressing (text/hashing.py)
    gram_at: npt.NDArray[np.int32]  # the number of the n-gram in each slot of the table
    starts: npt.NDArray[np.int64]
    post_passage: npt.NDArray[np.int32]
    post_place: npt.NDArray[np.int32]  # the number of words before the n-gram in its text
    words: npt.NDArray[np.uint64]
    own_words: npt.NDArray[np.uint8]  # for each of `words`: 1 where it lies in one of its text's own n-grams
    bounds: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]  # for each text: how many of its words are numbers that are not its own
    kind: npt.NDArray[np.int8]
    marks: npt.NDArray[np.uint8]  # for each text: 1 where it is read with marks
    set_of: npt.NDArray[np.int32]
    number: npt.NDArray[np.int64]
    field_of: npt.NDArray[np.int32]
    sets: list[str]
    fields: list[str]

    def to_bytes(self) -> bytes:
        """Returns an Arrow file of one row, with each array as a list. It can be read without a copy, also from a memory map."""
        columns = {field.name: _one_row(getattr(self, field.name)) for field in fields(self)}
        sink = pa.BufferOutputStream()
        table = pa.table(columns)
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue().to_pybytes()

    @classmethod
    def from_buffer(cls, source: pa.NativeFile | pa.Buffer) -> "PassageIndex":
        table = pa.ipc.open_file(source).read_all()
        arrays = {field.name: table[field.name].chunk(0).values for field in fields(cls)}
        return cls(**{name: a.to_pylist() if pa.types.is_string(a.type) else a.to_numpy() for name, a in arrays.items()})


def _one_row(values: npt.NDArray | list[str]) -> pa.Array:
    array = pa.array(values, pa.string()) if isinstance(values, list) else pa.array(values)
    return pa.LargeListArray.from_arrays(pa.array([0, len(array)], pa.int64()), array)


@kernel(error_model="numpy")
def _gram_hashes(words, bounds, chosen, seed, hashes, passages, places):
    """Writes the n-grams of the `chosen` texts: hash, text and place of each; returns their number."""
    count = 0
    for p in range(len(bounds) - 1):
        if chosen[p]:
            for place in range(bounds[p + 1] - bounds[p] - seed + 1):
                value = np.uint64(0)
                for k in range(seed):
                    value = value * BASE + words[bounds[p] + place + k]
                hashes[count], passages[count], places[count] = max(mix64(value), np.uint64(1)), p, place
                count += 1
    return count


@kernel(error_model="numpy")
def _rarest(passages, counts, kind, chosen):
    """Marks in `chosen` the rarest n-gram of each text of kind WHOLE, the first one of equals."""
    best = -1
    for g in range(len(passages)):
        if kind[passages[g]] == WHOLE:
            if best < 0 or passages[best] != passages[g]:
                best = g
                chosen[best] = True
            elif counts[g] < counts[best]:
                chosen[best] = False
                best = g
                chosen[best] = True


@kernel(error_model="numpy")
def _fill(hashes, shift, table, gram_at, filter_):
    mask = table.size - 1
    for g in range(len(hashes)):
        insert(table, mask, hashes[g])
        bit = hashes[g] >> shift
        filter_[bit >> np.uint64(6)] |= np.uint64(1) << (bit & np.uint64(63))
        slot = np.int64(hashes[g]) & mask
        while table[slot] != hashes[g]:
            slot = (slot + 1) & mask
        gram_at[slot] = g


@dataclass(frozen=True)
class _Reading:
    """All texts as words, and the n-grams of those that are looked for, in the order of the texts."""

    words: npt.NDArray[np.uint64]
    bounds: npt.NDArray[np.int64]
    number: npt.NDArray[np.bool_]  # for each word: whether it is a number (False with marks)
    kind: npt.NDArray[np.int8]  # for each text; WHOLE where it is looked for
    hashes: npt.NDArray[np.uint64]  # for each n-gram: its hash, its text (`owner`), its first word in the text (`places`)
    owner: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]
    own_grams: npt.NDArray[np.bool_]  # for each n-gram: whether it is its text's own


def _read(passages: ItemTexts, config: ContaminationConfig, marks: bool) -> _Reading:
    """Reads all texts, with or without marks."""
    # texts to look for, and their n-grams
    seed = config.seed
    words, bounds = passage_words(passages.texts, marks)
    lengths = np.diff(bounds)
    first, boilerplate = _equal(words, bounds, passages, config.common)
    stem = np.zeros(len(lengths), np.int64) if marks else _ordinary(words, bounds, passages, config)
    kind = np.where(boilerplate | ((stem == lengths) & (lengths > 0)), BOILERPLATE, np.where(first, WHOLE, REPEATED)).astype(np.int8)
    kind[lengths < (config.min_ngram if marks else config.min_words)] = SHORT
    total = int(np.maximum(lengths[kind == WHOLE] - seed + 1, 0).sum())
    hashes, owner, places = np.empty(total, np.uint64), np.empty(total, np.int64), np.empty(total, np.int64)
    _gram_hashes(words, bounds, kind == WHOLE, seed, hashes, owner, places)
    gram = np.unique(hashes, return_inverse=True)[1]
    own_grams = ~_many(gram, passages.item[owner], passages.set_of[owner], config.common)[gram] & (places + seed > stem[owner])
    # an n-gram proves something (`telling`) if it is mostly marks, and not one word repeated; without marks, if it is not numbers alone
    at = bounds[owner] + places
    number = np.zeros(len(words), bool)
    if marks:
        is_mark = np.isin(words, hashes_of({mark for text in passages.texts for mark in MARK.findall(text)} | {"_"}, marks=True))
        same = np.concatenate([words[1:] == words[:-1], np.zeros(1, bool)])
        telling = (2 * _count(is_mark, at, seed) > seed) & (_count(same, at, seed - 1) < seed - 1)
        different = np.unique(np.stack([owner[telling], gram[telling]], axis=1), axis=0)[:, 0]
        kind[(kind == WHOLE) & (np.bincount(different, minlength=len(lengths)) < MARK_GRAMS)] = SHORT
    else:
        number = np.isin(words, hashes_of({digits for text in passages.texts for digits in NUMBER.findall(text)}))
        telling = _count(~number, at, seed) > 0
    kept = kind[owner] == WHOLE
    return _Reading(words, bounds, number, kind, hashes[kept], owner[kept], places[kept], (own_grams & telling)[kept])


def _ordinary(
    words: npt.NDArray[np.uint64], bounds: npt.NDArray[np.int64], passages: ItemTexts, config: ContaminationConfig
) -> npt.NDArray[np.int64]:
    """Returns for each text the number of words of its stem if that is ordinary, else 0.

    In one of the languages of `QUIZ_WORDS`, all its words are stop words, quiz words, ordinary words, or frequent in the set's stems. One
    word may be another, if there is a quiz word.
    """
    stem = np.zeros(len(bounds) - 1, np.int64)
    some = np.array([number for number, given in enumerate(passages.stems) if given], np.int64)
    stem[some] = np.diff(passage_words([passages.stems[number] for number in some])[1])
    text = np.repeat(np.arange(len(stem)), stem)
    vocabulary, word = np.unique(words[np.arange(len(text)) - np.repeat(np.cumsum(stem) - stem - bounds[:-1], stem)], return_inverse=True)
    set_ = passages.set_of[text]
    word_of_set = np.unique(word * len(passages.sets) + set_, return_inverse=True)[1]
    least = np.maximum(config.common, STEM_SHARE * np.array(passages.sizes))
    rare = ~_many(word_of_set, passages.item[text], set_, least)[word_of_set]
    stop_words = parse_json(STOP_WORDS.read_text())
    found = np.zeros(len(stem), bool)
    for language, listed in parse_json(QUIZ_WORDS.read_text()).items():
        quiz, ordinary = hashes_of(listed["quiz"].split()), hashes_of([*listed["ordinary"].split(), *stop_words[language]])
        points = np.bincount(text[np.isin(vocabulary, quiz)[word]], minlength=len(stem)) > 0
        telling = rare & ~np.isin(vocabulary, np.concatenate([quiz, ordinary]))[word]
        found |= np.bincount(text[telling], minlength=len(stem)) <= points
    return np.where(found, stem, 0)


def _with_marks(passages: ItemTexts, plain: _Reading, config: ContaminationConfig) -> tuple[ItemTexts, _Reading]:
    """Reads some texts once more, with marks: those that are boilerplate or shorter than `min_words` when read without marks."""
    untold = np.flatnonzero(plain.kind <= BOILERPLATE)
    chosen = replace(
        passages, set_of=passages.set_of[untold], number=passages.number[untold], field_of=passages.field_of[untold],
        item=passages.item[untold], texts=[passages.texts[t] for t in untold], stems=[],
    )  # fmt: skip
    return chosen, _read(chosen, config, marks=True)


def build_index(passages: ItemTexts, config: ContaminationConfig) -> PassageIndex:
    """Builds the index of the texts that can be looked for. Time grows with the number of words of the sets."""
    # all texts without marks, then some of them with marks
    seed = config.seed
    plain = _read(passages, config, marks=False)
    marked_passages, marked = _with_marks(passages, plain, config)
    both = [passages, marked_passages]
    words = np.concatenate([plain.words, marked.words])
    bounds = np.concatenate([plain.bounds, len(plain.words) + marked.bounds[1:]])
    kind = np.concatenate([plain.kind, marked.kind])
    hashes, places, proves = (np.concatenate([getattr(r, name) for r in (plain, marked)]) for name in ("hashes", "places", "own_grams"))
    owner = np.concatenate([plain.owner, len(plain.kind) + marked.owner])

    # the kind of each text, and its own words
    lengths = np.diff(bounds)
    kind[owner[proves & (lengths[owner] >= config.min_ngram)]] = GRADED
    own_words = np.zeros(len(words), np.uint8)
    for k in range(seed):
        own_words[(bounds[owner] + places + k)[proves]] = 1
    number = np.concatenate([plain.number, marked.number])
    numbers = _count(number, bounds[:-1], lengths)
    numbers[lengths - numbers < config.min_ngram] = 0
    own_words[number & np.repeat(numbers > 0, lengths)] = 0
    kind[(kind == GRADED) & (lengths - numbers == config.min_ngram)] = FRAMED

    # the n-grams to look up: the own ones of GRADED texts, the rarest one of WHOLE texts
    _, gram, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    chosen = proves & (kind[owner] >= FRAMED)
    _rarest(owner, counts[gram], kind, chosen)
    order = np.flatnonzero(chosen)
    order = order[np.argsort(hashes[order], kind="stable")]
    used, starts = np.unique(hashes[order], return_index=True)
    table = np.zeros(table_size(len(used)), np.uint64)
    gram_at = np.zeros(len(table), np.int32)
    bits = max(6, int(np.ceil(np.log2(max(len(used) * FILTER_BITS, 1)))))
    filter_ = np.zeros(1 << (bits - 6), np.uint64)
    _fill(used, np.uint64(64 - bits), table, gram_at, filter_)
    return PassageIndex(
        filter_, table, gram_at, np.append(starts, len(order)).astype(np.int64), owner[order].astype(np.int32),
        places[order].astype(np.int32), words, own_words, bounds, numbers, kind, (np.arange(len(kind)) >= len(plain.kind)).astype(np.uint8),
        np.concatenate([p.set_of for p in both]), np.concatenate([p.number for p in both]), np.concatenate([p.field_of for p in both]),
        passages.sets, passages.fields,
    )  # fmt: skip


def _count(values: npt.NDArray, at: npt.NDArray[np.int64], size: int | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Returns for each place in `at` how many of the `size` values from there on are true."""
    sums = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    found: npt.NDArray[np.int64] = sums[at + size] - sums[at]
    return found


def _equal(
    words: npt.NDArray, bounds: npt.NDArray, passages: ItemTexts, common: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Returns for each text whether it is the first one with its words, and whether more than `common` items of one set have the same
    words."""
    number: dict[bytes, int] = {}
    text = np.array([number.setdefault(words[a:b].tobytes(), len(number)) for a, b in pairwise(bounds)], np.int64)
    first = np.zeros(len(text), bool)
    first[np.unique(text, return_index=True)[1]] = True
    return first, _many(text, passages.item, passages.set_of, common)[text]


def _many(value: npt.NDArray, item: npt.NDArray, set_: npt.NDArray, common: int | npt.NDArray) -> npt.NDArray[np.bool_]:
    """Returns for each value 0, 1, ... whether it occurs in more than `common` items of one set (a number, or one for each set)."""
    items, sets = int(item.max(initial=0)) + 1, int(set_.max(initial=0)) + 1
    once = np.unique(value * items + item, return_index=True)[1]
    groups, counts = np.unique(value[once] * sets + set_[once], return_counts=True)
    result = np.zeros(int(value.max(initial=-1)) + 1, bool)
    result[groups[counts > (common[groups % sets] if isinstance(common, np.ndarray) else common)] // sets] = True
    return result


def set_columns(passages: ItemTexts, index: PassageIndex, config: ContaminationConfig) -> list[list[Any]]:
    """Returns the name of each set, its number of items, and how many of them are looked for, are too short, would be long enough with the
    smallest `min_words` (`seed`), have the words of an item before them, and are boilerplate."""
    rows = []
    words = np.where(index.marks, 0, np.diff(index.bounds))
    for number, items in enumerate(passages.sizes):
        item, of_set = index.number[index.set_of == number], index.set_of == number
        kind, longest = np.full(items, SHORT), np.zeros(items, np.int64)
        np.maximum.at(kind, item, index.kind[of_set])
        np.maximum.at(longest, item, words[of_set])
        short = kind == SHORT
        parts = (kind >= WHOLE, short, short & (longest >= config.seed), kind == REPEATED, kind == BOILERPLATE)
        rows.append([items, *(int(part.sum()) for part in parts)])
    return [passages.sets, *map(list, zip(*rows, strict=True))]


# ---- finding -----------------------------------------------------------------------------------------------


#: The most words in a row that may differ within a stretch.
GAP = 2
#: The most words in a row that may stand in a document between two words of a text that follow each other (an advertisement, a heading),
#: and the fewest words that must agree before them, unless all words of the text are there, in two pieces. Idioms of fewer words often
#: follow each other ("is the best way ... to get rid of").
INSERTED, BEFORE = 24, 6
#: Words of a document that are searched at a time, at least. This bounds the memory for a huge document.
BLOCK_WORDS = 1 << 16
#: The number of counters for words that agree. Several texts share a counter; a text whose counter is too low can't be found.
TALLY = 1 << 14
#: A stretch is two integers: the packed numbers (text, document word - text word + SHIFT, first word in the text), and the end in the text.
PLACE_BITS, LAID_BITS, SHIFT = 17, 20, 1 << 17
#: Columns of a match.
DOCUMENT, PASSAGE, START, END, COVERED = range(5)

Matches = npt.NDArray[np.int64]


def least_words(lengths: npt.NDArray[np.int64], config: ContaminationConfig) -> npt.NDArray[np.int64]:
    """Returns for texts of these lengths (in words) how many words must agree: of `min_ngram` words, all but one."""
    short = np.ceil(config.short_share * lengths - 1e-9).astype(np.int64)
    return np.minimum(np.maximum(short, np.minimum(config.min_ngram, lengths - 1)), config.ngram)


@dataclass(frozen=True)
class Finder:
    """Finds the texts of an index in documents. All arrays have a value for each text, in words."""

    index: PassageIndex
    seed: int
    own_counts: npt.NDArray[np.int64]  # how many are its own; for a text that is only found whole, all of them
    need: npt.NDArray[np.int64]  # how many must agree in a window
    need_own: npt.NDArray[np.int64]  # how many of its own must agree in a window
    window: npt.NDArray[np.int64]  # the length of the window in the document
    block: int  # words of a document that are searched at a time

    @classmethod
    def make(cls, index: PassageIndex, config: ContaminationConfig, block: int = BLOCK_WORDS) -> "Finder":
        lengths = np.diff(index.bounds)
        own_counts = np.where(index.kind >= FRAMED, _count(index.own_words, index.bounds[:-1], lengths), lengths)
        least = least_words(lengths - index.numbers, config)
        few = np.where(own_counts < least, np.ceil(config.share * (lengths - index.numbers) - 1e-9).astype(np.int64), 0)
        need_own = np.ceil(config.share * own_counts - 1e-9).astype(np.int64)
        window = lengths + np.maximum(-(-lengths // 4), config.seed)
        widest = int(window[index.kind >= FRAMED].max(initial=0))
        return cls(index, config.seed, own_counts, np.maximum(least, few), need_own, window, max(block, 4 * widest))

    def find(self, texts: pa.Array) -> Matches:
        """Returns the k matches in n documents, sorted, each once.

        k x 5: document, text, first word, last word + 1, and how many of the text's own words agree. `spans` converts words to characters.
        """
        data, offsets = text_buffers(texts)
        index = self.index
        lengths = np.diff(index.bounds)
        arrays: tuple[npt.NDArray, ...] = (index.filter, index.table, index.gram_at, index.starts, index.post_passage, index.post_place)
        texts_: tuple[npt.NDArray, ...] = (index.words, index.bounds, index.kind, self.need, self.need_own, self.window, index.own_words)
        overlap = max(self.seed, 2 * int(self.window[index.kind >= FRAMED].max(initial=0)))
        found = [np.zeros((0, 5), np.int64)]
        for marks in (False, True):
            here = index.marks == marks
            if not (here & (index.kind > 0)).any():
                continue
            longest = int(np.diff(offsets).max(initial=0)) // (1 if marks else 2) + 1
            scratch = (
                np.empty(longest, np.uint64), np.empty(self.block + 1, np.int64), np.empty(self.block + 1, np.uint64),
                np.zeros(int(lengths.max(initial=0)) + 1, np.int64), np.zeros(TALLY, np.int64), np.zeros((TALLY, 2), np.int64),
            )  # fmt: skip
            found.append(
                _find(read_only(data), read_only(offsets), word_codes(marks), tuple(map(read_only, arrays)),
                      tuple(map(read_only, (*texts_, here))), scratch, self.seed, self.block, overlap)
            )  # fmt: skip
        return np.unique(np.concatenate(found), axis=0)

    def spans(self, text: str, matches: Matches) -> list[Span]:
        """Returns the spans of one document's matches, in characters; those of texts with marks last."""
        marks = self.index.marks[matches[:, PASSAGE]]
        return [
            span
            for with_marks in (False, True)
            for span in character_spans(text, [(row[START], row[END]) for row in matches[marks == with_marks]], with_marks)
        ]

    def passage(self, text: str, match: npt.NDArray[np.int64]) -> str:
        """Returns the passage of a document that one match covers, cut to `SHOWN` characters for reports."""
        ((start, end),) = self.spans(text, match[np.newaxis])
        return text[start:end][:SHOWN]

    def ranked(self, matches: Matches) -> Matches:
        """Returns the matches, the best first: by the share of own words, then by their number, then in the order of sets and items."""
        order = np.lexsort((matches[:, START], matches[:, PASSAGE], -matches[:, COVERED], -self.share(matches)))
        return matches[order]

    def share(self, matches: Matches) -> npt.NDArray[np.float64]:
        """Returns for each match the share of its text's own words that agree."""
        share: npt.NDArray[np.float64] = matches[:, COVERED] / self.own_counts[matches[:, PASSAGE]]
        return share


@kernel(error_model="numpy")
def _find(data, offsets, codes, arrays, texts, scratch, seed, block, overlap):
    words, positions, keys, counts, tally, last = scratch
    filter_, table, gram_at, starts, post_passage, post_place = arrays
    text_words, bounds, kind, need, here = texts[0], texts[1], texts[2], texts[3], texts[7]
    matches, found = np.empty((16, 5), np.int64), 0
    stretches, ends = np.empty(1024, np.int64), np.empty(1024, np.int64)
    for d in range(len(offsets) - 1):
        length = word_hashes(data, offsets[d], offsets[d + 1], codes, words)
        start = 0
        while start + seed <= length:
            end = min(start + block, length)
            candidates = _filtered(words, start, end, seed, filter_, positions, keys)
            count = 0
            for c in range(candidates):
                slot = find(table, table.size - 1, keys[c])
                if slot < 0:
                    continue
                gram = gram_at[slot]
                for post in range(starts[gram], starts[gram + 1]):
                    passage, place = np.int64(post_passage[post]), np.int64(post_place[post])
                    if not here[passage]:
                        continue
                    first = positions[c] - place  # the document's word at which the text begins in this alignment
                    begin, size = bounds[passage], bounds[passage + 1] - bounds[passage]
                    if kind[passage] == WHOLE:
                        if _agrees(words, length, first, text_words, begin, 0, size):
                            matches, found = _add(matches, found, d, passage, first, first + size, size)
                        continue
                    slot = passage & (TALLY - 1)
                    laid = (passage << LAID_BITS) | (first - start + SHIFT)
                    if last[slot, 0] == laid + 1 and place < last[slot, 1]:
                        continue  # this n-gram lies in a stretch that is already found
                    if not _agrees(words, length, first, text_words, begin, place, place + seed):
                        continue  # another n-gram with the same hash
                    left, right, agreed = _stretch(words, length, first, text_words, begin, size, place, seed)
                    last[slot, 0], last[slot, 1] = laid + 1, right
                    if count == len(stretches):
                        stretches = np.concatenate((stretches, np.empty(count, np.int64)))
                        ends = np.concatenate((ends, np.empty(count, np.int64)))
                    stretches[count], ends[count] = (laid << PLACE_BITS) | left, right
                    count += 1
                    tally[slot] += agreed
            if count:
                count = _enough(stretches, ends, count, tally, last, need)
                matches, found = _judge(stretches[:count], ends[:count], d, start, words, texts, counts, matches, found)
            if end == length:
                break
            start += block - overlap
    return matches[:found]


@kernel(error_model="numpy")
def _filtered(words, start, end, seed, filter_, positions, keys):
    """Writes the n-grams of `words[start:end]` that pass the filter, their first words and their hashes; returns their number.

    To avoid a branch, each n-gram is written, but `count` grows only for those that pass.
    """
    shift = np.uint64(64)
    size = filter_.size * 64
    while size > 1:
        size >>= 1
        shift -= np.uint64(1)
    leaving = power(seed)
    value = np.uint64(0)
    for w in range(start, start + seed - 1):
        value = value * BASE + words[w]
    count = 0
    gone = np.uint64(0)
    for w in range(start, end - seed + 1):
        value = value * BASE + words[w + seed - 1] - gone * leaving
        gone = words[w]
        key = max(mix64(value), np.uint64(1))
        bit = key >> shift
        positions[count], keys[count] = w, key
        count += int((filter_[bit >> np.uint64(6)] >> (bit & np.uint64(63))) & np.uint64(1) != 0)
    return count


@kernel(error_model="numpy")
def _agrees(words, length, first, text_words, begin, left, right):
    """Whether the words `left` to `right` of a text all agree, if the text begins at word `first` of the document."""
    if first + left < 0 or first + right > length:
        return False
    for k in range(left, right):  # noqa: SIM110 - a kernel
        if words[first + k] != text_words[begin + k]:
            return False
    return True


@kernel(error_model="numpy")
def _stretch(words, length, first, text_words, begin, size, place, seed):
    """Returns the stretch around the n-gram at `place`: its first word in the text, its last word + 1, and how many words agree."""
    left, right, agreed = place, place + seed, seed
    k = place - 1
    while k >= max(0, -first, left - GAP - 1):
        if words[first + k] == text_words[begin + k]:
            left = k
            agreed += 1
        k -= 1
    k = right
    while k < min(size, length - first, right + GAP + 1):
        if words[first + k] == text_words[begin + k]:
            right = k + 1
            agreed += 1
        k += 1
    return left, right, agreed


@kernel(error_model="numpy")
def _enough(stretches, ends, count, tally, last, need):
    """Moves the stretches of texts whose counter is high enough to the front; returns their number. Clears `tally` and `last`."""
    kept = 0
    for s in range(count):
        stretch, end = stretches[s], ends[s]
        passage = stretch >> (LAID_BITS + PLACE_BITS)
        stretches[s], ends[s] = stretches[kept], ends[kept]
        stretches[kept], ends[kept] = stretch, end
        kept += int(tally[passage & (TALLY - 1)] >= need[passage])
    for s in range(count):
        slot = (stretches[s] >> (LAID_BITS + PLACE_BITS)) & (TALLY - 1)
        tally[slot] = last[slot, 0] = 0
    return kept


@kernel(error_model="numpy")
def _judge(stretches, ends, document, start, words, texts, counts, matches, found):
    """Adds the matches of each text. Collects its words that agree, as pairs (word of the document, word of the text), in the order of the
    document, and judges them by windows."""
    order = np.argsort(stretches)
    text_words, bounds = texts[0], texts[1]
    pairs = np.empty(256, np.int64)
    s = 0
    while s < len(order):
        passage = stretches[order[s]] >> (LAID_BITS + PLACE_BITS)
        begin, count = bounds[passage], 0
        while s < len(order) and stretches[order[s]] >> (LAID_BITS + PLACE_BITS) == passage:
            laid = (stretches[order[s]] >> PLACE_BITS) & ((1 << LAID_BITS) - 1)  # the text's first word in the block, plus SHIFT
            for place in range(stretches[order[s]] & ((1 << PLACE_BITS) - 1), ends[order[s]]):
                if words[start + laid - SHIFT + place] == text_words[begin + place]:
                    if count == len(pairs):
                        pairs = np.concatenate((pairs, np.empty(count, np.int64)))
                    pairs[count] = ((laid + place) << PLACE_BITS) | place
                    count += 1
            s += 1
        matches, found = _windows(np.unique(pairs[:count]), passage, document, start - SHIFT, texts, counts, matches, found)
    return matches, found


@kernel(error_model="numpy")
def _windows(pairs, passage, document, offset, texts, counts, matches, found):
    """Adds the matches of one text. Looks at the largest window that ends in each pair; windows that suffice and overlap are one match.

    A window counts the smaller of two numbers: the words of the text that agree, and the words of the document that do. So one phrase of a
    page can't count for every place of the text that has it. It leaves out what is inserted where the text goes on. `counts` (zeros, before
    and after): the number of pairs in the window for each word of the text.
    """
    need, need_own, window = texts[3][passage], texts[4][passage], texts[5][passage]
    own_words = texts[6][texts[1][passage] : texts[1][passage + 1]]
    left, agreed, agreed_own, there = 0, 0, 0, 0
    begin, end, best = -1, -1, 0  # the current match: its first word in the document, its last word + 1, the most own words in a window
    inserted = np.zeros(len(pairs), np.int64)  # before each pair
    run = 0  # pairs in a row up to here, without an insertion
    for right in range(len(pairs)):
        position, place = pairs[right] >> PLACE_BITS, pairs[right] & ((1 << PLACE_BITS) - 1)
        if right:
            more = (position - place) - ((pairs[right - 1] >> PLACE_BITS) - (pairs[right - 1] & ((1 << PLACE_BITS) - 1)))
            goes_on = 0 < place - (pairs[right - 1] & ((1 << PLACE_BITS) - 1)) <= GAP + 1
            known = run >= BEFORE or (run == place and _ends(pairs, right, len(own_words) - place))
            inserted[right] = inserted[right - 1] + (more if goes_on and 0 < more <= INSERTED and known else 0)
            run = run if goes_on and more == 0 else 0
        run += 1
        if counts[place] == 0:
            agreed += 1
            agreed_own += int(own_words[place])
        counts[place] += 1
        there += int(right == left or position != pairs[right - 1] >> PLACE_BITS)
        while position - (pairs[left] >> PLACE_BITS) - (inserted[right] - inserted[left]) >= window:
            place = pairs[left] & ((1 << PLACE_BITS) - 1)
            counts[place] -= 1
            if counts[place] == 0:
                agreed -= 1
                agreed_own -= int(own_words[place])
            there -= int(pairs[left + 1] >> PLACE_BITS != pairs[left] >> PLACE_BITS)
            left += 1
        framed = texts[2][passage] == GRADED or min(agreed, there) > need or (counts[0] > 0 and counts[len(own_words) - 1] > 0)
        if min(agreed, there) >= need and min(agreed_own, there) >= need_own and framed:
            first = pairs[left] >> PLACE_BITS
            if begin >= 0 and first > end:
                matches, found = _add(matches, found, document, passage, offset + begin, offset + end, best)
                begin = -1
            if begin < 0:
                begin, best = first, 0
            end, best = position + 1, max(best, min(agreed_own, there))
    if begin >= 0:
        matches, found = _add(matches, found, document, passage, offset + begin, offset + end, best)
    for pair in range(left, len(pairs)):
        counts[pairs[pair] & ((1 << PLACE_BITS) - 1)] = 0
    return matches, found


@kernel(error_model="numpy")
def _ends(pairs, right, left_over):
    """Whether the last `left_over` words of a text follow each other in the document, the first of them as the pair `right`."""
    if right + left_over > len(pairs):
        return False
    for k in range(1, left_over):  # noqa: SIM110 - a kernel
        if pairs[right + k] != pairs[right] + k * ((1 << PLACE_BITS) + 1):
            return False
    return True


@kernel(error_model="numpy")
def _add(matches, found, document, passage, start, end, covered):
    if found == len(matches):
        matches = np.concatenate((matches, np.empty((len(matches), 5), np.int64)))
    matches[found, DOCUMENT], matches[found, PASSAGE] = document, passage
    matches[found, START], matches[found, END], matches[found, COVERED] = start, end, covered
    return matches, found + 1
