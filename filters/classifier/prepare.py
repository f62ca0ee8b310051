"""Prepares the examples for a training: removes copies, splits them into parts, and selects those of each label."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from corpusmill.filters.classifier.examples import ExampleTable, answer_counts, gather_examples
from corpusmill.filters.classifier.forms import write_form
from corpusmill.filters.classifier.score import hash_lines
from corpusmill.filters.classifier.spec import TrainingSpec
from corpusmill.pipeline.errors import InputError

# ---- Equal examples become one. Near copies form clusters, which a split does not divide.

Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Distinct:
    """Examples, no two with the same line.

    `lines`: large_string, as fastText reads them. `hashes`: uint64, of the lines. `cluster`: a number that near copies, and pieces of one
    document, share. `copies`: how many examples were copies of another one. `conflicts`: by label, how many lines lost their answer because
    their copies contradict each other. `unanswered`: how many lines were left out without any answer. `blank`: how many examples were left
    out because nothing remains of them in the form.
    """

    table: pa.Table
    lines: pa.Array
    hashes: npt.NDArray[np.uint64]
    cluster: Integers
    copies: int
    conflicts: dict[str, int]
    unanswered: int
    blank: int


def distinct(table: pa.Table, lines: pa.Array, labels: Sequence[str]) -> Distinct:
    """Keeps one example for each different line: the first in the order of the table, with all answers that any of its copies has."""
    filled = pc.not_equal(lines, "")
    examples, lines = table.filter(filled), lines.filter(filled)
    group = np.asarray(lines.dictionary_encode().indices, np.int64)  # equal lines have the same number, in the order of the first ones
    first = np.unique(group, return_index=True)[1]
    merged = {label: _merged(examples[label], group, len(first)) for label in labels}
    answered = np.any([answers.is_valid().to_numpy(zero_copy_only=False) for answers, _ in merged.values()], axis=0)
    kept, lines = examples.take(first[answered]), lines.take(first[answered])
    for label, (answers, _) in merged.items():
        kept = kept.set_column(kept.schema.get_field_index(label), label, answers.filter(pa.array(answered)))
    return Distinct(
        kept,
        lines,
        hash_lines(lines),
        _joined(near_clusters(lines), kept["document"].to_numpy()),
        copies=len(examples) - len(first),
        conflicts={label: count for label, (_, count) in merged.items()},
        unanswered=int((~answered).sum()),
        blank=len(table) - len(examples),
    )


def _merged(column: pa.ChunkedArray, group: Integers, groups: int) -> tuple[pa.Array, int]:
    """Returns `(answers, conflicts)`: each group's answer, null if none or both are known, and the number of groups with both."""
    known = column.is_valid().to_numpy()
    values = column.fill_null(0).to_numpy()
    yes = np.bincount(group[known & (values == 1)], minlength=groups) > 0
    no = np.bincount(group[known & (values == 0)], minlength=groups) > 0
    return pa.array(yes.astype(np.int8), mask=yes == no), int((yes & no).sum())


# ---- Clusters of near copies: all pairs with the wanted similarity are found, so that the test part has no copy of a training example
#
# The stage dedup uses MinHash-LSH, which misses some pairs. Here sets of shingles are joined by prefix filtering (Chaudhuri, Ganti and
# Kaushik 2006; Bayardo, Ma and Srikant 2007), with longer prefixes that must share more shingles (Wang, Li and Feng 2012). If two sets have
# at least `least` shingles in common, the l rarest common ones are among the size - least + l rarest shingles of either set.

#: Shingles of short texts have this many characters, so that texts with a changed word stay similar. Long texts share so many of these by
#: chance that nearly all pairs would be compared; their shingles are this many neighbouring words.
CHARACTERS, WORDS = 5, 2
#: The fewest characters of a long text.
LONG = 400
#: A prefix is longer by size // LONGER shingles, and two prefixes must share as many shingles in addition to one.
LONGER = 16
#: Number of texts that are compared with all others at once, and of pairs whose similarity is computed at once.
ROWS, PAIRS = 256, 1 << 14
_WORD = re.compile(r"\w+")


def near_clusters(text: pa.Array | pa.ChunkedArray, threshold: float = 0.7) -> Integers:
    """Returns each text's cluster (n): the lowest position of a text in it.

    Two texts are in one cluster if a chain of similar pairs joins them. A pair is similar if the sets of shingles have a Jaccard similarity
    of at least `threshold`. Shingles are 5 characters, lower-cased, without what stands between words; in texts of 400 characters or more,
    pairs of neighbouring words. A text with fewer characters than a shingle is alone. Time grows with the number of texts that share rare
    shingles, with its square at worst.
    """
    texts = text.to_pylist()
    length = np.array([len(each) for each in texts], np.int64)
    codes: dict[str, int] = {}
    links = [np.zeros((2, 0), np.int64)]
    # Similar texts have similar lengths. So the short texts include those beyond the border that may be similar to a shorter text.
    for unit, rows in ((CHARACTERS, np.flatnonzero(length < LONG / threshold)), (WORDS, np.flatnonzero(length >= LONG))):
        if len(rows):
            links += [rows[pair] for pair in _similar_pairs([shingles(texts[row], unit, codes) for row in rows.tolist()], threshold)]
    number = _components(len(texts), np.concatenate(links, axis=1))
    return np.unique(number, return_index=True)[1][number]


def shingles(text: str, unit: int, codes: dict[str, int]) -> Hashes:
    """Returns the set of a text's shingles as 64-bit hashes, ascending. `unit`: CHARACTERS or WORDS. `codes`: a number for each word."""
    words = _WORD.findall(text.lower())
    if unit == CHARACTERS:
        units = np.frombuffer(" ".join(words).encode("utf-32-le"), np.uint32).astype(np.uint64)
    else:
        units = np.array([codes.setdefault(word, len(codes)) for word in words], np.uint64)
    count = max(len(units) - unit + 1, 0)
    found = np.zeros(count, np.uint64)
    for position in range(unit):
        found = (found ^ (found >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) + units[position : position + count]
    return np.unique(scrambled(found))


def _similar_pairs(sets: Sequence[Hashes], threshold: float) -> Iterator[Integers]:
    """Yields the pairs of sets (2, any) with at least that similarity, in batches."""
    from scipy.sparse import csr_array

    size = np.array([len(each) for each in sets], np.int64)
    owner = np.repeat(np.arange(len(sets)), size)
    _, shingle, times = np.unique(np.concatenate(sets), return_inverse=True, return_counts=True)
    needed = 1 + size // LONGER  # shared shingles of a prefix; similar sets have as many in common if the threshold is at least 1 / 16
    prefix = np.minimum(size, size - np.ceil(threshold * size - 1e-9).astype(np.int64) + needed)
    order = np.lexsort((shingle, times[shingle], owner))
    rare = order[(np.arange(len(order)) - np.repeat(np.cumsum(size) - size, size) < prefix[owner]) & (times[shingle[order]] > 1)]
    shape = len(sets), len(times)
    whole = csr_array((np.ones(len(owner), np.int32), (owner, shingle)), shape)
    rarest = csr_array((np.ones(len(rare), np.int32), (owner[rare], shingle[rare])), shape)
    others = rarest.T.tocsr()
    for start in range(0, len(sets), ROWS):
        shared = (rarest[start : start + ROWS] @ others).tocoo()
        larger, smaller = shared.row.astype(np.int64) + start, shared.col.astype(np.int64)
        first = (size[smaller] < size[larger]) | ((size[smaller] == size[larger]) & (smaller < larger))
        able = first & (size[smaller] >= threshold * size[larger] - 1e-9) & (shared.data >= needed[smaller])
        larger, smaller = larger[able], smaller[able]
        for begin in range(0, len(larger), PAIRS):
            a, b = larger[begin : begin + PAIRS], smaller[begin : begin + PAIRS]
            common = whole[a].multiply(whole[b]).sum(axis=1)
            similar = common >= np.ceil(threshold / (1 + threshold) * (size[a] + size[b]) - 1e-9)
            yield np.stack([a[similar], b[similar]])


def _components(count: int, links: Integers) -> Integers:
    """Returns the number (count,) of each position's connected component. `links` (2, any): pairs of positions."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(links.shape[1], np.int8), (links[0], links[1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64) if count else np.zeros(0, np.int64)


def _joined(near: Integers, document: Integers) -> Integers:
    """Returns clusters that keep near copies, and pieces of one document, together."""
    links = []
    for numbers in (near, document):
        _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
        links.append(np.stack([np.arange(len(numbers)), first[inverse]]))  # each with the first of the same number
    return _components(len(near), np.concatenate(links, axis=1))


# ---- Train, validation and test, by a hash of content, with no near copy of an example in another part

PARTS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)


def part_of(hashes: Hashes, cluster: Integers, validation: float, test: float, seed: int) -> npt.NDArray[np.int8]:
    """Returns the part (TRAIN, VALIDATION, TEST) of each of n examples, by the smallest content hash in its cluster.

    So the part depends neither on the order of the examples nor on examples outside the cluster. `validation`, `test`: their shares.
    """
    if not len(hashes):
        return np.zeros(0, np.int8)
    number = np.unique(cluster, return_inverse=True)[1]
    least = np.full(int(number.max()) + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(least, number, hashes)
    position = mixed(least, seed).astype(np.float64) / 2.0**64
    return np.searchsorted([1 - validation - test, 1 - test], position, side="right").astype(np.int8)[number]


def mixed(hashes: Hashes, seed: int, salt: str = "split") -> Hashes:
    """Returns another hash of each hash, independent for each seed and purpose (`salt`)."""
    return scrambled(hashes ^ np.uint64(xxhash.xxh3_64_intdigest(f"{salt}:{seed}")))


def scrambled(value: Hashes) -> Hashes:
    """Returns the finaliser of SplitMix64: each bit of a result depends on all bits of the value."""
    for factor, shift in ((0xBF58476D1CE4E5B9, 30), (0x94D049BB133111EB, 27)):
        value = (value ^ (value >> np.uint64(shift))) * np.uint64(factor)
    return value ^ (value >> np.uint64(31))


def training_order(hashes: Hashes, answer: Bools, repeat: npt.NDArray[np.float64], ratio: float, seed: int) -> Integers:
    """Returns which of n examples to train on, in order; some occur more than once.

    `repeat`: how often each example occurs by its source's weight. The rarer answer is repeated until the other occurs at most `ratio`
    times as often. Hashes under the seed decide about fractions and give the order.
    """
    times = repeat.astype(np.float64).copy()
    weight = [float(times[answer == value].sum()) for value in (False, True)]
    excess = max(weight) / min(weight) / ratio if min(weight) > 0 else 1.0
    if excess > 1:
        times[answer == (weight[1] < weight[0])] *= excess
    draw = mixed(hashes, seed, "repeat").astype(np.float64) / 2.0**64
    copies = np.floor(times).astype(np.int64) + (draw < times - np.floor(times))
    chosen = np.repeat(np.arange(len(hashes)), copies)
    nth = np.arange(len(chosen)) - np.repeat(np.cumsum(copies) - copies, copies)
    with np.errstate(over="ignore"):
        keys = mixed(hashes[chosen] + nth.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15), seed, "order")
    return chosen[np.argsort(keys, kind="stable")]


# ---- Read, write in the form, remove copies, split

#: The fewest examples of each answer in each part: with fewer, measures mean nothing.
FEWEST = 5


@dataclass(frozen=True)
class TrainingData:
    """The prepared examples of a training. `part`: int8, of each distinct example."""

    spec: TrainingSpec
    examples: ExampleTable
    distinct: Distinct
    part: npt.NDArray[np.int8]

    def yes(self, label: str) -> Bools:
        """Whether the answer of each example is yes."""
        return np.asarray(pc.fill_null(pc.equal(self.distinct.table[label], 1), False).to_numpy())

    def rows(self, label: str, part: int) -> Integers:
        """Returns the examples of a part whose answer is known."""
        return np.flatnonzero(self.distinct.table[label].is_valid().to_numpy() & (self.part == part))

    def order(self, label: str) -> Integers:
        """Returns the examples on which a label's model is trained, in order."""
        rows, names = self.rows(label, TRAIN), pa.array([source.name for source in self.spec.sources])
        source = pc.index_in(self.distinct.table["source"], names).to_numpy()[rows]
        repeat = np.array([source.repeat for source in self.spec.sources])[source]
        return rows[training_order(self.distinct.hashes[rows], self.yes(label)[rows], repeat, self.spec.ratio, self.spec.seed)]

    def counts(self, label: str) -> dict[str, dict[str, int]]:
        """Returns the numbers of yes and no by part."""
        yes = self.yes(label)
        found = {}
        for part, name in enumerate(PARTS):
            rows = self.rows(label, part)
            found[name] = {"yes": int(yes[rows].sum()), "no": int((~yes[rows]).sum())}
        return found


def prepare(spec: TrainingSpec) -> TrainingData:
    """Reads the examples, writes them in the form, removes copies, splits the rest. Raises InputError if too few are left for a label."""
    examples = gather_examples(spec.sources, spec.labels, spec.seed)
    for label in spec.labels:
        if not all((counts := answer_counts(examples.table[label])).values()):
            raise InputError(f"label {label}: {counts['yes']:,} examples say yes and {counts['no']:,} say no; a classifier needs both.")
    found = distinct(examples.table, write_form(spec.form, examples.table["text"]), spec.labels)
    prepared = TrainingData(spec, examples, found, part_of(found.hashes, found.cluster, spec.validation, spec.test, spec.seed))
    for label in spec.labels:
        parts = prepared.counts(label)
        for part, answer in product(PARTS, ("yes", "no")):
            if (count := parts[part][answer]) < FEWEST:
                total = sum(each[answer] for each in parts.values())
                raise InputError(
                    f"label {label}: of {total:,} different examples with the answer {answer} only {count} are in the part {part}, "
                    f"which needs {FEWEST}; give more examples."
                )
    return prepared
