"""Flips one bit of a file that a run has written, has the run go on, and says what came of it.

    python tests/helpers/flipped_bits.py --flips 100 --seed 1

Draws a stage, one of the files that it reads, and the bit. Every third flip is in a file of a stage that was killed halfway. Prints a
table of the outcomes; exits with 1 where one was a trace, or silent: no word about the file, and outputs that differ from those of the
undisturbed run.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from whole_run import STAGES, write_inputs

from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.manifest import Manifest, RowSequence
from corpusmill.pipeline.run import execute, new_plan, plan_of_existing
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress

KINDS = ("repaired", "refused", "not read", "silent", "trace")


def perform(run: Path, first: str, last: str, *new: str) -> list[str]:
    """Runs stages, of a new run where `new` is its recipe and input. Returns what it told."""
    said: list[str] = []
    plan = new_plan(str(run), new[0], new[1:], first=first, last=last) if new else plan_of_existing(str(run), first=first, last=last)
    execute(plan, InlineEngine(), Progress(False, on_note=said.append))
    return said


def rows(run: Path, stage: str) -> RowSequence:
    return Manifest(Storage(str(run / stage)), read_only=True).rows()


def written(run: Path, stage: str) -> dict[str, str]:
    """Returns the sha256 of each file of a finished stage, by path."""
    return {output.path: output.sha256 for row in rows(run, stage) for output in row.outputs}


def flip(file: Path, bit: int) -> None:
    """Inverts a bit; the file keeps its size."""
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def outcome(reference: Path, run: Path, stage: str, file: str, bit: int, done: int = 0) -> str:
    """Copies the stages before `stage`, and this one as if it was killed after `done` tasks; flips a bit of a file, and has the stage run.

    Returns `repaired` (a sentence, and all files as in the reference), `not read` (the stage's outputs are the same), `refused`,
    `silent`, or `trace` (a bug).
    """
    shutil.rmtree(run, ignore_errors=True)
    later = STAGES[STAGES.index(stage) + bool(done) :]
    shutil.copytree(reference, run, ignore=lambda folder, names: later if folder == str(reference) else [])
    if done:
        manifest, tasks = run / stage / "manifest.jsonl", 0
        lines = manifest.read_text().splitlines(keepends=True)
        for number, line in enumerate(lines):  # noqa: B007 - the number after the loop is that of the first line to go
            tasks += json.loads(line)["kind"] == "task"
            if tasks > done:
                break
        manifest.write_text("".join(lines[:number]))
    flip(run / file, bit)
    try:
        said = perform(run, stage, stage)
    except CorpusmillError as error:
        return "refused" if Path(file).name in str(error) else f"silent ({error})"
    except Exception as error:  # noqa: BLE001 - any is a finding
        return f"trace ({error!r})"
    if written(run, stage) != written(reference, stage):
        return "silent"
    healed = (run / file).read_bytes() == (reference / file).read_bytes()
    return "repaired" if healed and any(file in sentence for sentence in said) else "silent" if healed or said else "not read"


def draw(reference: Path, chance: random.Random, killed: bool) -> tuple[str, str, int, int]:
    """Returns a stage, a file (path from the run), a bit, and how many tasks were done before a kill (0: none)."""
    stage = chance.choice(STAGES[:-4] if killed else STAGES[1:])
    tasks, done = rows(reference, stage), 0
    if killed:
        done = chance.randrange(1, len(tasks))
        files = {f"{stage}/{output.path}" for task in tasks[:done] for output in task.outputs}
        wanted = {ref.path for task in tasks[done:] for ref in task.inputs}
        files = files & wanted or files
    else:
        files = {ref.path for task in tasks for ref in task.inputs if ref.path.partition("/")[0] in STAGES}
        files = {file for file in files if not file.startswith(f"{stage}/")}
    sizes = {file: (reference / file).stat().st_size for file in sorted(files)}
    file = chance.choice([file for file, size in sizes.items() if size])
    return stage, file, chance.randrange(8 * sizes[file]), done


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--flips", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    found: dict[str, Counter[str]] = {stage: Counter() for stage in STAGES}
    with tempfile.TemporaryDirectory(prefix="corpusmill-flips-") as folder:
        recipe, crawl = write_inputs(Path(folder))
        reference = Path(folder) / "reference"
        perform(reference, STAGES[0], STAGES[-1], str(recipe), str(crawl))
        for number in range(options.flips):
            stage, file, bit, done = draw(reference, chance, number % 3 == 2)
            result = outcome(reference, Path(folder) / "run", stage, file, bit, done)
            found[stage][result.partition(" (")[0]] += 1
            print(f"{stage:<10} {file} bit {bit}{f', killed after {done} tasks' if done else ''}: {result}", flush=True)
    print(f"\n{'stage':<12}" + "".join(f"{kind:>10}" for kind in KINDS))
    for stage, counts in found.items():
        print(f"{stage:<12}" + "".join(f"{counts[kind]:>10}" for kind in KINDS))
    return 1 if any(counts["silent"] + counts["trace"] for counts in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
