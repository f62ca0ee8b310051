"""Train, validation and test: by a hash of content, with no near copy of an example in another part; and the training's own choice."""

import numpy as np
import numpy.typing as npt
import xxhash

from corpusmill.filters.classifier.spec import SplitShares

PARTS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)
Index = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


def part_of(hashes: Hashes, cluster: Index, shares: SplitShares, seed: int) -> npt.NDArray[np.int8]:
    """The part (TRAIN, VALIDATION, TEST) of each of n examples: a cluster's is decided by the smallest content hash in it, so the order of
    the examples plays no part, and what is not in the cluster neither."""
    if not len(hashes):
        return np.zeros(0, np.int8)
    number = np.unique(cluster, return_inverse=True)[1]
    least = np.full(int(number.max()) + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(least, number, hashes)
    place = mixed(least, seed).astype(np.float64) / 2.0**64
    return np.searchsorted([shares.train, shares.train + shares.validation], place, side="right").astype(np.int8)[number]


def mixed(hashes: Hashes, seed: int, salt: str = "split") -> Hashes:
    """Another hash of each hash: of one seed and purpose, independent of all others."""
    base = xxhash.xxh3_64_intdigest(f"{salt}:{seed}")
    with np.errstate(over="ignore"):
        value = hashes ^ np.uint64(base)
        for factor in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB):  # the finaliser of SplitMix64
            value = (value ^ (value >> np.uint64(30 if factor == 0xBF58476D1CE4E5B9 else 27))) * np.uint64(factor)
    return value ^ (value >> np.uint64(31))


def training_order(
    hashes: Hashes, answer: npt.NDArray[np.bool_], repeat: npt.NDArray[np.float64], balance: str, ratio: float, seed: int
) -> Index:
    """Which of n examples are trained on, in which order, some more than once.

    `repeat`: how often each is taken by its source's weight. `balance`: where one answer comes more than `ratio` times as often as the
    other, `repeat` takes the rarer one's more often, `sample` fewer of the other's, `none` leaves them. Fractions are drawn, and the order
    is made, by hashes under the seed.
    """
    times = repeat.astype(np.float64).copy()
    weight = [float(times[answer == value].sum()) for value in (False, True)]
    rarer = weight[1] < weight[0]
    excess = max(weight) / min(weight) / ratio if min(weight) > 0 else 1.0
    if balance == "repeat" and excess > 1:
        times[answer == rarer] *= excess
    elif balance == "sample" and excess > 1:
        times[answer != rarer] /= excess
    draw = mixed(hashes, seed, "repeat").astype(np.float64) / 2.0**64
    copies = np.floor(times).astype(np.int64) + (draw < times - np.floor(times))
    chosen = np.repeat(np.arange(len(hashes)), copies)
    nth = np.arange(len(chosen)) - np.repeat(np.cumsum(copies) - copies, copies)
    with np.errstate(over="ignore"):
        keys = mixed(hashes[chosen] + nth.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15), seed, "order")
    return chosen[np.argsort(keys, kind="stable")]
