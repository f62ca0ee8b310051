"""The near copies among texts that are judged together: buckets, the greedy choice of leaders, and shingle sets where they decide."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.dedup.candidates import buckets
from corpusmill.dedup.config import ClusterConfig
from corpusmill.dedup.leaders import Evidence, lead
from corpusmill.dedup.minhash import band_keys
from corpusmill.dedup.shingles import Shingler
from corpusmill.pipeline.text.buffers import text_buffers

Index = npt.NDArray[np.int64]

#: Standard errors of the estimate from the threshold on, at which signatures alone decide: against a pair, and for it. Of pairs right
#: below the threshold one in ten million is five errors above it.
BELOW, ABOVE = 3.0, 5.0


@dataclass(frozen=True)
class Leaders:
    """Of n texts: the one that leads each (itself where it stays), how similar the two are, whether that is by their shingles (or by
    signatures alone), whether the leader's cluster had no room, and how often `bucket_limit` was met."""

    leader: Index
    similarity: npt.NDArray[np.float64]
    exactly: npt.NDArray[np.bool_]
    full: npt.NDArray[np.bool_]
    limited: int


class ShingleSets:
    """The shingle sets of n texts, each made when it is asked for: text i is row `rows[i]` of `texts` (`large_string`), null where there
    is none."""

    def __init__(self, shingler: Shingler, texts: pa.ChunkedArray, rows: Index):
        self.shingler, self.texts, self.rows = shingler, texts, rows
        self.there = texts.is_valid().to_numpy()[rows]
        self.hashes = np.zeros(0, np.uint64)
        self.bounds = np.zeros((len(rows), 2), np.int64)
        self.made = np.zeros(len(rows), bool)

    def make(self, which: Index) -> None:
        hashes, bounds = self.shingler.sets(*text_buffers(self.texts.take(pa.array(self.rows[which]))))
        self.bounds[which, 0], self.bounds[which, 1] = bounds[:-1] + len(self.hashes), bounds[1:] + len(self.hashes)
        self.hashes = np.concatenate([self.hashes, hashes]) if len(self.hashes) else hashes
        self.made[which] = True


def least_equal(threshold: float, places: int) -> int:
    """In how many places two signatures must agree before their texts are compared."""
    return max(0, math.ceil((threshold - BELOW * standard_error(threshold, places)) * places))


def enough_equal(threshold: float, places: int) -> int:
    """In how many places two signatures must agree for their texts to be taken for similar without being compared; more than all
    where no signatures say so much."""
    return math.ceil((threshold + ABOVE * standard_error(threshold, places)) * places)


def standard_error(similarity: float, places: int) -> float:
    """Of the estimate that signatures of so many places give of a Jaccard similarity."""
    return math.sqrt(similarity * (1 - similarity) / places)


def find_leaders(
    config: ClusterConfig, bands: int, rows: int, signatures: npt.NDArray, sets: ShingleSets, order: Index, forced: int
) -> Leaders:
    """`order` lists the n texts, the best first; the first `forced` stay whatever they are like.

    Most pairs are decided by signatures far below the threshold, and their sets are never made: the choice is made again with the sets that
    it asked for until it asks for no more, and so is the one that all sets would give.
    """
    keys = band_keys(signatures, bands, rows).reshape(-1)
    node = np.tile(np.arange(len(order)), bands)
    bucket, member = buckets(keys, node.astype(np.uint64), node)
    by_member = np.lexsort((bucket, member))
    first = np.searchsorted(member[by_member], np.arange(len(order) + 1))
    count = int(bucket.max(initial=-1)) + 1
    comparable = sets.there & (config.verification != "estimate")
    places, containment = signatures.shape[1], config.similarity == "containment"
    fewest = 0 if containment else least_equal(config.threshold, places)
    enough = enough_equal(config.threshold, places) if config.verification == "doubtful" and not containment else places + 1
    while True:
        wanted = np.zeros(len(order), bool)
        evidence = Evidence(
            signatures, sets.hashes, sets.bounds, comparable, sets.made, wanted, fewest, enough, config.threshold, containment
        )
        leader, similarity, full, limited = lead(
            order, bucket[by_member], first, count, config.bucket_limit, config.max_cluster, forced, evidence
        )
        if not wanted.any():
            by_signatures = (signatures == signatures[leader]).sum(axis=1) >= enough
            return Leaders(leader, similarity, comparable & comparable[leader] & ~by_signatures, full, int(limited))
        sets.make(np.flatnonzero(wanted))
