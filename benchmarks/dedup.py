"""Deduplication, Parquet to Parquet on one core: ours against datasketch and rensa, on the same documents in the same run.

    python benchmarks/dedup.py documents.parquet more.jsonl     # files with a column `text`
    python benchmarks/dedup.py wiki.train.txt --documents 20000 # documents mixed and mutated from the sentences of a text

All use the same words (runs of \\w, lower-cased), shingles of 5 words, and 14 bands of 8 minima of 32 bits. The peers do what their
manuals show: a document goes when LSH finds an earlier one that stays; they verify nothing. Ours verifies every removal on the
texts and writes clusters and a report row for each document as well. Seconds are of processor time, after one warm-up.
"""

import argparse
import json
import random
import re
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.dedup.stage import DedupStage
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.manifest import Manifest, TaskRow
from corpusmill.pipeline.progress import Progress
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.schemas import DOCUMENTS, document_id
from corpusmill.pipeline.shards import publish, read_table
from corpusmill.pipeline.storage import Storage

BANDS, ROWS, NGRAM, SEED, THRESHOLD = 14, 8, 5, 1, 0.75
WORD = re.compile(r"\w+")


def read_texts(paths: list[str], count: int) -> list[str]:
    """The texts of Parquet and JSONL files; of a plain text file, `count` documents made from its sentences."""
    texts: list[str] = []
    for path in map(Path, paths):
        if path.suffix == ".parquet":
            texts += pq.read_table(path, columns=["text"])["text"].to_pylist()
        elif path.suffix == ".jsonl":
            texts += [json.loads(line)["text"] for line in path.read_text().splitlines() if line.strip()]
        else:
            texts += mutated(path.read_text(), count)
    return texts


def mutated(text: str, count: int) -> list[str]:
    """Documents of a dozen sentences each; three in ten are earlier ones in which up to a tenth of the words is changed."""
    draw = random.Random(SEED)
    sentences = [s for s in re.split(r"(?<=\.)\s+", text) if len(s.split()) > 4]
    documents: list[str] = []
    for _ in range(count):
        if documents and draw.random() < 0.3:
            share = draw.choice([0.0, 0.005, 0.01, 0.02, 0.05, 0.1])
            words = draw.choice(documents).split(" ")
            documents.append(" ".join(f"changed{draw.randrange(10**6)}" if draw.random() < share else word for word in words))
        else:
            documents.append(" ".join(draw.choices(sentences, k=draw.randint(6, 20))))
    return documents


def write_upstream(root: Path, texts: list[str], shards: int) -> Storage:
    """A run whose `ingest` stage is finished with these documents."""
    run = Storage(str(root))
    manifest = Manifest(run.child("ingest"))
    size = -(-len(texts) // shards)
    keys = [f"part-{number:05d}" for number in range(shards)]
    for number, key in enumerate(keys):
        rows = [
            {**dict.fromkeys(DOCUMENTS.names), "id": document_id(str(i), text.encode()), "source": "benchmark", "offset": i, "text": text}
            for i, text in enumerate(texts[number * size : (number + 1) * size], number * size)
        ]
        output = publish(run.child("ingest"), f"data/{key}.parquet", pa.Table.from_pylist(rows, schema=DOCUMENTS))
        manifest.append(TaskRow(key, key, [], "", "", len(rows), len(rows), 0, 0, [output]))
    manifest.finish(keys)
    return run


def ours(run: Storage, keys: list[str]) -> set[str]:
    config = DedupStage.Config.model_validate(
        {
            "minhash": {"bands": BANDS, "rows": ROWS, "ngram": NGRAM, "seed": SEED, "min_words": NGRAM},
            "threshold": THRESHOLD,
            "keep": "first",
            "alarm": "warn",
        }
    )
    shutil.rmtree(run.path("dedup"), ignore_errors=True)
    stage_run = StageRun(DedupStage(config), run, {"ingest": None, "dedup": config}, [], InlineEngine(), Progress(False))
    stage_run.execute()
    kept = {id_ for key in keys for id_ in read_table(stage_run.storage, f"data/{key}.parquet", ["id"])["id"].to_pylist()}
    return all_ids(run, keys) - kept


def all_ids(run: Storage, keys: list[str]) -> set[str]:
    return {id_ for key in keys for id_ in read_table(run, f"ingest/data/{key}.parquet", ["id"])["id"].to_pylist()}


def shingles(text: str) -> list[str]:
    words = WORD.findall(text.lower())
    return [" ".join(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)]


def through_parquet(run: Storage, keys: list[str], keep: Callable[[list[str]], list[bool]]) -> set[str]:
    """The peers' frame: read all shards, decide on all texts, write the shards without the removed."""
    tables = [read_table(run, f"ingest/data/{key}.parquet") for key in keys]
    kept = keep([text for table in tables for text in table["text"].to_pylist()])
    removed: set[str] = set()
    for key, table in zip(keys, tables, strict=True):
        mine, kept = pa.array(kept[: table.num_rows], pa.bool_()), kept[table.num_rows :]
        stays = table.filter(mine)
        publish(run, f"peer/{key}.parquet", stays)
        removed |= set(table["id"].to_pylist()) - set(stays["id"].to_pylist())
    return removed


def datasketch(texts: list[str]) -> list[bool]:
    import xxhash
    from datasketch import MinHash, MinHashLSH

    lsh = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    batches = ([s.encode() for s in shingles(text)] for text in texts)
    kept = []
    for number, minhash in enumerate(MinHash.generator(batches, num_perm=BANDS * ROWS, seed=SEED, hashfunc=xxhash.xxh32_intdigest)):
        stays = minhash.is_empty() or not lsh.query(minhash)
        if stays:
            lsh.insert(number, minhash)
        kept.append(stays)
    return kept


def rensa(texts: list[str]) -> list[bool]:
    from rensa import RMinHash, RMinHashLSH  # type: ignore[import-not-found]

    lsh = RMinHashLSH(THRESHOLD, BANDS * ROWS, BANDS)
    tokens = [shingles(text) for text in texts]
    kept = []
    for number, minhash in enumerate(RMinHash.from_token_sets(tokens, BANDS * ROWS, SEED)):
        stays = not tokens[number] or not lsh.query(minhash)
        if stays:
            lsh.insert(number, minhash)
        kept.append(stays)
    return kept


def jaccard(a: str, b: str) -> float:
    x, y = set(shingles(a)), set(shingles(b))
    return len(x & y) / len(x | y) if x | y else 0.0


def wrongly_removed(run: Storage, removed: set[str], texts: dict[str, str]) -> int:
    """Of ours: removed documents whose similarity to the kept one, computed here from scratch, is below the threshold."""
    clusters = read_table(run, "dedup/clusters/part-00000.parquet", ["id", "kept_id", "verified"]).to_pylist()
    near = [row for row in clusters if row["id"] in removed and row["verified"] == "exact_jaccard"]
    return sum(jaccard(texts[row["id"]], texts[row["kept_id"]]) < THRESHOLD for row in near)


def measure(function: Callable[[], set[str]], repeat: int) -> tuple[float, float, set[str]]:
    """`(processor seconds, wall seconds, removed)` of the fastest of `repeat` runs."""
    best = (float("inf"), float("inf"))
    removed: set[str] = set()
    for _ in range(repeat):
        cpu, wall = time.process_time(), time.perf_counter()
        removed = function()
        best = min(best, (time.process_time() - cpu, time.perf_counter() - wall))
    return *best, removed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="Parquet or JSONL with a column `text`, or plain text to make documents from")
    parser.add_argument("--documents", type=int, default=20_000, help="how many documents to make from plain text")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=3, help="runs of ours, of which the fastest counts; peers run once")
    parser.add_argument("--ours-only", action="store_true")
    args = parser.parse_args()

    texts = read_texts(args.files, args.documents)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{len(texts):,} documents, {megabytes:,.1f} MB, {args.shards} shards, {BANDS} bands of {ROWS}, {NGRAM}-grams")
    keys = [f"part-{number:05d}" for number in range(args.shards)]
    with tempfile.TemporaryDirectory() as folder:
        warm = write_upstream(Path(folder) / "warm", texts[:200], 1)
        ours(warm, keys[:1])
        run = write_upstream(Path(folder) / "run", texts, args.shards)
        systems: dict[str, tuple[Callable[[], set[str]], int]] = {"corpusmill": (lambda: ours(run, keys), args.repeat)}
        if not args.ours_only:
            systems["datasketch"] = (lambda: through_parquet(run, keys, datasketch), 1)
            systems["rensa"] = (lambda: through_parquet(run, keys, rensa), 1)
        base: tuple[float, set[str]] | None = None
        for name, (function, repeat) in systems.items():
            try:
                cpu, wall, removed = measure(function, repeat)
            except ImportError as error:
                print(f"{name:12} not installed ({error.name})")
                continue
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            line = f"{name:12} {cpu:8.2f} s ({wall:.2f} s wall) {len(texts) / cpu:10,.0f} documents/s {megabytes / cpu:8.1f} MB/s"
            line += f"  removed {len(removed):,}  peak so far {peak:,} MB"
            if base is None:
                base = (cpu, removed)
                by_id = {document_id(str(i), text.encode()): text for i, text in enumerate(texts)}
                line += f"  below the threshold {wrongly_removed(run, removed, by_id)}"
            else:
                both, either = len(removed & base[1]), max(len(removed | base[1]), 1)
                line += f"  ours is {cpu / base[0]:.1f} times as fast, removals agree {both / either:.3f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
