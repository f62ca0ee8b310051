"""How much a variant's documents hang together, by their words alone.

A proxy hardly uses the text before, so its bits do not show that a document was put together from others, or is out of order. Its words do:
of a whole text, a window of words has more in common with the next one than with a window of another document, or with one further away
in its own (Hearst, "TextTiling", 1997). Windows are compared by the cosine of their words, weighted by tf-idf.
"""

import heapq
from collections.abc import Sequence
from itertools import islice
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import regex
import xxhash

from corpusmill.ablate.corpora import Variant, texts_of
from corpusmill.ablate.statistics import POWER, PairedDifference

#: Words in a window, the windows of a document's beginning that are compared, and how far the one further away is, at least.
WORDS, MOST_WINDOWS, FAR = 50, 10, 3
#: Documents of a variant that are looked at, at most, and at least: of fewer, nothing is said.
MOST_DOCUMENTS, FEWEST_DOCUMENTS = 2000, 20
COHESION_FILE = "cohesion.parquet"
#: A row a variant and document that is long enough. `topic`, `order`: of its windows, the share that have more in common with a window of
#: another document, or with one further away, than with the next one.
COHESION = pa.schema([("variant", pa.string()), ("document", pa.uint64()), ("topic", pa.float64()), ("order", pa.float64())])


def cohesion(variants: Sequence[Variant]) -> pa.Table:
    """Returns COHESION of the variants' documents with the smallest hashes. A document is measured once for all variants that have it."""
    chosen = {variant.name: _documents(variant) for variant in variants}
    windows = {key: found for of in chosen.values() for key, found in of.items()}
    keys = sorted(windows)
    if len(keys) < FEWEST_DOCUMENTS:
        return COHESION.empty_table()
    topic, order = _wrong_shares(keys, [windows[key] for key in keys])
    place = {key: number for number, key in enumerate(keys)}
    rows = [(name, key, topic[place[key]], order[place[key]]) for name, of in chosen.items() for key in sorted(of)]
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema=COHESION)


def _documents(variant: Variant) -> dict[int, list[list[str]]]:
    """Returns the windows of the documents of a variant by the hash of their text."""
    found: dict[int, list[list[str]]] = {}
    largest: list[int] = []  # a heap of the hashes, negative: the largest first
    for text in texts_of(variant):
        key = xxhash.xxh64_intdigest(text.encode("utf-8", "replace"), seed=3)
        if key in found or (len(found) == MOST_DOCUMENTS and key > -largest[0]):
            continue
        words = [match[0] for match in islice(regex.finditer(r"\w+", text.lower()), WORDS * MOST_WINDOWS)]
        windows = [words[begin : begin + WORDS] for begin in range(0, len(words) - WORDS + 1, WORDS)]
        if len(windows) > FAR:
            found[key] = windows
            heapq.heappush(largest, -key)
            if len(found) > MOST_DOCUMENTS:
                del found[-heapq.heappop(largest)]
    return found


def _wrong_shares(keys: Sequence[int], documents: Sequence[list[list[str]]]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Returns `topic` and `order` (COHESION) of documents in windows, in the order of their hashes."""
    from scipy.sparse import csr_array

    every = [window for document in documents for window in document]
    vocabulary: dict[str, int] = {}
    words = [vocabulary.setdefault(word, len(vocabulary)) for window in every for word in window]
    rows = np.repeat(np.arange(len(every)), WORDS)
    weights = csr_array((np.ones(len(words)), (rows, words)), shape=(len(every), len(vocabulary)))
    idf = np.log(len(every) / np.bincount(weights.indices))
    weights.data = (1 + np.log(weights.data)) * idf[weights.indices]
    norms = np.sqrt(np.maximum(weights.multiply(weights).sum(axis=1), 1e-12))

    sizes = np.array([len(document) for document in documents])
    first = np.cumsum(sizes) - sizes
    here, others, far = [], [], []
    for number, (key, size) in enumerate(zip(keys, sizes.tolist(), strict=True)):
        other = (number + 1) % len(keys)
        for window in range(size - 1):
            away = [place for place in range(size) if abs(place - window) >= FAR]
            here.append(first[number] + window)
            others.append(first[other] + key % int(sizes[other]))
            far.append(first[number] + away[key % len(away)] if away else -1)
    of = np.repeat(np.arange(len(keys)), sizes - 1)

    def common(places: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        found: npt.NDArray[np.float64] = weights[np.array(here)].multiply(weights[places]).sum(axis=1) / norms[places]
        return found

    to_next = common(np.array(here) + 1)
    wrong = to_next <= common(np.array(others)), np.where(np.array(far) < 0, np.nan, to_next <= common(np.array(far)))
    shares = []
    for each in wrong:
        known = ~np.isnan(each)
        total = np.bincount(of[known], minlength=len(keys))
        shares.append(np.bincount(of[known], each[known], len(keys)) / total)
    return shares[0], shares[1]


def cohesion_difference(table: pa.Table, judge: str, name: str, first: str, error_rate: float) -> PairedDifference | None:
    """Compares `topic` or `order` of a variant with that of the first one: above 0, its documents hang together less. None where a variant
    has too few documents. Documents that both have tell nothing, so the interval comes from the others."""
    of = {}
    for variant in (name, first):
        rows = table.filter(pc.equal(table["variant"], variant))
        if len(rows) < FEWEST_DOCUMENTS:
            return None
        of[variant] = dict(zip(rows["document"].to_pylist(), rows[judge].to_pylist(), strict=True))
    union = {**of[first], **of[name]}
    shares = np.array([(key in of[name]) / len(of[name]) - (key in of[first]) / len(of[first]) for key in union])
    values = np.fromiter(union.values(), np.float64)
    mean, error = float((shares * values).sum()), float(np.sqrt((shares**2 * (values - values.mean()) ** 2).sum()))
    quantile = NormalDist().inv_cdf(1 - error_rate / 2)
    can_show = (quantile + NormalDist().inv_cdf(POWER)) * error
    return PairedDifference(mean, mean - quantile * error, mean + quantile * error, error, (), 0.0, error, can_show)
