"""Compares the pairs that LSH proposes and verification accepts with the exact similarity of all pairs of real documents.

    python benchmarks/dedup_recall.py RUN/ingest/data                # Parquet (files or folders) or JSONL with a column `text`
    python benchmarks/dedup_recall.py RUN/ingest/data --seeds 60     # more draws of the permutations

Takes `--documents` texts with different words (evenly from all) and computes the Jaccard similarity of the word 5-gram sets of every pair,
with `re`, xxhash and an inverted index, and none of corpusmill's code. Runs the stage once for each seed. Prints

* for each range of similarity: pairs; the share that LSH proposed (they share a bucket); the S-curve's share (the mean of
  1 - (1 - s^rows)^bands over these pairs); the difference in points and its standard error over the seeds. Pairs of one template are
  proposed together or not at all, so one seed's difference is no mean of independent draws: only several seeds show chance;
* the removals: how many are at or above the exact threshold, and how many reported similarities equal the exact one;
* the pairs at or above the threshold of which both stay, and how many misses the S-curve allows LSH;
* the 100 texts with 10 known pairs, if `--known` names them.
"""

import argparse
import re
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash
from dedup_documents import read_texts, write_texts

from corpusmill.dedup.stage import DedupStage
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress

Integers = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

RANGES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
SHARDS = 4


# ---- exact similarities of all pairs ----------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    """Documents `a < b` and their Jaccard similarity."""

    a: Integers
    b: Integers
    similarity: Values


def shingle_set(text: str, ngram: int) -> npt.NDArray[np.uint64]:
    """Returns the distinct hashes of a text's word n-grams, ascending."""
    words = [word.lower() for word in re.findall(r"\w+", text)]  # lower-casing first would split the word: it makes two characters of "İ"
    grams = (" ".join(words[i : i + ngram]) for i in range(len(words) - ngram + 1))
    return np.unique(np.array([xxhash.xxh3_64_intdigest(gram) for gram in grams], np.uint64))


def jaccard(a: npt.NDArray[np.uint64], b: npt.NDArray[np.uint64]) -> float:
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)


def distinct_texts(texts: list[str], count: int, least_words: int) -> list[str]:
    """Returns at most `count` texts, evenly from all, with different words each and at least `least_words` words."""
    by_words: dict[int, str] = {}
    for text in texts:
        words = re.findall(r"\w+", text.lower())
        if len(words) >= least_words:
            by_words.setdefault(xxhash.xxh3_128_intdigest(" ".join(words)), text)
    found = list(by_words.values())
    return [found[i] for i in np.unique(np.linspace(0, len(found) - 1, min(count, len(found))).astype(int))]


def similar_pairs(sets: list[npt.NDArray[np.uint64]], least: float) -> Pairs:
    """Returns every pair of similarity `least` or more. The search is exhaustive."""
    bounds = np.concatenate([[0], np.cumsum([len(s) for s in sets])]).astype(np.int64)
    _, gram = np.unique(np.concatenate(sets), return_inverse=True)
    by_gram = np.argsort(gram, kind="stable")  # so the documents of an n-gram ascend
    document = np.repeat(np.arange(len(sets)), np.diff(bounds))[by_gram]
    first = np.concatenate([[0], np.cumsum(np.bincount(gram))]).astype(np.int64)
    return Pairs(*_count_pairs(bounds, gram.astype(np.int64), document, first, least))


@kernel
def _count_pairs(bounds, gram, document, first, least):  # type: ignore[no-untyped-def]
    """Counts, for each document, the n-grams that it shares with each earlier document."""
    common = np.zeros(len(bounds) - 1, np.int64)
    lefts, rights, values = [], [], []
    for b in range(len(bounds) - 1):
        for g in gram[bounds[b] : bounds[b + 1]]:
            for place in range(first[g], first[g + 1]):
                if document[place] >= b:
                    break
                common[document[place]] += 1
        for a in range(b):
            if common[a]:
                union = bounds[a + 1] - bounds[a] + bounds[b + 1] - bounds[b] - common[a]
                if common[a] >= least * union:
                    lefts.append(a)
                    rights.append(b)
                    values.append(common[a] / union)
                common[a] = 0
    return np.array(lefts), np.array(rights), np.array(values)


# ---- the stage's results -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """The result of one run: the pairs that LSH proposed, and the report's rows."""

    proposed: npt.NDArray[np.bool_]
    report: list[dict[str, Any]]


def run_stage(run: Storage, config: dict[str, Any], pairs: Pairs, documents: int) -> Found:
    stage = DedupStage(DedupStage.Config.model_validate(config))
    StageRun(stage, run, {"ingest": None, "dedup": stage.config}, [], InlineEngine(), Progress(False)).execute()
    dedup = run.child("dedup")
    reports = sorted(path for path in dedup.list_files("report"))
    return Found(proposed(dedup, pairs, documents), [row for path in reports for row in read_table(dedup, path).to_pylist()])


def proposed(dedup: Storage, pairs: Pairs, documents: int) -> npt.NDArray[np.bool_]:
    """Returns whether each pair shares a bucket; buckets of different files are different."""
    bucket, document, before = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for path in sorted(path for path in dedup.list_files("candidates") if "/buckets-" in path):
        table = read_table(dedup, path, ["bucket", "document"])
        bucket.append(table["bucket"].to_numpy() + before)
        document.append(table["document"].to_numpy())
        before = max(before, int(bucket[-1].max(initial=before - 1)) + 1)
    buckets, members = np.concatenate(bucket), np.concatenate(document)
    order = np.lexsort((buckets, members))
    found: npt.NDArray[np.bool_] = _share(pairs.a, pairs.b, buckets[order], np.searchsorted(members[order], np.arange(documents + 1)))
    return found


@kernel
def _share(a, b, buckets, first):  # type: ignore[no-untyped-def]
    """Returns for each pair a, b whether the ascending lists `buckets[first[x]:first[x + 1]]` of both have a bucket in common."""
    out = np.zeros(len(a), np.bool_)
    for pair in range(len(a)):
        i, j = first[a[pair]], first[b[pair]]
        while i < first[a[pair] + 1] and j < first[b[pair] + 1] and not out[pair]:
            out[pair] = buckets[i] == buckets[j]
            if buckets[i] < buckets[j]:
                i += 1
            else:
                j += 1
    return out


# ---- output ------------------------------------------------------------------------------------------


def print_recall(pairs: Pairs, runs: list[Found], bands: int, rows: int) -> float:
    """Prints LSH's shares next to its S-curve; returns the largest difference in points."""
    curve = 1 - (1 - pairs.similarity**rows) ** bands
    worst = 0.0
    print(f"{'similarity':>11} {'pairs':>10} {'proposed':>9} {'S-curve':>8} {'points':>7} {'error':>6}")
    for low, high in pairwise(RANGES):
        here = (pairs.similarity >= low) & ((pairs.similarity < high) | (high == 1.0))
        if not here.any():
            continue
        shares = np.array([run.proposed[here].mean() for run in runs])
        expected = curve[here].mean()
        error = shares.std(ddof=1) / np.sqrt(len(runs)) if len(runs) > 1 else np.sqrt((curve * (1 - curve))[here].sum()) / here.sum()
        points = 100 * (shares.mean() - expected)
        worst = max(worst, abs(points))
        print(f"{low:>5.2f}-{high:<5.2f} {here.sum():>10,} {shares.mean():>9.4f} {expected:>8.4f} {points:>+7.2f} {100 * error:>6.2f}")
    return worst


def print_removals(sets: list[npt.NDArray[np.uint64]], pairs: Pairs, runs: list[Found], threshold: float, curve: Values) -> None:
    """Prints the precision of the removals, and the pairs at or above the threshold of which both stay."""
    near = pairs.similarity >= threshold
    for number, run in enumerate(runs, 1):
        place = {row["id"]: i for i, row in enumerate(run.report)}
        removed = [(i, place[row["kept_id"]], row["similarity"]) for i, row in enumerate(run.report) if not row["kept"]]
        exact = np.array([jaccard(sets[a], sets[b]) for a, b, _ in removed])
        reported = np.array([similarity for _, _, similarity in removed], float)
        kept = np.array([row["kept"] for row in run.report])
        left = near & kept[pairs.a] & kept[pairs.b]
        print(
            f"seed {number}: {len(removed):,} removed, {(exact >= threshold).mean():.2%} of them at or above {threshold} by the oracle, "
            f"{(np.abs(exact - reported) < 1e-12).mean():.2%} as reported; of {near.sum():,} pairs at or above it "
            f"{(near & ~run.proposed).sum():,} not proposed ({(1 - curve[near]).sum():,.0f} by the S-curve), of {left.sum():,} both stay"
        )


def print_known(folder: Path) -> None:
    """Prints the pairs that the stage finds among the 100 texts, by file name."""
    files = sorted(folder.glob("*.txt"))
    config = {"minhash": {"ngram": 3, "bands": 20, "rows": 5}}
    with tempfile.TemporaryDirectory() as work:
        run = write_texts(Path(work), [file.read_text() for file in files], SHARDS)
        found = run_stage(run, config, Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)), len(files))
    names = {row["id"]: file.stem for row, file in zip(found.report, files, strict=True)}
    pairs = sorted((*sorted((names[row["id"]], names[row["kept_id"]])), row["similarity"]) for row in found.report if not row["kept"])
    print(f"{folder.name}: {len(pairs)} pairs: " + ", ".join(f"{a}-{b} {similarity:.3f}" for a, b, similarity in pairs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--bands", type=int, default=14)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--ngram", type=int, default=5)
    parser.add_argument("--threshold", type=float, default=0.75)
    parser.add_argument("--known", type=Path, default=Path("../shared/data/dedup/info4300_100docs"))
    args = parser.parse_args()

    texts = distinct_texts(read_texts(args.files), args.documents, least_words=10)
    started = time.perf_counter()
    sets = [shingle_set(text, args.ngram) for text in texts]
    pairs = similar_pairs(sets, RANGES[0])
    seconds = time.perf_counter() - started
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    print(
        f"{len(texts):,} documents of different words, {megabytes:.1f} MB; {len(pairs.a):,} pairs from {RANGES[0]} on, in {seconds:.0f} s"
    )
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        run = write_texts(Path(folder), texts, SHARDS)
        for seed in range(1, args.seeds + 1):
            minhash = {"bands": args.bands, "rows": args.rows, "ngram": args.ngram, "seed": seed}
            runs.append(run_stage(run, {"minhash": minhash, "threshold": args.threshold, "alarm": "warn"}, pairs, len(texts)))
    worst = print_recall(pairs, runs, args.bands, args.rows)
    print(f"largest difference: {worst:.2f} points, mean of {args.seeds} seeds")
    print_removals(sets, pairs, runs, args.threshold, 1 - (1 - pairs.similarity**args.rows) ** args.bands)
    if args.known.is_dir():
        print_known(args.known)


if __name__ == "__main__":
    main()
