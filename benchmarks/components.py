"""Measures memory and time of connected components by number of documents, next to scipy, which holds all links in memory.

    python benchmarks/components.py [--documents 16000000 64000000 256000000] [--peer-up-to 64000000]

Three of ten documents are in clusters of four, whose members are spread over all documents. A fifth of the clusters is linked to the next
cluster, so components have 4, 8, 12 and more members. Each cluster is a star that stands in 14 files, as if all bands had found it. Each
line of output is a process of its own. It shows the seconds until each document has the root of its component (for corpusmill also its
group), peak memory, and a sum over the roots of the documents in a star, which must be equal for both.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from corpusmill.dedup.candidates import connect, group_documents
from corpusmill.pipeline.engine import peak_memory_mb

Integers = npt.NDArray[np.int64]

SHARE, EACH, BANDS = 0.3, 4, 14
#: Clusters in one file.
FILE_CLUSTERS = 500_000
#: A prime: its multiples, modulo the number of documents, spread the members over all documents.
STRIDE = 982_451_653
#: Bytes that a document counts for: its signature and its shingles.
WORDS = 1_000
LINE = "{:>12,} documents {:6} {:7.1f} s to the roots, {}peak {:6,} MB; the roots add up to {:,}"


class Clusters:
    """The stars of each file, computed on request."""

    def __init__(self, documents: int):
        self.documents = documents
        self.clusters = int(documents * SHARE) // EACH
        self.files = -(-self.clusters // FILE_CLUSTERS)

    def __iter__(self) -> Iterator[tuple[Integers, Integers]]:
        return map(self._file, range(BANDS * self.files))

    def _file(self, number: int) -> tuple[Integers, Integers]:
        first = number % self.files * FILE_CLUSTERS
        cluster = np.arange(first, min(first + FILE_CLUSTERS, self.clusters))
        member = cluster[:, None] * EACH + np.arange(EACH)
        linked = ((cluster * 2_654_435_761 >> 7) % 5 == 0) & (cluster + 1 < self.clusters)
        more = np.where(linked, member[:, 0] + EACH, member[:, 0])
        document = np.sort(np.column_stack([member, more]) * STRIDE % self.documents, axis=1)
        return np.repeat(np.arange(len(cluster)), EACH + 1), document.reshape(-1)


def ours(documents: int) -> None:
    connect(2, [], [(np.zeros(2, np.int64), np.arange(2))])  # compiles the kernels, or loads them
    began = time.perf_counter()
    root, flags = connect(documents, [], Clusters(documents))
    seconds, roots = time.perf_counter() - began, int(root[flags > 0].sum())
    del root, flags
    began = time.perf_counter()
    groups = group_documents(np.full(documents, WORDS, np.uint32), [], Clusters(documents), documents)
    more = f"{time.perf_counter() - began:.1f} s to {groups.count:,} groups, "
    print(LINE.format(documents, "ours", seconds, more, peak_memory_mb(), roots), flush=True)


def links_of(star: Integers, document: Integers) -> npt.NDArray[np.int32]:
    """Links each document of a star to the one before it."""
    same = star[1:] == star[:-1]
    return np.column_stack([document[1:][same], document[:-1][same]]).astype(np.int32)


def scipys(documents: int) -> None:
    began = time.perf_counter()
    links = np.concatenate([links_of(*stars) for stars in Clusters(documents)])
    graph = coo_array((np.ones(len(links), np.bool_), (links[:, 0], links[:, 1])), (documents, documents))
    count, label = connected_components(graph, directed=False)
    first = np.full(count, documents)
    np.minimum.at(first, label, np.arange(documents))
    seconds = time.perf_counter() - began
    there = np.zeros(documents, np.bool_)
    there[links] = True
    print(LINE.format(documents, "scipy", seconds, "", peak_memory_mb(), int(first[label[there]].sum())), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, nargs="+", default=[16_000_000, 64_000_000, 256_000_000])
    parser.add_argument("--peer-up-to", type=int, default=64_000_000, help="scipy takes 100 bytes a document and more")
    parser.add_argument("--child", choices=["ours", "scipy"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        ours(given.documents[0]) if given.child == "ours" else scipys(given.documents[0])
        return
    for documents in given.documents:
        for who in ("ours", *(("scipy",) if documents <= given.peer_up_to else ())):
            command = [sys.executable, __file__, "--documents", str(documents), "--child", who]
            subprocess.run(command, check=False)


if __name__ == "__main__":
    main()
