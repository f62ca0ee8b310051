"""Measures how the dedup stage scales, by the command line, on corpora of real text with known copies (`dedup_synthetic.py`).

    python benchmarks/dedup_scale.py RUN/ingest/data --documents 100000 1000000 10000000 --folder /tmp/scale

The files hold the real text from which the corpora are made. For each number of documents: makes the corpus (unless the folder has it),
runs the stage dedup by `corpusmill run` with `--workers` on Ray, and prints

* seconds of the command (wall and processor, all processes) and of each phase, documents/s and MB/s. A first run on 1,000 documents
  measures the fixed cost (start of Ray and its workers, imports), which the net rates leave out;
* the peak memory of all processes together, sampled each quarter of a second: proportional set size (PSS), which counts a shared page
  once; the part of PSS that is not pages of files, which the system may take back; and the peak of the largest process;
* disk that the stage uses at its peak and in the end, next to the size of its input;
* against the truth: removals without a true partner (one of the same origin); in a sample of removals, those whose recomputed similarity
  is below the threshold or not the reported one; members of templates that were removed; copies that stayed; and, by similarity and next
  to the S-curve, the share found of near copies that are alone with their original.

Last, the throughput of the smallest corpus divided by that of each other one. Needs Linux, and about 2 KB of disk a document.
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
import pyarrow.compute as pc
import pyarrow.parquet as pq
from dedup_documents import read_texts
from dedup_synthetic import EXACT, FRESH, KINDS, NEAR, PAGE, TEMPLATE, Synthesis, numbers_of, read_source, write_corpus

THRESHOLD, BANDS, ROWS, NGRAM = 0.75, 14, 8, 5
FIXED_COST = 1_000  # documents of the run that measures the fixed cost
RANGES = (0.0, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
RECIPE = f"""ingest: {{}}
dedup:
  minhash: {{ngram: {NGRAM}, bands: {BANDS}, rows: {ROWS}}}
  threshold: {THRESHOLD}
"""


# ---- the run and its resources -----------------------------------------------------------------------


@dataclass
class Use:
    """Resources of a tree of processes: peak bytes, and seconds."""

    pss: int = 0
    unshared: int = 0  # PSS without pages of files
    largest: int = 0  # PSS of one process
    processes: int = 0
    disk: int = 0
    wall: float = 0.0
    cpu: dict[int, float] = field(default_factory=dict)  # by process, at the last sample

    @property
    def processor(self) -> float:
        """Returns the processor seconds of all processes."""
        return sum(self.cpu.values())

    def sample(self, root: int) -> None:
        pss = unshared = largest = processes = 0
        for pid, seconds in process_tree(root).items():
            self.cpu[pid] = seconds
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:  # the process has just ended
                continue
            sizes = {name: int(kb) << 10 for name, kb in re.findall(r"^(Pss\w*):\s*(\d+) kB", rollup, re.M)}
            pss += sizes.get("Pss", 0)
            unshared += sizes.get("Pss", 0) - sizes.get("Pss_File", 0)
            largest = max(largest, sizes.get("Pss", 0))
            processes += 1
        self.pss, self.unshared = max(self.pss, pss), max(self.unshared, unshared)
        self.largest, self.processes = max(self.largest, largest), max(self.processes, processes)


def process_tree(root: int) -> dict[int, float]:
    """Returns the processor seconds of a process and of all its descendants, by process."""
    parent, seconds = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()  # fields start after the name, which may hold any character
        except OSError:
            continue
        pid = int(stat.parent.name)
        parent[pid], seconds[pid] = int(fields[1]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    found = {root}
    while below := {pid for pid, above in parent.items() if above in found} - found:
        found |= below
    return {pid: seconds[pid] for pid in found if pid in seconds}


def folder_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # the file has just been renamed
            continue
    return total


def run_stage(run: Path, workers: int) -> Use:
    """Runs the whole stage by the command line and samples its resources."""
    shutil.rmtree(run / "dedup", ignore_errors=True)
    (run / "metrics.jsonl").unlink(missing_ok=True)
    recipe = run.with_name(f"{run.name}.yaml")
    recipe.write_text(RECIPE)
    if not (run / "run.json").exists():
        (run / "run.json").write_text(json.dumps({"inputs": [], "recipe": {"ingest": {}}}))
    command = [sys.executable, "-m", "corpusmill", "run", str(recipe), "--output", str(run), "--from", "dedup", "--to", "dedup"]
    command += ["--workers", str(workers)]
    use, started, samples = Use(), time.perf_counter(), 0
    output = run.with_name(f"{run.name}.log")
    with open(output, "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            use.sample(process.pid)
            if samples % 20 == 0:
                use.disk = max(use.disk, folder_bytes(run / "dedup"))
            samples += 1
            time.sleep(0.25)
    code = process.wait()
    use.wall = time.perf_counter() - started
    if code:
        raise SystemExit(f"the stage failed with {code}:\n{output.read_text()[-3000:]}")
    return use


def print_use(run: Path, use: Use, documents: int, megabytes: float, fixed: Use) -> dict[str, float]:
    """Prints the resources; returns documents a second, of the whole command and without its fixed cost."""
    final, given = folder_bytes(run / "dedup"), folder_bytes(run / "ingest")
    phases = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    seconds = {"wall": use.wall, "net wall": use.wall - fixed.wall, "net processor": use.processor - fixed.processor}
    seconds = {name: value if value > 0 else float("nan") for name, value in seconds.items()}  # wall time of a busy machine says little
    print(f"  command {use.wall:.1f} s wall, {use.processor:.1f} s CPU; phases: ", end="")
    print(", ".join(f"{phase['phase'] or 'removal'} {phase['seconds']:.1f} s (peak {phase['peak_mb']:,} MB)" for phase in phases))
    print(f"  fixed cost {fixed.wall:.1f} s wall, {fixed.processor:.1f} s CPU; by a second of ", end="")
    print(", ".join(f"{name} {documents / value:,.0f} documents {megabytes / value:,.1f} MB" for name, value in seconds.items()))
    print(f"  peak memory of {use.processes} processes: {use.pss / 1e9:.2f} GB PSS, ", end="")
    print(f"{use.unshared / 1e9:.2f} GB without pages of files; largest process {use.largest / 1e9:.2f} GB")
    print(f"  disk: input {given / 1e9:.2f} GB, the stage {max(use.disk, final) / 1e9:.2f} GB at its peak, {final / 1e9:.2f} GB in the end")
    return {name: documents / value for name, value in seconds.items()}


# ---- the result, against the truth -------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """For each document: its kind and base, whether it stayed, the document kept for it, and the reported similarity."""

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
    strangers, gone = out.base[removed] != out.base[out.keeper[removed]], ~out.kept[out.keeper[removed]]
    print(f"  removals without a true partner: {strangers.sum():,}; for a document that went itself: {gone.sum():,}")
    stayed = np.bincount(out.base[np.isin(out.kind, (FRESH, EXACT)) & out.kept], minlength=made.documents)
    beside, page, members = np.maximum(stayed - 1, 0).sum(), out.kept[out.kind == PAGE].sum(), ~out.kept[out.kind == TEMPLATE]
    print(f"  exact copies that stay beside another: {beside:,}; of the page stay {page:,}; ", end="")
    print(f"members of {made.templates} templates that went: {members.sum():,}")

    draw = np.random.default_rng(1)
    chosen = np.sort(draw.choice(removed, min(sample, len(removed)), replace=False))
    exact = similarities(made, chosen, out.keeper[chosen])
    wrong = np.abs(exact - out.similarity[chosen]) > 1e-6
    print(f"  of {len(chosen):,} removals sampled: below {THRESHOLD} by computation from scratch {(exact < THRESHOLD).sum():,}, ", end="")
    print(f"reported otherwise {wrong.sum():,}")
    copies = np.bincount(out.base[out.kind == NEAR], minlength=made.documents + 1)
    alone = np.flatnonzero((out.kind == NEAR) & (copies[out.base] == 1))
    chosen = np.sort(draw.choice(alone, min(sample, len(alone)), replace=False))
    print_recall(similarities(made, chosen, out.base[chosen]), ~(out.kept[chosen] & (stayed[out.base[chosen]] > 0)))


def print_recall(similarity: npt.NDArray[np.float64], found: npt.NDArray[np.bool_]) -> None:
    """Prints, of near copies alone with their original, whether one of the two was removed; below the threshold none may be."""
    for low, high in pairwise(RANGES):
        here = (similarity >= low) & ((similarity < high) | (high == 1.0))
        if here.any():
            curve = np.where(similarity[here] >= THRESHOLD, 1 - (1 - similarity[here] ** ROWS) ** BANDS, 0.0)
            error = np.sqrt((curve * (1 - curve)).sum()) / here.sum()
            line = f"  {low:.2f}-{high:.2f} {here.sum():>7,} near copies"
            print(f"{line}, found {found[here].mean():.4f}, S-curve {curve.mean():.4f} +- {error:.4f}")


def similarities(made: Synthesis, a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Returns the Jaccard similarities of the word n-gram sets of documents a[i] and b[i], regenerated and compared in Python."""
    values = []
    for begin in range(0, len(a), 1000):
        pairs = zip(*(made.texts(index[begin : begin + 1000]).to_pylist() for index in (a, b)), strict=True)
        for x, y in ((shingles(x), shingles(y)) for x, y in pairs):
            values.append(len(x & y) / max(len(x | y), 1))
    return np.array(values)


def shingles(text: str) -> set[tuple[str, ...]]:
    words = [word.lower() for word in re.findall(r"\w+", text)]  # lower-casing first would split the word: it makes two characters of "İ"
    return {tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)}


# ---- the sizes -----------------------------------------------------------------------------------------


def make(run: Path, texts: list[str], documents: int) -> Synthesis:
    """Makes the corpus, unless the folder has it."""
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
    return sum(pc.sum(pc.binary_length(pq.read_table(file, columns=["text"])["text"])).as_py() for file in files) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="Parquet (files or folders) or JSONL with a column `text`: the source")
    parser.add_argument("--documents", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, default=Path("runs/scale"), help="where the corpora and runs go, a folder for each size")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sample", type=int, default=20_000, help="how many removals and near copies are computed again")
    args = parser.parse_args()

    texts = read_texts(args.files)
    first = args.folder / f"documents-{FIXED_COST}"
    make(first, texts, FIXED_COST)
    run_stage(first, args.workers)  # compiles kernels that have never run here
    fixed = min((run_stage(first, args.workers) for _ in range(2)), key=lambda use: use.wall)
    rates = {}
    for documents in sorted(args.documents):
        run = args.folder / f"documents-{documents}"
        print(f"\n{documents:,} documents, {os.cpu_count()} cores, {args.workers} workers", flush=True)
        made = make(run, texts, documents)
        rates[documents] = print_use(run, run_stage(run, args.workers), documents, text_megabytes(run), fixed)
        print_truth(made, read_outcome(run, documents), args.sample)
    smallest, *others = rates
    for other in others:
        ratios = ", ".join(f"{rates[smallest][name] / rates[other][name]:.2f} by {name}" for name in rates[other])
        print(f"\nthroughput of {smallest:,} documents over that of {other:,}: {ratios}")


if __name__ == "__main__":
    main()
