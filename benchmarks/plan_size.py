"""Measures how large dedup's plan grows with the number of shards: its manifest, its lists of files, the tasks that go to workers, and the
number of files that its tasks open.

    python benchmarks/plan_size.py [--shards 200 400] [--documents 8] [--fan-in 64 0] [--few 32] [--inside]

Shards are tiny, and ranges of keys and groups are small in proportion, so that there is a range for about eight shards, as with shards of
30,000 documents (10,000 shards and 1,024 ranges). All else is real, on the inline engine without fsync. `--inside` cuts lines and
passages, too. `--fan-in`: that many neighbouring files are merged into one, where there are more files than that and more than
`--few` tasks read them (fan-in 0: nothing is merged). Prints a line for each number of shards and fan-in: tasks, bytes of the manifest and
of the lists, bytes of the pickled tasks of all phases and of the largest task, how often a task opened a working file or a table, and the
CPU seconds of the process and of the slowest phases. To compare with another version of the code, name it in PYTHONPATH.
"""

import argparse
import itertools
import os
import pickle
import random
import resource
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.dedup import candidates, external_sort
from corpusmill.dedup.inside import sections
from corpusmill.dedup.stage import DedupStage
from corpusmill.pipeline.engine import InlineEngine, Job
from corpusmill.pipeline.failures import Report
from corpusmill.pipeline.manifest import MANIFEST, Manifest, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.schemas import DOCUMENTS, document_id
from corpusmill.pipeline.shards import publish
from corpusmill.pipeline.stage import Task
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress

WORDS = 60
#: Shards whose keys of bands, or documents with a copy, fill a range or a group; there are 14 such keys a document.
SHARDS_A_RANGE, KEYS = 8, 14
LINE = (
    "{:6,} shards, fan-in {:3} {:7,} tasks {:14,} bytes of manifest {:12,} of lists {:14,} of tasks, the largest {:10,} "
    "{:10,} files opened {:7.1f} s CPU: {}"
)
#: A fan-in that no number of files exceeds.
NEVER = 1 << 60
#: Number of phases that are printed with their seconds.
MOST = 8


class Counting(InlineEngine):
    """Counts the bytes that would travel to workers, and the CPU seconds of each phase."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.seconds: Counter[str] = Counter()  # type: ignore[type-arg]

    def perform(self, job: Job, tasks: Sequence[Task], report: Report) -> None:
        self.sizes += [len(pickle.dumps(task)) for task in tasks]
        began = _cpu()
        super().perform(job, tasks, report)
        self.seconds[job.phase or "documents"] += _cpu() - began


class Opened:
    """Counts the Arrow, Parquet and sectioned files that are opened while it is active."""

    def __init__(self) -> None:
        self.count = 0
        places = [(pa, "memory_map"), (pq, "ParquetFile"), (sections, "_ends")]
        self.patches = [patch.object(module, name, self._counted(getattr(module, name))) for module, name in places]

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **options: Any) -> Any:
            self.count += 1
            return function(*given, **options)

        return counted

    def __enter__(self) -> "Opened":
        for one in self.patches:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.patches:
            one.stop()


def shard(number: int, documents: int) -> pa.Table:
    """Makes a shard in which a quarter of the documents has a near copy in the next shard, or in the one before."""
    rows = []
    for place in range(documents):
        copied = place < documents // 4
        draw = random.Random(f"{number // 2 if copied else number} {place} {copied}")
        text = " ".join([f"w{draw.randrange(10**6)}" for _ in range(WORDS)] + [str(number)] * copied)
        url = f"http://h{place}.test/{number}"
        row = {"id": document_id(url, text.encode()), "url": url, "source": "a.warc.gz", "offset": place, "text": text}
        rows.append(dict.fromkeys(DOCUMENTS.names) | row)
    return pa.Table.from_pylist(rows, DOCUMENTS)


def filtered(run: Storage, shards: int, documents: int) -> None:
    """Makes a run whose stage before `dedup` is finished."""
    manifest, storage = Manifest(run.child("filter")), run.child("filter")
    keys = [f"part-{number:05d}" for number in range(shards)]
    for number, key in enumerate(keys):
        output = publish(storage, f"data/{key}.parquet", shard(number, documents))
        manifest.append(TaskRow(key, key, [], "", "", documents, documents, 0, 0, [output]))
    manifest.finish(keys)


def measure(folder: Path, shards: int, documents: int, fan_in: int, inside: bool) -> None:
    run = Storage(str(folder))
    filtered(run, shards, documents)
    external_sort.FAN_IN = fan_in or NEVER
    began = _cpu()
    options = {"lines": {}, "substrings": {"tokens": 20}} if inside else {}
    stage = DedupStage(DedupStage.Config.model_validate({"alarm": "warn", **options}))
    engine = Counting()
    with Opened() as opened:
        StageRun(stage, run, {"filter": None, "dedup": stage.config}, [], engine, Progress(False)).execute()
    seconds = _cpu() - began
    done = run.child("dedup")
    lists = sum(done.size(path) for path in done.list_files("lists"))
    tasks = len(Manifest(done, read_only=True).tasks)
    most = ", ".join(f"{phase} {used:.1f}" for phase, used in engine.seconds.most_common(MOST))
    sizes = done.size(MANIFEST), lists, sum(engine.sizes), max(engine.sizes)
    print(LINE.format(shards, fan_in, tasks, *sizes, opened.count, seconds, most), flush=True)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, nargs="+", default=[200, 400])
    parser.add_argument("--documents", type=int, default=8)
    parser.add_argument("--fan-in", type=int, nargs="+", default=[external_sort.FAN_IN])
    parser.add_argument("--few", type=int, default=external_sort.FEW)
    parser.add_argument("--inside", action="store_true")
    given = parser.parse_args()
    os.fsync = lambda _: None
    external_sort.FEW = given.few
    candidates.TASK_KEYS = SHARDS_A_RANGE * given.documents * KEYS
    candidates.GROUP_WORDS = SHARDS_A_RANGE * given.documents // 4 * 4 * WORDS
    sections.RANGE_BYTES = SHARDS_A_RANGE * 8_192
    for shards, fan_in in itertools.product(given.shards, given.fan_in):
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), shards, given.documents, fan_in, given.inside)


if __name__ == "__main__":
    main()
