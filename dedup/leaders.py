# mypy: disallow-untyped-defs=False
"""Clusters in which every member is similar to the kept document, not only to a neighbour.

Documents are taken in the policy's order. Each goes to the best-ranked cluster whose kept document it is similar to;
else it is kept and begins a cluster. Compared are the clusters that have a member in one of the document's LSH buckets.
Chains end here: if b is like a, and c like b but not like a, then c stays.
"""

import numba
import numpy as np

from corpusmill.dedup.jaccard import jaccard
from corpusmill.dedup.minhash import equal_places


@numba.njit(cache=True, nogil=True)
def _root(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@numba.njit(cache=True, nogil=True)
def components(count, bucket, document):
    """The lowest member of each document's connected component: int64 of length `count`.

    `bucket` ascends; every document of a bucket is joined to its first: a star, not all pairs.
    """
    parent = np.arange(count)
    for i in range(1, len(bucket)):
        if bucket[i] == bucket[i - 1]:
            a, b = _root(parent, document[i - 1]), _root(parent, document[i])
            if a < b:
                parent[b] = a
            else:
                parent[a] = b
    for i in range(count):
        parent[i] = _root(parent, i)
    return parent


@numba.njit(cache=True, nogil=True, error_model="numpy")
def similarity(a, b, signatures, hashes, bounds, least_equal, threshold):
    """The verified similarity of two documents, or -1 where they are not similar.

    Signatures that agree in fewer than `least_equal` places decide against; else the shingle sets decide, or the
    signatures alone where there are no sets (`bounds` is empty).
    """
    equal = equal_places(signatures[a], signatures[b])
    if equal < least_equal:
        return -1.0
    if len(bounds) == 0:
        value = equal / signatures.shape[1]
    else:
        value = jaccard(hashes[bounds[a] : bounds[a + 1]], hashes[bounds[b] : bounds[b + 1]])
    return value if value >= threshold else -1.0


@numba.njit(cache=True, nogil=True, error_model="numpy")
def lead(order, buckets_of, first_bucket, bucket_count, bucket_limit, signatures, hashes, bounds, least_equal, threshold):
    """`(leader, similarity, limited)`: for each document the kept document of its cluster (itself where it is kept), how similar
    the two are (1 for itself), and how often a bucket held more than `bucket_limit` clusters and the rest was not compared.

    `order` lists the documents, the best first; the buckets of document d are `buckets_of[first_bucket[d]:first_bucket[d + 1]]`.
    """
    count = len(order)
    leader, value = np.arange(count), np.ones(count)
    head, tail = np.full(bucket_count, -1), np.full(bucket_count, -1)
    entry_next, entry_cluster = np.empty(len(buckets_of), np.int64), np.empty(len(buckets_of), np.int64)
    entries = clusters = limited = 0
    cluster_leader = np.empty(count, np.int64)
    cluster_seen = np.full(count, -1)  # the last document that was compared with a cluster
    for place in range(count):
        document = order[place]
        best, best_value = clusters, 1.0
        for b in range(first_bucket[document], first_bucket[document + 1]):
            entry, compared = head[buckets_of[b]], 0
            while entry >= 0 and compared < bucket_limit:
                cluster = entry_cluster[entry]
                if cluster < best and cluster_seen[cluster] != document:
                    cluster_seen[cluster] = document
                    found = similarity(document, cluster_leader[cluster], signatures, hashes, bounds, least_equal, threshold)
                    if found >= 0:
                        best, best_value = cluster, found
                entry = entry_next[entry]
                compared += 1
            limited += entry >= 0
        if best == clusters:
            cluster_leader[clusters] = document
            clusters += 1
        leader[document], value[document] = cluster_leader[best], best_value
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
    return leader, value, limited


@numba.njit(cache=True, nogil=True)
def _holds(entry, entry_next, entry_cluster, cluster, limit):
    """Whether one of a bucket's first `limit` entries is `cluster`."""
    while entry >= 0 and limit > 0:
        if entry_cluster[entry] == cluster:
            return True
        entry = entry_next[entry]
        limit -= 1
    return False
