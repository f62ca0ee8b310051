"""The near copies among texts that are judged together: buckets, the greedy choice of leaders, and shingle sets where they decide."""

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


def find_leaders(
    config: ClusterConfig, bands: int, rows: int, signatures: npt.NDArray, sets: ShingleSets, order: Index, forced: int, fewest: int
) -> Leaders:
    """`order` lists the n texts, the best first; the first `forced` stay whatever they are like. `fewest`: in how many places
    signatures must agree for the texts to be compared.

    Most pairs are decided by signatures far below the threshold, and their sets are never made: the choice is made again with the sets that
    it asked for until it asks for no more, and so is the one that all sets would give.
    """
    keys = band_keys(signatures, bands, rows).reshape(-1)
    node = np.tile(np.arange(len(order)), bands)
    bucket, member = buckets(keys, node.astype(np.uint64), node)
    by_member = np.lexsort((bucket, member))
    first = np.searchsorted(member[by_member], np.arange(len(order) + 1))
    count = int(bucket.max(initial=-1)) + 1
    comparable = sets.there & (config.verification == "exact")
    while True:
        wanted = np.zeros(len(order), bool)
        evidence = Evidence(
            signatures,
            sets.hashes,
            sets.bounds,
            comparable,
            sets.made,
            wanted,
            fewest,
            config.threshold,
            config.similarity == "containment",
        )
        leader, similarity, full, limited = lead(
            order, bucket[by_member], first, count, config.bucket_limit, config.max_cluster, forced, evidence
        )
        if not wanted.any():
            return Leaders(leader, similarity, comparable & comparable[leader], full, int(limited))
        sets.make(np.flatnonzero(wanted))
