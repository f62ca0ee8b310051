"""From LSH buckets to verified leaders, one batch of connected components after the other."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corpusmill.dedup.config import DedupConfig
from corpusmill.dedup.corpus import Corpus
from corpusmill.dedup.leaders import components, lead
from corpusmill.dedup.shingles import Shingler
from corpusmill.dedup.signatures import fixed_binary
from corpusmill.pipeline.text.buffers import text_buffers

Index = npt.NDArray[np.int64]

#: 64-bit words of signatures and shingles that are in memory at once; only one component can be larger.
BATCH_WORDS = 64_000_000
#: Standard errors of the estimate below the threshold at which a signature alone decides against a pair.
MARGIN = 3.0


@dataclass(frozen=True)
class Nodes:
    """The n documents that are in some bucket: of exact copies one stands for all. Everything below counts by node."""

    documents: Index  # index over the input, ascending
    rank: Index  # of the best of its exact copies, in the policy's order
    words: Index


@dataclass(frozen=True)
class Leaders:
    """For each node the node of its cluster's kept document, the verified similarity, and how often `bucket_limit` was met."""

    leader: Index
    similarity: npt.NDArray[np.float64]
    limited: int


def least_equal(threshold: float, places: int) -> int:
    """In how many places two signatures must agree before their texts are compared."""
    error = math.sqrt(threshold * (1 - threshold) / places)
    return max(0, math.ceil((threshold - MARGIN * error) * places))


def batches(component: Index, weight: Index, limit: int) -> Iterator[Index]:
    """The nodes (ascending) of as many whole components as weigh at most `limit` together, at least one."""
    order = np.argsort(component, kind="stable")
    begins = np.flatnonzero(np.r_[True, component[order[1:]] != component[order[:-1]]]) if len(order) else order
    ends = np.r_[begins[1:], len(order)]
    weights = np.add.reduceat(weight[order], begins) if len(order) else weight
    first, total = 0, 0
    for i in range(len(begins)):
        if total and total + weights[i] > limit:
            yield np.sort(order[begins[first] : begins[i]])
            first, total = i, 0
        total += int(weights[i])
    if len(begins):
        yield np.sort(order[begins[first] : ends[-1]])


def find_leaders(corpus: Corpus, config: DedupConfig, places: int, nodes: Nodes, bucket: Index, node: Index) -> Leaders:
    """`bucket` (ascending) and `node` say which node is in which bucket; `places` is the length of a signature."""
    count = len(nodes.documents)
    result = Leaders(np.arange(count), np.ones(count), 0)
    component = components(count, bucket, node)
    limited = 0
    for chosen in batches(component, nodes.words + places * config.minhash.bits // 64, BATCH_WORDS):
        local = np.full(count, -1)
        local[chosen] = np.arange(len(chosen))
        here = np.flatnonzero(local[node] >= 0)
        leader, similarity, met = _lead_batch(corpus, config, places, nodes, chosen, bucket[here], local[node[here]])
        result.leader[chosen] = chosen[leader]
        result.similarity[chosen] = similarity
        limited += int(met)
    return Leaders(result.leader, result.similarity, limited)


def _lead_batch(
    corpus: Corpus, config: DedupConfig, places: int, nodes: Nodes, chosen: Index, bucket: Index, node: Index
) -> tuple[Index, npt.NDArray[np.float64], int]:
    documents = nodes.documents[chosen]
    table = corpus.read_signatures(documents, ["signature"])
    signatures = fixed_binary(table["signature"], np.dtype(f"u{config.minhash.bits // 8}"))
    hashes, bounds, enough = np.zeros(0, np.uint64), np.zeros(0, np.int64), 0
    if config.verification == "exact":
        hashes, bounds = _sets(corpus, documents, config)
        enough = least_equal(config.threshold, places)
    names, bucket = np.unique(bucket, return_inverse=True)
    by_node = np.lexsort((bucket, node))
    first_bucket = np.searchsorted(node[by_node], np.arange(len(chosen) + 1))
    found: tuple[Index, npt.NDArray[np.float64], int] = lead(
        np.argsort(nodes.rank[chosen]), bucket[by_node], first_bucket, len(names), config.bucket_limit,
        signatures, hashes, bounds, enough, config.threshold,
    )  # fmt: skip
    return found


def _sets(corpus: Corpus, documents: Index, config: DedupConfig) -> tuple[npt.NDArray[np.uint64], Index]:
    """The shingle sets of documents, as `Shingler.sets` lays them out."""
    shingler = Shingler(config.minhash)
    shingler.setup()
    hashes, sizes = [np.zeros(0, np.uint64)], [np.zeros(1, np.int64)]
    for table in corpus.read_texts(documents):
        found, bounds = shingler.sets(*text_buffers(table["text"]))
        hashes.append(found)
        sizes.append(np.diff(bounds))
    return np.concatenate(hashes), np.cumsum(np.concatenate(sizes))
