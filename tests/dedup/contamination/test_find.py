"""Compares the search for test items with its definition, computed by brute force over all windows."""

import math
from collections import defaultdict
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup.config import ContaminationConfig
from corpusmill.dedup.contamination.find import BEFORE, FRAMED, GAP, GRADED, INSERTED, WHOLE, Finder, PassageIndex, build_index
from corpusmill.dedup.contamination.sets import ItemTexts

Words = list[str]


def make_config(**options: Any) -> ContaminationConfig:
    return ContaminationConfig.model_validate({"sets": ["x"], **options})


def make_passages(texts: list[Words], sets: list[int] | None = None) -> ItemTexts:
    """Builds an index of texts, each an item of its own."""
    of = np.array(sets or [0] * len(texts), np.int32)
    count = len(texts)
    return ItemTexts(
        [f"set{s}" for s in range(max(of, default=0) + 1)], ["text"], of, np.arange(count), np.zeros(count, np.int32), np.arange(count),
        np.bincount(of, minlength=1).tolist(), [" ".join(text) for text in texts], [""] * count,
    )  # fmt: skip


def make_finder(texts: list[Words], config: ContaminationConfig, sets: list[int] | None = None, block: int = 1 << 16) -> Finder:
    index = build_index(make_passages(texts, sets), config)
    return Finder.make(PassageIndex.from_buffer(pa.py_buffer(index.to_bytes())), config, block)


def find(finder: Finder, documents: list[Words]) -> list[tuple[int, ...]]:
    return [tuple(map(int, row)) for row in finder.find(pa.array([" ".join(d) for d in documents], pa.large_string()))]


class Oracle:
    """The rules as documented, computed slowly."""

    def __init__(self, texts: list[Words], config: ContaminationConfig, sets: list[int] | None = None):
        self.texts, self.config, self.sets = texts, config, sets or [0] * len(texts)
        seed = config.seed
        holders: dict[tuple[str, ...], set[int]] = defaultdict(set)
        for i, text in enumerate(texts):
            holders[tuple(text)].add(i)
        self.wanted = [
            len(text) >= config.min_words and min(holders[tuple(text)]) == i and not self.many(holders[tuple(text)])
            for i, text in enumerate(texts)
        ]
        grams: dict[tuple[str, ...], set[int]] = defaultdict(set)
        for i, text in enumerate(texts):
            if self.wanted[i]:
                for gram in self.grams(text):
                    grams[gram].add(i)
        self.proves = {gram for gram, items in grams.items() if not self.many(items) and not all(w.isdigit() for w in gram)}
        self.kind, self.own, self.size = [], [], []  # `size`: in words, without numbers if enough others are left
        for i, text in enumerate(texts):
            own = {p + k for p, g in enumerate(self.grams(text)) if g in self.proves for k in range(seed)}
            letters = {p for p, word in enumerate(text) if not word.isdigit()}
            self.size.append(len(letters) if len(letters) >= config.min_ngram else len(text))
            own &= letters if len(letters) >= config.min_ngram else own
            self.own.append(own if self.wanted[i] else set())
            graded = own and len(text) >= config.min_ngram
            framed = self.size[i] == config.min_ngram
            self.kind.append(0 if not self.wanted[i] else (FRAMED if framed else GRADED) if graded else WHOLE)

    def many(self, items: set[int]) -> bool:
        counts: dict[int, int] = defaultdict(int)
        for item in items:
            counts[self.sets[item]] += 1
        return max(counts.values()) > self.config.common

    def grams(self, words: Words) -> list[tuple[str, ...]]:
        seed = self.config.seed
        return [tuple(words[i : i + seed]) for i in range(len(words) - seed + 1)]

    def find(self, documents: list[Words]) -> list[tuple[int, ...]]:
        found = set()
        for d, document in enumerate(documents):
            for p, text in enumerate(self.texts):
                if self.kind[p] == WHOLE:
                    for at in range(len(document) - len(text) + 1):
                        if document[at : at + len(text)] == text:
                            found.add((d, p, at, at + len(text), len(text)))
                elif self.kind[p] >= FRAMED:
                    found |= {(d, p, *rest) for rest in self.graded(document, text, self.own[p], self.size[p])}
        return sorted(found)

    def graded(self, document: Words, text: Words, own: set[int], size: int) -> set[tuple[int, int, int]]:
        config = self.config
        window = len(text) + max(-(-len(text) // 4), config.seed)
        least = min(max(math.ceil(config.short_share * size - 1e-9), min(config.min_ngram, size - 1)), config.ngram)
        need = max(least, math.ceil(config.share * size - 1e-9)) if len(own) < least else least
        need_own = math.ceil(config.share * len(own) - 1e-9)
        pairs = sorted(pair for laid in range(-len(text), len(document)) for pair in self.agreeing(document, text, laid))
        runs: list[tuple[int, list[tuple[int, int]]]] = []
        at = [0] * len(pairs)  # each pair's word of the document, without the words that are inserted where the text goes on
        run = 1
        for k, ((before, last), (j, i)) in enumerate(pairwise(pairs), 1):
            goes_on, more = last < i <= last + GAP + 1, (j - i) - (before - last)
            at[k] = at[k - 1] + (i - last if goes_on and 0 < more <= INSERTED and run >= BEFORE else j - before)
            run = run + 1 if goes_on and more == 0 else 1
        for k in range(len(pairs)):
            inside = [pair for pair, place in zip(pairs[: k + 1], at, strict=False) if at[k] - place < window]
            there = len({j for j, _ in inside})
            words = {i for _, i in inside}
            agreed, agreed_own = min(there, len(words)), min(there, len(words & own))
            framed = size != config.min_ngram or agreed > need or {0, len(text) - 1} <= words
            if inside and agreed >= need and agreed_own >= need_own and framed:
                if runs and inside[0][0] <= max(runs[-1][1])[0] + 1:
                    runs[-1] = (max(runs[-1][0], agreed_own), runs[-1][1] + inside)
                else:
                    runs.append((agreed_own, inside))
        return {(min(run)[0], max(run)[0] + 1, agreed_own) for agreed_own, run in runs}

    def agreeing(self, document: Words, text: Words, laid: int) -> list[tuple[int, int]]:
        """Returns the places of equal words with the text aligned at word `laid`, in stretches with an n-gram that proves the item."""
        equal = [i for i in range(len(text)) if 0 <= laid + i < len(document) and document[laid + i] == text[i]]
        stretches: list[list[int]] = []
        for i in equal:
            if stretches and i - stretches[-1][-1] <= GAP + 1:
                stretches[-1].append(i)
            else:
                stretches.append([i])
        grams, there = self.grams(text), set(equal)
        seeds = [i for i, g in enumerate(grams) if g in self.proves and there.issuperset(range(i, i + self.config.seed))]
        return [(laid + i, i) for stretch in stretches if not set(seeds).isdisjoint(stretch) for i in stretch]


VOCABULARY = [*"abcdefgh", "1", "2"]
TEXT = st.lists(st.sampled_from(VOCABULARY), max_size=14)
CONFIG = st.builds(
    make_config,
    seed=st.just(2), min_ngram=st.integers(2, 4), ngram=st.integers(4, 7), min_words=st.integers(2, 4), common=st.integers(1, 4),
    share=st.sampled_from([0, 0.3, 0.5, 0.8, 1]), short_share=st.sampled_from([0, 0.5, 0.75, 1]),
)  # fmt: skip


@st.composite
def documents(draw: Any, texts: list[Words]) -> list[Words]:
    """Generates random words with edited texts among them."""
    found = []
    for _ in range(draw(st.integers(1, 3))):
        document: Words = []
        for _ in range(draw(st.integers(0, 4))):
            part = list(draw(st.sampled_from(texts))) if texts and draw(st.booleans()) else draw(TEXT)
            for _ in range(draw(st.integers(0, 2))):
                if part:
                    part[draw(st.integers(0, len(part) - 1))] = draw(st.sampled_from([*VOCABULARY, "x y", ""]))
            document += " ".join(part).split()
        found.append(document)
    return found


@given(st.data(), st.lists(TEXT, max_size=6), CONFIG)
def test_what_is_found_is_what_the_definition_says(data: Any, texts: list[Words], config: ContaminationConfig) -> None:
    sets = sorted(data.draw(st.lists(st.integers(0, 1), min_size=len(texts), max_size=len(texts))))
    finder, oracle = make_finder(texts, config, sets), Oracle(texts, config, sets)
    assert np.maximum(finder.index.kind, 0).tolist() == [*oracle.kind, *[0] * (len(finder.index.kind) - len(texts))]
    docs = data.draw(documents(texts))
    assert find(finder, docs) == oracle.find(docs)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.lists(TEXT, min_size=1, max_size=4), CONFIG)
def test_documents_are_found_alone_as_together_and_in_slices(data: Any, texts: list[Words], config: ContaminationConfig) -> None:
    finder = make_finder(texts, config)
    docs = data.draw(documents(texts))
    together = find(finder, docs)
    assert together == [(d, *rest) for d, document in enumerate(docs) for _, *rest in find(finder, [document])]
    array = pa.array(["before", *map(" ".join, docs)], pa.large_string())[1:]
    assert [tuple(map(int, row)) for row in finder.find(array)] == together


def long_text(seed: int, count: int) -> Words:
    draw = np.random.default_rng(seed)
    return [f"w{n}" for n in draw.integers(0, 100_000, count)]


def test_blocks_of_a_long_document_hide_nothing() -> None:
    texts = [long_text(s, 30) for s in range(40)]
    finder = make_finder(texts, make_config(), block=100)  # a window has 38 words, so a block starts every 62 words
    document: Words = []
    expected = []
    for number, text in enumerate(texts):
        document += long_text(1000 + number, 7 + number)
        expected.append((0, number, len(document), len(document) + 30))
        document += text
    found = find(finder, [document])
    words: dict[int, set[int]] = defaultdict(set)
    for _, passage, start, end, _ in found:
        words[passage] |= set(range(start, end))
    assert [(0, p, min(words[p]), max(words[p]) + 1) for p in sorted(words)] == expected
    assert all(len(words[p]) == 30 for p in words)


def test_a_text_of_common_n_grams_is_found_where_blocks_meet() -> None:
    parts = [long_text(s, 4) for s in range(50)]
    texts = [parts[i] + parts[j] + parts[k] for i in range(8) for j in range(8) for k in range(8)]  # every n-gram occurs in 8 items or more
    finder = make_finder(texts, make_config(common=7), block=64)
    for before in range(40, 80):
        assert find(finder, [long_text(99, before) + texts[300] + long_text(98, 50)]) == [(0, 300, before, before + 12, 12)]
