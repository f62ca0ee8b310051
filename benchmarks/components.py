"""What is connected by candidates: memory and time by documents, beside scipy's connected components, which has all links in memory.

    python benchmarks/components.py [--documents 16000000 64000000 256000000] [--range 16777216] [--peer-up-to 64000000]

Three of ten documents are in clusters of four, whose members lie anywhere among all documents, and a fifth of the clusters is linked to the
next: so components are of 4, 8, 12 and more. Each cluster is a star in 14 files, as if all bands had found it. Each line is a process of
its own: seconds until each document has the root of its component (of ours also until it has its group), peak memory, what lay on disk at
the most (in TMPDIR), and what the roots of the documents in a star add up to, which must be the same for both.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from corpusmill.dedup.components import MEMBERS, ROOT, connect
from corpusmill.dedup.groups import RANGE_DOCUMENTS
from corpusmill.dedup.packing import group
from corpusmill.dedup.spill import Spill
from corpusmill.dedup.union_find import stars_to_links
from corpusmill.pipeline.engine import peak_memory_mb

Index = npt.NDArray[np.int64]

SHARE, EACH, BANDS = 0.3, 4, 14
#: Clusters of which one file tells.
FILE_CLUSTERS = 500_000
#: A prime: its multiples, modulo the documents, lie anywhere.
STRIDE = 982_451_653
#: What a document weighs: its signature, and its shingles.
WORDS = 1_000
LINE = "{:>12,} documents {:6} {:7.1f} s to the roots, {}peak {:6,} MB; {}the roots add up to {:,}"


class Measured(Spill):
    """A spill that knows how much it had on disk at the most."""

    most = 0

    def put(self, name: str, of: Index | int, records: Index) -> None:
        super().put(name, of, records)
        files = [found.file for found in self._named.values() if found.file]
        self.most = max(self.most, sum(os.fstat(file.fileno()).st_size for file in files))


class Clusters:
    """The stars of each file, made when they are asked for."""

    def __init__(self, documents: int):
        self.documents = documents
        self.clusters = int(documents * SHARE) // EACH
        self.files = -(-self.clusters // FILE_CLUSTERS)

    def __iter__(self) -> Iterator[tuple[Index, Index]]:
        return map(self._file, range(BANDS * self.files))

    def _file(self, number: int) -> tuple[Index, Index]:
        first = number % self.files * FILE_CLUSTERS
        cluster = np.arange(first, min(first + FILE_CLUSTERS, self.clusters))
        member = cluster[:, None] * EACH + np.arange(EACH)
        linked = ((cluster * 2_654_435_761 >> 7) % 5 == 0) & (cluster + 1 < self.clusters)
        more = np.where(linked, member[:, 0] + EACH, member[:, 0])
        document = np.sort(np.column_stack([member, more]) * STRIDE % self.documents, axis=1)
        return np.repeat(np.arange(len(cluster)), EACH + 1), document.reshape(-1)


def ours(documents: int, range_documents: int) -> None:
    bounds = np.array([*range(0, documents, range_documents), documents])
    connect(Spill(np.array([0, 1])), [], [(np.zeros(2, np.int64), np.zeros(2, np.int64))])  # compiles, or loads what was
    spill, began, roots = Spill(bounds), time.perf_counter(), 0
    connect(spill, [], Clusters(documents))
    seconds = time.perf_counter() - began
    for number in range(spill.ranges):
        roots += sum(int(members[:, ROOT].sum()) for members in spill.take(MEMBERS, number, 3))
    spill.drop(MEMBERS)
    began, spill = time.perf_counter(), Measured(bounds)
    groups, _ = group(spill, [], Clusters(documents), lambda number: np.full(bounds[number + 1] - bounds[number], WORDS), documents)
    more = f"{time.perf_counter() - began:.1f} s to {groups:,} groups, "
    disk = f"{spill.most / 1e9:.2f} GB on disk, "
    print(LINE.format(documents, "ours", seconds, more, peak_memory_mb(), disk, roots), flush=True)


def scipys(documents: int) -> None:
    began = time.perf_counter()
    links = np.concatenate([stars_to_links(*stars).astype(np.int32) for stars in Clusters(documents)])
    graph = coo_array((np.ones(len(links), np.bool_), (links[:, 0], links[:, 1])), (documents, documents))
    count, label = connected_components(graph, directed=False)
    first = np.full(count, documents)
    np.minimum.at(first, label, np.arange(documents))
    seconds = time.perf_counter() - began
    there = np.zeros(documents, np.bool_)
    there[links] = True
    print(LINE.format(documents, "scipy", seconds, "", peak_memory_mb(), "", int(first[label[there]].sum())), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, nargs="+", default=[16_000_000, 64_000_000, 256_000_000])
    parser.add_argument("--range", type=int, default=RANGE_DOCUMENTS)
    parser.add_argument("--peer-up-to", type=int, default=64_000_000, help="scipy takes 100 bytes a document and more")
    parser.add_argument("--child", choices=["ours", "scipy"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        ours(given.documents[0], given.range) if given.child == "ours" else scipys(given.documents[0])
        return
    for documents in given.documents:
        for who in ("ours", *(("scipy",) if documents <= given.peer_up_to else ())):
            command = [sys.executable, __file__, "--documents", str(documents), "--range", str(given.range), "--child", who]
            subprocess.run(command, check=False)


if __name__ == "__main__":
    main()
