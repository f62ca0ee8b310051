"""Trains a proxy: a small model on the tokens of one draw of a variant, and measures it on the reference documents.

The same seed gives the variants of a draw the same initial weights and the same order of rows. A training takes one CPU thread, so any
number of them can run side by side with the same bits.
"""

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from corpusmill.ablate.config import REPORT, ProxyConfig
from corpusmill.ablate.corpora import answers_in
from corpusmill.ablate.draws import DrawnDocuments, Integers, drawn_tokens
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.stage import Output, Task, Worker
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_bytes import TokenBytes
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.train.compute import deterministic, pick_device
from corpusmill.train.data import Batch, DataShare, Validation, needed, to_batch, to_device
from corpusmill.train.loop import fit
from corpusmill.train.model import Objective, blank_model
from corpusmill.train.options import LoopConfig
from corpusmill.train.parallel import ParallelDims
from corpusmill.train.parallel.model import ParallelModel

#: Points of a learning curve.
CURVE = 6
#: Windows of the references that each point is measured on.
CURVE_WINDOWS = 16


class References:
    """The reference documents as tokens, with their sets. Of a benchmark's item the tokens of its right answer alone are measured."""

    def __init__(self, folder: str, tokenizer: bytes, sha256: str, context: int):
        self.shards, sizes = TokenShards(folder, tokenizer_sha256=sha256), TokenBytes(tokenizer).sizes
        self.validation = Validation(self.shards, sizes, context, document_mask=True)
        self.index = pa.concat_tables([self.shards.index(number) for number in range(len(self.shards.shards))])
        self.measured = np.concatenate([self._measured(number, sizes) for number in range(len(self.shards.shards))])

    def _measured(self, number: int, sizes: Integers) -> npt.NDArray[np.bool_]:
        """Returns whether each token of a shard is measured: all of a text, and of an item those that lie in its answer."""
        tokens, index = np.asarray(self.shards.tokens(number)), self.shards.index(number)
        found = np.ones(len(tokens), bool)
        answers = {path: answers_in(path) for path in pc.unique(index["source"]).to_pylist()}
        for row in index.select(["source", "offset", "first", "tokens"]).to_pylist():
            if length := answers[row["source"]].get(row["offset"]):
                ids = tokens[row["first"] : row["first"] + row["tokens"]]
                to_the_end = np.cumsum(sizes[ids][::-1])[::-1]
                found[row["first"] : row["first"] + row["tokens"]] = to_the_end <= length
        return found

    def nats(self, model: ParallelModel, device: torch.device, windows: int = 0) -> pa.Table:
        """Measures a model on all documents, or on some windows of them. Returns a row a document (REPORT)."""
        sums = self.validation.sums(model, device, windows=windows, only=self.measured)
        columns = [self.index["id"], self.index["source"], sums.nats, sums.tokens.astype(np.int64), sums.sizes.astype(np.int64)]
        return pa.table([pa.chunked_array([column]) if isinstance(column, np.ndarray) else column for column in columns], schema=REPORT)


class _Proxy(Objective):
    """Next-token prediction on given tokens, row by row in their order."""

    def __init__(self, ids: Integers, context: int, batch: int, end_of_text: int, device: torch.device):
        self.rows = np.lib.stride_tricks.sliding_window_view(ids, context + 1)[::context]
        self.batch, self.end_of_text, self.device = batch, end_of_text, device

    def batches(self, step: int, share: DataShare) -> Iterator[Batch]:
        rows = self.rows[step * self.batch : (step + 1) * self.batch].copy()
        ids, targets, segments = to_batch(rows, document_mask=True, end_of_text=self.end_of_text)
        yield to_device((ids, targets, needed(segments)), self.device)


class ProxyWorker(Worker):
    """Trains one proxy a task. Its params: the token `folders` it reads with their `weights`, its `draw`, `steps` and rate `factor`.

    With `mixture`, the weights of components, it reads the documents of each component (COMPONENTS in the file `components`) in turn.
    """

    memory_mb = 1500
    config: ProxyConfig

    def setup(self) -> None:
        self.tokenizer, self.sha256 = self.params["tokenizer"], self.params["tokenizer_sha256"]
        context = self.config.model.architecture(1).context
        content = Storage(self.tokenizer).read_bytes("tokenizer.json")
        self.references = References(self.params["references"], content, self.sha256, context)
        self.groups = read_table(self.run, self.params["groups"])
        self.documents: dict[str, DrawnDocuments] = {}

    def process(self, task: Task) -> Output:
        table, facts = self.trained(task.params)
        files = {f"{task.key}.parquet": table, f"{task.key}.json": json.dumps(facts, indent=1).encode() + b"\n"}
        return Output(files, counts={"tokens": facts["tokens"]})

    def trained(self, params: Mapping[str, Any]) -> tuple[pa.Table, dict[str, Any]]:
        """Trains a proxy. Returns its nats by reference document (REPORT), and facts about the training."""
        config, device = self.config, pick_device()
        arch = config.model.architecture(self.references.shards.description.vocabulary_size)
        trained = params["steps"] * config.batch * arch.context
        ids, have = self._tokens(params, trained + 1, arch.context)
        rows = _Proxy(ids, arch.context, config.batch, self.references.shards.end_of_text_id, device)
        optimizer = config.optimizer.model_copy(
            update={name: getattr(config.optimizer, name) * params["factor"] for name in ("lr", "muon_lr")}
        )
        loop = LoopConfig(steps=params["steps"], optimizer=optimizer, save_every=max(params["steps"], 1), keep=1, threads=1)
        curve: list[dict[str, float]] = []

        def evaluate(model: ParallelModel, done: int) -> dict[str, Any]:
            curve.append({"step": done, "bits_per_byte": per_byte(self.references.nats(model, device, CURVE_WINDOWS))})
            return {}

        with tempfile.TemporaryDirectory(prefix="corpusmill-ablate-") as folder:
            result = fit(
                blank_model(arch), rows, loop, dims=ParallelDims.single(device), start=params["draw"],
                state=Path(folder) / "states", log=Path(folder) / "log.jsonl", evaluate=evaluate,
                evaluate_every=max(1, -(-params["steps"] // CURVE)), title="ablate",
            )  # fmt: skip
        with deterministic(1):
            table = self.references.nats(result.parallel_model, device)
        if not np.isfinite(table["nats"].to_numpy()).all():
            raise InputError(f"ablate: a proxy of draw {params['draw']} has diverged; give smaller learning rates.")
        facts = {
            "draw": params["draw"],
            "tokens": result.tokens,
            "there": have,
            "epochs": trained / max(have, 1),
            "skipped": result.skipped,
        }
        return table, {**facts, "loss": result.loss, "curve": curve}

    def _tokens(self, params: Mapping[str, Any], wanted: int, longest: int) -> tuple[Integers, int]:
        """Returns the tokens that a training reads, in their order, and how many its draw has. Raises InputError if it has none."""
        sources: list[tuple[DrawnDocuments, float, pa.ChunkedArray | None]] = [
            (self._documents(folder), weight, None) for folder, weight in zip(params["folders"], params["weights"], strict=True)
        ]
        if mixture := params.get("mixture"):
            table, ((documents, _, _),) = read_table(self.run, params["components"]), sources
            sources = [(documents, weight, table.filter(pc.equal(table["component"], name))["id"]) for name, weight in mixture.items()]
        ids, have = drawn_tokens(sources, params["draw"], wanted, longest)
        if not have:
            raise InputError(f"ablate.draws: draw {params['draw']} of {params['folders'][0]} has no document; give fewer draws.")
        return ids, have

    def _documents(self, folder: str) -> DrawnDocuments:
        if folder not in self.documents:
            shards = TokenShards(folder, tokenizer_sha256=self.sha256)
            self.documents[folder] = DrawnDocuments(shards, self.groups, self.config.draws + 1)
        return self.documents[folder]


def per_byte(table: pa.Table) -> float:
    """Returns bits per byte over all documents of a table (REPORT) that were measured."""
    return float(pc.sum(table["nats"]).as_py() / np.log(2) / max(pc.sum(table["utf8_bytes"]).as_py(), 1))


#: Steps by which a training step is timed.
TIMED = 12


def gpus() -> int:
    return torch.cuda.device_count()


def step_seconds(config: ProxyConfig, run: Storage, params: dict[str, Any], folder: str) -> tuple[float, float]:
    """Times short trainings on the tokens in `folder`. Returns the seconds of a training without its steps, and those of a step."""
    worker = ProxyWorker(config, run, params)
    worker.setup()
    seconds = []
    for steps in (TIMED, 3 * TIMED):
        started = time.perf_counter()
        worker.trained({"folders": [folder], "weights": [1.0], "draw": 0, "factor": 1.0, "steps": steps})
        seconds.append(time.perf_counter() - started)
    step = max((seconds[1] - seconds[0]) / (2 * TIMED), 1e-6)
    return seconds[0] - TIMED * step, step
