"""How the stage grows: corpora of real text with known copies (`dedup_synthetic.py`), each deduplicated by the command line.

    python benchmarks/dedup_scale.py RUN/ingest/data --documents 100000 1000000 10000000 --folder /tmp/scale

The files are the real text that the corpora are made of. For each number of documents: makes the corpus (unless the folder has it), runs
`corpusmill dedup` with `--workers` on Ray, and prints

* seconds of the command (wall and processor, all processes), of each phase, documents/s and MB/s. The time of the phases counts for the ratio,
  because starting Ray takes seconds, whatever the corpus;
* the peak memory of all processes together, sampled each quarter of a second: proportional set size (PSS), which counts a shared page once,
  and of that what is not pages of files, which the system may take back; and of the largest process;
* disk that the stage uses at its peak and in the end, beside the size of its input;
* against the truth: removals without a true partner (a document of another origin), removals whose similarity is below the threshold by a
  computation from scratch (on a sample), members of templates that went, copies that stayed, and for planted near copies that are alone with
  their original the share that was found, by similarity, next to the S-curve.

Last, the ratio of the smallest corpus's throughput to the largest's. Needs psutil, and about 1.6 KB of disk a document.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from dedup_documents import read_texts
from dedup_synthetic import EXACT, FRESH, KINDS, NEAR, PAGE, TEMPLATE, Synthesis, numbers_of, read_source, write_corpus

THRESHOLD, BANDS, ROWS, NGRAM = 0.75, 14, 8, 5
RANGES = (0.0, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
RECIPE = f"""ingest: {{}}
dedup:
  minhash: {{ngram: {NGRAM}, bands: {BANDS}, rows: {ROWS}}}
  threshold: {THRESHOLD}
"""


# ---- the run, and what it takes ----------------------------------------------------------------------


@dataclass
class Use:
    """What a tree of processes took: bytes at their peaks, and seconds."""

    pss: int = 0
    unshared: int = 0  # PSS without pages of files
    largest: int = 0  # PSS of one process
    processes: int = 0
    disk: int = 0
    wall: float = 0.0
    cpu: dict[int, float] = field(default_factory=dict)  # by process, as last seen

    def sample(self, root: psutil.Process) -> None:
        pss = unshared = largest = processes = 0
        for process in [root, *root.children(recursive=True)]:
            try:
                times = process.cpu_times()
                rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            except (psutil.Error, OSError):  # it has just ended
                continue
            sizes = {name: int(kb) << 10 for name, kb in re.findall(r"^(Pss\w*):\s*(\d+) kB", rollup, re.M)}
            self.cpu[process.pid] = times.user + times.system
            pss += sizes.get("Pss", 0)
            unshared += sizes.get("Pss", 0) - sizes.get("Pss_File", 0)
            largest = max(largest, sizes.get("Pss", 0))
            processes += 1
        self.pss, self.unshared = max(self.pss, pss), max(self.unshared, unshared)
        self.largest, self.processes = max(self.largest, largest), max(self.processes, processes)


def folder_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # it has just been renamed
            continue
    return total


def run_stage(run: Path, workers: int) -> Use:
    """The stage from scratch, by the command line, watched."""
    shutil.rmtree(run / "dedup", ignore_errors=True)
    (run / "metrics.jsonl").unlink(missing_ok=True)
    recipe = run / "recipe.yaml"
    recipe.write_text(RECIPE)
    command = [sys.executable, "-m", "corpusmill", "dedup", str(run), "--recipe", str(recipe), "--workers", str(workers)]
    use, started, samples = Use(), time.perf_counter(), 0
    with open(run / "dedup.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        root = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                use.sample(root)
            except psutil.NoSuchProcess:
                break
            if samples % 20 == 0:
                use.disk = max(use.disk, folder_bytes(run / "dedup"))
            samples += 1
            time.sleep(0.25)
    code = process.wait()
    use.wall = time.perf_counter() - started
    if code:
        raise SystemExit(f"the stage failed with {code}:\n{(run / 'dedup.log').read_text()[-3000:]}")
    return use


def print_use(run: Path, use: Use, documents: int, megabytes: float) -> float:
    """Returns documents a second, by the time of the phases."""
    phases = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    seconds = sum(phase["seconds"] for phase in phases)
    final, given = folder_bytes(run / "dedup"), folder_bytes(run / "ingest")
    print(f"  command {use.wall:.1f} s wall, {sum(use.cpu.values()):.1f} s CPU; phases {seconds:.1f} s: ", end="")
    print(", ".join(f"{phase['phase'] or 'removal'} {phase['seconds']:.1f} s (peak {phase['peak_mb']:,} MB)" for phase in phases))
    print(f"  {documents / seconds:,.0f} documents/s, {megabytes / seconds:,.1f} MB/s of text by the phases; ", end="")
    print(f"{documents / use.wall:,.0f} documents/s, {megabytes / use.wall:,.1f} MB/s by the command")
    print(f"  peak memory of {use.processes} processes: {use.pss / 1e9:.2f} GB PSS, ", end="")
    print(f"{use.unshared / 1e9:.2f} GB without pages of files; largest process {use.largest / 1e9:.2f} GB")
    print(f"  disk: input {given / 1e9:.2f} GB, the stage {max(use.disk, final) / 1e9:.2f} GB at its peak, {final / 1e9:.2f} GB in the end")
    return documents / seconds


# ---- what came out, against the truth ------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """For each document: its kind and base, whether it stayed, the document kept for it, and the similarity as reported."""

    kind: npt.NDArray[np.int8]
    base: npt.NDArray[np.int64]
    kept: npt.NDArray[np.bool_]
    keeper: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float32]


def read_outcome(run: Path, documents: int) -> Outcome:
    out = Outcome(*(np.zeros(documents, dtype) for dtype in (np.int8, np.int64, bool, np.int64, np.float32)))
    first = 0
    for truth, report in zip(sorted((run / "truth").glob("*.parquet")), sorted((run / "dedup/report").glob("*.parquet")), strict=True):
        known, table = pq.read_table(truth), pq.read_table(report, columns=["id", "kept", "kept_id", "similarity"])
        here = slice(first, first + known.num_rows)
        if not np.array_equal(numbers_of(table["id"]), np.arange(here.start, here.stop)):
            raise SystemExit(f"{report}: not one row for each document of its shard, in order")
        out.kind[here], out.base[here] = known["kind"].to_numpy(), known["base"].to_numpy()
        out.kept[here], out.keeper[here] = table["kept"].to_numpy(), numbers_of(table["kept_id"])
        out.similarity[here] = table["similarity"].to_numpy()
        first = here.stop
    return out


def print_truth(made: Synthesis, out: Outcome, sample: int) -> None:
    removed = np.flatnonzero(~out.kept)
    shares = ", ".join(f"{name} {np.mean(~out.kept[out.kind == k]):.2%} of {(out.kind == k).sum():,}" for k, name in enumerate(KINDS))
    print(f"  removed {len(removed):,} of {made.documents:,}: {shares}")
    strangers = out.base[removed] != out.base[out.keeper[removed]]
    print(
        f"  removals without a true partner: {strangers.sum():,}; for a document that went itself: {(~out.kept[out.keeper[removed]]).sum():,}"
    )
    copies = np.isin(out.kind, (FRESH, EXACT))
    stayed = np.bincount(out.base[copies & out.kept], minlength=made.documents)
    print(
        f"  exact copies that stay beside another: {np.maximum(stayed - 1, 0).sum():,}; of the page stay {out.kept[out.kind == PAGE].sum():,}; ",
        end="",
    )
    print(f"members of {made.templates} templates that went: {(~out.kept[out.kind == TEMPLATE]).sum():,}")
    draw = np.random.default_rng(1)
    chosen = np.sort(draw.choice(removed, min(sample, len(removed)), replace=False))
    exact = similarities(made, chosen, out.keeper[chosen])
    wrong = np.abs(exact - np.nan_to_num(out.similarity[chosen], nan=1.0)) > 1e-6
    print(f"  of {len(chosen):,} removals sampled: below {THRESHOLD} by computation from scratch {(exact < THRESHOLD).sum():,}, ", end="")
    print(f"reported otherwise {wrong.sum():,}")
    alone = np.flatnonzero((out.kind == NEAR) & (np.bincount(out.base[out.kind == NEAR], minlength=made.documents + 1)[out.base] == 1))
    chosen = np.sort(draw.choice(alone, min(sample, len(alone)), replace=False))
    print_recall(similarities(made, chosen, out.base[chosen]), ~(out.kept[chosen] & (stayed[out.base[chosen]] > 0)))


def print_recall(similarity: npt.NDArray[np.float64], found: npt.NDArray[np.bool_]) -> None:
    """Near copies alone with their original (and its exact copies): whether one of the two went, next to the S-curve above the threshold."""
    for low, high in pairwise(RANGES):
        here = (similarity >= low) & ((similarity < high) | (high == 1.0))
        if here.any():
            curve = np.where(similarity[here] >= THRESHOLD, 1 - (1 - similarity[here] ** ROWS) ** BANDS, 0.0)
            error = np.sqrt((curve * (1 - curve)).sum()) / here.sum()
            print(
                f"  {low:.2f}-{high:.2f} {here.sum():>7,} near copies, found {found[here].mean():.4f}, S-curve {curve.mean():.4f} +- {error:.4f}"
            )


def similarities(made: Synthesis, a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Jaccard similarities of the word n-gram sets of documents a[i] and b[i], made again and compared by Python."""
    values = []
    for begin in range(0, len(a), 1000):
        pairs = zip(*(made.texts(index[begin : begin + 1000]).to_pylist() for index in (a, b)), strict=True)
        for x, y in ((shingles(x), shingles(y)) for x, y in pairs):
            values.append(len(x & y) / max(len(x | y), 1))
    return np.array(values)


def shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)}


# ---- the sizes -----------------------------------------------------------------------------------------


def make(run: Path, texts: list[str], documents: int) -> Synthesis:
    """The corpus, taken over where the folder has it."""
    made = read_source(texts, documents)
    manifest = run / "ingest/manifest.jsonl"
    if not manifest.exists() or '"complete"' not in manifest.read_text():
        shutil.rmtree(run, ignore_errors=True)
        started = time.perf_counter()
        write_corpus(run, made)
        print(f"  made in {time.perf_counter() - started:.0f} s")
    return made


def text_megabytes(run: Path) -> float:
    files = sorted((run / "ingest/data").glob("*.parquet"))
    return sum(pa.compute.sum(pa.compute.binary_length(pq.read_table(file, columns=["text"])["text"])).as_py() for file in files) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="Parquet (files or folders) or JSONL with a column `text`: the source")
    parser.add_argument("--documents", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, default=Path("runs/scale"), help="where the corpora and runs go, a folder for each size")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sample", type=int, default=20_000, help="how many removals and near copies are computed again")
    args = parser.parse_args()

    texts = read_texts(args.files)
    rates = {}
    for documents in sorted(args.documents):
        run = args.folder / f"documents-{documents}"
        print(f"{documents:,} documents, {os.cpu_count()} cores, {args.workers} workers", flush=True)
        made = make(run, texts, documents)
        rates[documents] = print_use(run, run_stage(run, args.workers), documents, text_megabytes(run))
        print_truth(made, read_outcome(run, documents), args.sample)
    sizes = list(rates)
    print(f"throughput of {sizes[0]:,} documents is {rates[sizes[0]] / rates[sizes[-1]]:.2f} times that of {sizes[-1]:,}")


if __name__ == "__main__":
    main()
