"""How many items of a set the run's documents hold: a score on what a model has read says less."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.stage import Output, Piece, load_object
from corpusmill.pipeline.storage import Storage
from corpusmill.train import tuning
from corpusmill.train.benchmarks.scores import scores

#: The search is that of decontamination, in a room that this one does not import.
SEARCH = "corpusmill.dedup.contamination.overlap"
FOLDER = "benchmarks/overlap"


def find_overlap(run: StageRun, task: str, files: Sequence[FileRef]) -> list[FileRef]:
    """Looks for the items of a set in all documents of the run. The files that `read_overlap` reads."""
    folder = f"{FOLDER}/{task}"
    index_of, worker = load_object(f"{SEARCH}:overlap_index"), load_object(f"{SEARCH}:OverlapWorker")
    defaults = type(run.stage.config)()
    made = run.once(f"{folder}/index", files, lambda _: index_of(task, files, f"{folder}/index.arrow"), config=defaults)
    index = made.ref(run.stage.name, made.outputs[0].path)
    pieces = [
        Piece(f"{folder}/part-{n:05d}", (documents, index), {"path": f"{folder}/part-{n:05d}.parquet"})
        for n, documents in enumerate(tuning.documents(run))
    ]
    parts = run.map(f"overlap {task}", worker, pieces, config=defaults)
    found = [row.ref(run.stage.name, row.outputs[0].path) for row in parts]
    row = run.once(folder, [*found, index], lambda _: _merged(run.run, task, found, made.counts), config=defaults)
    return [row.ref(run.stage.name, output.path) for output in row.outputs]


def _merged(run: Storage, task: str, found: Sequence[FileRef], counts: dict[str, int]) -> Output:
    """The best row of each item that was found, and how many documents hold it."""
    rows = pa.concat_tables([read_table(run, ref.path) for ref in found])
    rows = rows.take(np.lexsort((rows["id"].to_numpy(False), -rows["share"].to_numpy(), rows["item"].to_numpy())))
    items, first, documents = np.unique(rows["item"].to_numpy(), return_index=True, return_counts=True)
    best = rows.take(first).append_column("documents", pa.array(documents, pa.int64()))
    summary = {**counts, "found": len(items), "documents": pc.count_distinct(rows["id"]).as_py()}
    content = json.dumps(summary, indent=2, sort_keys=True).encode() + b"\n"
    return Output({f"{FOLDER}/{task}.parquet": best, f"{FOLDER}/{task}.json": content}, kept=len(items), counts=counts)


def with_overlap(summary: dict[str, Any], table: pa.Table, stage: Storage, task: str, metrics: Sequence[str]) -> dict[str, Any]:
    """A task's summary with `overlap`: what `find_overlap` counted, how many scored items were found, the scores of the others."""
    counts = json.loads(stage.read_bytes(f"{FOLDER}/{task}.json"))
    found = read_table(stage, f"{FOLDER}/{task}.parquet", ["item"])["item"]
    seen = pc.is_in(table["item"], found.combine_chunks())
    hit = pc.sum(seen).as_py() or 0
    others = scores(table.filter(pc.invert(seen)), metrics)[0] if 0 < hit < table.num_rows else None
    return {**summary, "overlap": {**counts, "scored": hit, "without": others}}
