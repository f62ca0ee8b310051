# mypy: disallow-untyped-defs=False
"""Clusters in which every member is similar to the document that stays, not only to a neighbour.

Documents are taken in the policy's order. Each goes to the best-ranked cluster whose representative it is similar to;
else it stays and represents a cluster of its own. Compared are the clusters that have a member in one of the document's LSH buckets.
Chains end here: if b is like a, and c like b but not like a, then c stays.
"""

from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.dedup.candidates import buckets
from corpusmill.dedup.config import ClusterConfig
from corpusmill.dedup.minhash import band_keys, equal_places
from corpusmill.dedup.shingles import Shingler
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.buffers import text_buffers

Index = npt.NDArray[np.int64]


@kernel(error_model="numpy")
def shared(a, b):
    """|a & b| of two ascending arrays without repeats."""
    i = j = common = 0
    while i < len(a) and j < len(b):  # which array is behind can't be predicted, so there is no branch on it
        x, y = a[i], b[j]
        common += int(x == y)
        i += int(x <= y)
        j += int(y <= x)
    return common


#: How two of n documents are compared. `signatures`: n x places. `hashes`, `bounds` (n x 2): the shingle set of document d is
#: `hashes[bounds[d, 0]:bounds[d, 1]]` where `made[d]`. Where both are `comparable` their sets decide; as long as one is not made, both
#: are `wanted` and the signatures stand in. `least_equal`: signatures that agree in fewer places decide against.
#: `containment`: whether the share of the first one's shingles counts, not Jaccard's.
Evidence = namedtuple("Evidence", "signatures hashes bounds comparable made wanted least_equal threshold containment")


@kernel(error_model="numpy")
def similarity(a, b, evidence):
    """The verified similarity of document a to document b, or -1 where they are not similar."""
    equal = equal_places(evidence.signatures[a], evidence.signatures[b])
    if equal < evidence.least_equal:
        return -1.0
    if not (evidence.comparable[a] and evidence.comparable[b]):
        value = equal / evidence.signatures.shape[1]
    elif not (evidence.made[a] and evidence.made[b]):
        evidence.wanted[a] |= not evidence.made[a]
        evidence.wanted[b] |= not evidence.made[b]
        value = equal / evidence.signatures.shape[1]
    else:
        bounds = evidence.bounds
        first, second = evidence.hashes[bounds[a, 0] : bounds[a, 1]], evidence.hashes[bounds[b, 0] : bounds[b, 1]]
        common = shared(first, second)
        value = common / (len(first) if evidence.containment else len(first) + len(second) - common)
    return value if value >= evidence.threshold else -1.0


@kernel(error_model="numpy")
def choose_representatives(order, buckets_of, first_bucket, bucket_count, bucket_limit, cluster_limit, forced, evidence):
    """`(representative, similarity, full, limited)`: for each document the kept document of its cluster (itself where it is kept), how
    similar the two are (1 for itself), whether it stays only because `cluster_limit` others have left for that one, and how often a bucket
    held more than `bucket_limit` clusters and the rest was not compared.

    `order` lists the documents, the best first, of which the first `forced` are kept whatever they are like; the buckets of document d
    are `buckets_of[first_bucket[d]:first_bucket[d + 1]]`.
    """
    count = len(first_bucket) - 1
    representative, value, full = np.arange(count), np.ones(count), np.zeros(count, np.bool_)
    head, tail = np.full(bucket_count, -1), np.full(bucket_count, -1)
    entry_next, entry_cluster = np.empty(len(buckets_of), np.int64), np.empty(len(buckets_of), np.int64)
    entries = clusters = limited = 0
    cluster_representative, cluster_members = np.empty(count, np.int64), np.zeros(count, np.int64)
    cluster_seen = np.full(count, -1)  # the last document that was compared with a cluster
    for place in range(len(order)):
        document = order[place]
        best, best_value = clusters, 1.0
        for b in range(first_bucket[document], first_bucket[document + 1]):
            entry, compared = head[buckets_of[b]] if place >= forced else -1, 0
            while entry >= 0 and compared < bucket_limit:
                cluster = entry_cluster[entry]
                if cluster < best and cluster_seen[cluster] != document:
                    cluster_seen[cluster] = document
                    found = similarity(document, cluster_representative[cluster], evidence)
                    if found >= 0:
                        best, best_value = cluster, found
                entry = entry_next[entry]
                compared += 1
            limited += entry >= 0
        if best == clusters:
            cluster_representative[clusters] = document
            clusters += 1
        representative[document], value[document] = cluster_representative[best], best_value
        full[document] = cluster_members[best] > cluster_limit
        cluster_members[best] += not full[document]
        for b in range(first_bucket[document], first_bucket[document + 1]):
            bucket = buckets_of[b]
            if not _holds(head[bucket], entry_next, entry_cluster, best, bucket_limit):
                entry_cluster[entries], entry_next[entries] = best, -1
                if tail[bucket] < 0:
                    head[bucket] = entries
                else:
                    entry_next[tail[bucket]] = entries
                tail[bucket] = entries
                entries += 1
    return representative, value, full, limited


@kernel
def _holds(entry, entry_next, entry_cluster, cluster, limit):
    """Whether one of a bucket's first `limit` entries is `cluster`."""
    while entry >= 0 and limit > 0:
        if entry_cluster[entry] == cluster:
            return True
        entry = entry_next[entry]
        limit -= 1
    return False


# ---- the choice for texts that are judged together ---------------------------------------------------


@dataclass(frozen=True)
class Representatives:
    """Of n texts: the one that represents each (itself where it stays), how similar the two are, whether that is by their shingles (or by
    signatures alone), whether the representative's cluster had no room, and how often `bucket_limit` was met."""

    representative: Index
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


def find_representatives(
    config: ClusterConfig, bands: int, rows: int, signatures: npt.NDArray, sets: ShingleSets, order: Index, forced: int, fewest: int
) -> Representatives:
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
        representative, similarity, full, limited = choose_representatives(
            order, bucket[by_member], first, count, config.bucket_limit, config.max_cluster, forced, evidence
        )
        if not wanted.any():
            return Representatives(representative, similarity, comparable & comparable[representative], full, int(limited))
        sets.make(np.flatnonzero(wanted))
