"""Trains a proxy: a small model on the tokens of one draw of a variant, and measures it on the reference documents.

The same seed gives the variants of a draw the same initial weights and the same order of rows. A training takes one CPU thread, so any
number of them can run side by side with the same bits.
"""

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from corpusmill.ablate.config import BANDS, CHOICES, FEWEST_STEPS, REPORT, ProxyConfig
from corpusmill.ablate.corpora import MOST_DOCUMENTS, answers_in
from corpusmill.ablate.draws import Drawn, DrawnDocuments, Integers, drawn_tokens
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.special_tokens import PAD_ID
from corpusmill.pipeline.stage import Output, Task, Worker
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_bytes import TokenBytes
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.train.compute import deterministic, pick_device
from corpusmill.train.data import IGNORED, TOKENS, Batch, DataShare, to_device
from corpusmill.train.loop import fit
from corpusmill.train.model import Objective, blank_model
from corpusmill.train.options import LoopConfig
from corpusmill.train.parallel import ParallelDims
from corpusmill.train.parallel.model import ParallelModel

#: Points of a learning curve, and the reference documents that each is measured on.
CURVE, CURVE_DOCUMENTS = 6, 8
#: Tokens of a document before the paragraphs that are chosen from, at least, and of each paragraph.
BEFORE, CHOSEN = 256, 64


@dataclass(frozen=True)
class Judge:
    """A reference document: its first tokens, up to the model's context, whether each is measured, and the UTF-8 bytes of each."""

    name: str
    source: str
    ids: Integers
    measured: npt.NDArray[np.bool_]
    sizes: Integers


class References:
    """The reference documents as tokens. Of a benchmark's item the tokens of its right answer alone are measured."""

    def __init__(self, folder: str, tokenizer: bytes, sha256: str, context: int):
        self.shards, self.bytes = TokenShards(folder, tokenizer_sha256=sha256), TokenBytes(tokenizer)
        self.documents = [judge for number in range(len(self.shards.shards)) for judge in self._documents(number, context)]
        self.choices = list(self._choices())

    def _documents(self, number: int, context: int) -> Iterator[Judge]:
        tokens, index = np.asarray(self.shards.tokens(number), np.int64), self.shards.index(number)
        answers = {path: answers_in(path) for path in pc.unique(index["source"]).to_pylist()}
        for row in index.select(["id", "source", "offset", "first", "tokens"]).to_pylist():
            ids = tokens[row["first"] : row["first"] + row["tokens"]]
            sizes = np.where(ids < len(self.bytes.sizes), self.bytes.sizes[np.minimum(ids, len(self.bytes.sizes) - 1)], 0)
            measured = sizes > 0
            if length := answers[row["source"]].get(row["offset"]):
                measured &= np.cumsum(sizes[::-1])[::-1] <= length
                ids, sizes, measured = ids[-context:], sizes[-context:], measured[-context:]
            yield Judge(row["id"], row["source"], ids[:context], measured[:context], sizes[:context])

    def _choices(self) -> Iterator[tuple[Judge, Integers, list[Integers]]]:
        """Yields documents with their beginnings, and CHOSEN tokens each of three paragraphs (CHOICES)."""
        for source in dict.fromkeys(judge.source for judge in self.documents):
            found = []
            for judge in (judge for judge in self.documents if judge.source == source and judge.measured[:-1].all()):
                begins = [n + 1 for n, id in enumerate(judge.ids.tolist()) if b"\n" in self.bytes.bytes_of[id]]
                first = next((begin for begin in begins if begin >= BEFORE), len(judge.ids))
                later = next((begin for begin in begins if begin >= first + 3 * CHOSEN), len(judge.ids))
                if later + CHOSEN < len(judge.ids):
                    found.append((judge, judge.ids[:first], judge.ids[first : first + CHOSEN], judge.ids[later : later + CHOSEN]))
            for number, (judge, before, follows, later_on) in enumerate(found if len(found) > 1 else []):
                yield judge, before, [follows, later_on, found[number - 1][2]]

    def _nats(self, model: ParallelModel, device: torch.device, rows: Sequence[Integers]) -> list[npt.NDArray[np.float64]]:
        """Returns the nats of each token of some rows, each as a document of its own, in the order of the rows."""
        order = sorted(range(len(rows)), key=lambda number: (len(rows[number]), number))
        found: dict[int, npt.NDArray[np.float64]] = {}
        while order:
            size = max(1, TOKENS // len(rows[order[-1]]))
            some, order = order[-size:], order[:-size]
            ids = np.full((len(some), len(rows[some[-1]]) + 1), PAD_ID, np.int64)
            ids[:, 0] = self.shards.end_of_text_id
            targets = np.full(ids[:, 1:].shape, IGNORED, np.int64)
            for place, number in enumerate(some):
                ids[place, 1 : len(rows[number]) + 1] = targets[place, : len(rows[number])] = rows[number]
            nats = model.nats(torch.from_numpy(ids[:, :-1].copy()).to(device), torch.from_numpy(targets).to(device), None)
            found |= {number: nats[place, : len(rows[number])].double().cpu().numpy() for place, number in enumerate(some)}
        return [found[number] for number in range(len(rows))]

    @torch.no_grad()
    def nats(self, model: ParallelModel, device: torch.device, some: int = 0) -> pa.Table:
        """Measures a model on all documents, or on about `some` of them. Returns rows as in REPORT."""
        documents = self.documents[:: max(1, len(self.documents) // some)] if some else self.documents
        rows: dict[str, list[Any]] = {name: [] for name in REPORT.names}
        for judge, nats in zip(documents, self._nats(model, device, [judge.ids for judge in documents]), strict=True):
            for band, (begin, end) in enumerate(BANDS):
                measured = judge.measured[begin:end]
                values = (
                    judge.name,
                    judge.source,
                    band,
                    nats[begin:end][measured].sum(),
                    measured.sum(),
                    judge.sizes[begin:end][measured].sum(),
                )
                for name, value in zip(REPORT.names, values, strict=True):
                    rows[name].append(value)
        table = pa.table(rows, schema=REPORT)
        return table.filter(pc.greater(table["tokens"], 0))

    @torch.no_grad()
    def choose(self, model: ParallelModel, device: torch.device) -> pa.Table:
        """Returns how much each document makes its three paragraphs more likely (CHOICES)."""
        alone = iter(self._nats(model, device, [part for _, _, parts in self.choices for part in parts]))
        after = iter(self._nats(model, device, [np.concatenate([before, part]) for _, before, parts in self.choices for part in parts]))
        rows = [
            (judge.name, judge.source, *(float(next(alone).sum() - next(after)[len(before) :].sum()) for _ in parts))
            for judge, before, parts in self.choices
        ]
        return pa.table({name: [row[place] for row in rows] for place, name in enumerate(CHOICES.names)}, schema=CHOICES)


class _Proxy(Objective):
    """Next-token prediction on given tokens, row by row in their order. A document sees those before it in its row, as in GPT-2: rows are
    as long as most documents, and a mask takes as long as everything else."""

    def __init__(self, ids: Integers, context: int, batch: int, device: torch.device):
        self.rows = np.lib.stride_tricks.sliding_window_view(ids, context + 1)[::context]
        self.batch, self.device = batch, device

    def batches(self, step: int, share: DataShare) -> Iterator[Batch]:
        rows = torch.from_numpy(self.rows[step * self.batch : (step + 1) * self.batch].copy())
        yield to_device((rows[:, :-1], rows[:, 1:], None), self.device)


class ProxyWorker(Worker):
    """Trains one proxy a task. Its params: the token `folders` it reads with their `weights`, its `draw` and `steps`.

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
        table, choices, facts = self.trained(task.params)
        files = {
            f"{task.key}.parquet": table,
            f"{task.key}-choices.parquet": choices,
            f"{task.key}.json": json.dumps(facts, indent=1).encode() + b"\n",
        }
        return Output(files, counts={"tokens": facts["tokens"]})

    def trained(self, params: Mapping[str, Any]) -> tuple[pa.Table, pa.Table, dict[str, Any]]:
        """Trains a proxy. Returns its nats by reference document (REPORT), its choices (CHOICES), and facts about the training."""
        config, device = self.config, pick_device()
        arch = config.model.architecture(self.references.shards.description.vocabulary_size)
        trained = params["steps"] * config.batch * arch.context
        drawn = self._tokens(params, trained + 1, arch.context)
        rows = _Proxy(drawn.ids, arch.context, config.batch, device)
        loop = LoopConfig(steps=params["steps"], optimizer=config.optimizer, save_every=max(params["steps"], 1), keep=1, threads=1)
        curve: list[dict[str, float]] = []

        def evaluate(model: ParallelModel, done: int) -> dict[str, Any]:
            curve.append({"step": done, "bits_per_byte": per_byte(self.references.nats(model, device, CURVE_DOCUMENTS))})
            return {}

        with tempfile.TemporaryDirectory(prefix="corpusmill-ablate-") as folder:
            result = fit(
                blank_model(arch), rows, loop, dims=ParallelDims.single(device), start=params["draw"],
                state=Path(folder) / "states", log=Path(folder) / "log.jsonl", evaluate=evaluate,
                evaluate_every=max(1, -(-params["steps"] // CURVE)), title="ablate",
            )  # fmt: skip
        with deterministic(1):
            table, choices = (measure(result.parallel_model, device) for measure in (self.references.nats, self.references.choose))
        if not np.isfinite(table["nats"].to_numpy()).all():
            raise InputError(f"ablate: a proxy of draw {params['draw']} has diverged; give smaller learning rates.")
        facts = {
            "draw": params["draw"],
            "tokens": result.tokens,
            "there": drawn.there,
            "epochs": trained / max(drawn.there, 1),
            "documents": drawn.documents,
            "hosts": drawn.hosts,
            "skipped": result.skipped,
        }
        return table, choices, {**facts, "loss": result.loss, "curve": curve}

    def _tokens(self, params: Mapping[str, Any], wanted: int, longest: int) -> Drawn:
        """Returns what a training reads, in its order. Raises InputError if its draw has nothing."""
        sources: list[tuple[DrawnDocuments, float, pa.ChunkedArray | None]] = [
            (self._documents(folder), weight, None) for folder, weight in zip(params["folders"], params["weights"], strict=True)
        ]
        if mixture := params.get("mixture"):
            table, ((documents, _, _),) = read_table(self.run, params["components"]), sources
            sources = [(documents, weight, table.filter(pc.equal(table["component"], name))["id"]) for name, weight in mixture.items()]
        drawn = drawn_tokens(sources, params["draw"], wanted, longest)
        if not drawn.there:
            raise InputError(f"ablate.draws: draw {params['draw']} of {params['folders'][0]} has no document; give fewer draws.")
        return drawn

    def _documents(self, folder: str) -> DrawnDocuments:
        if folder not in self.documents:
            shards = TokenShards(folder, tokenizer_sha256=self.sha256)
            self.documents[folder] = DrawnDocuments(shards, self.groups, self.config.draws)
        return self.documents[folder]


def per_byte(table: pa.Table) -> float:
    """Returns bits per byte over all documents of a table (REPORT) that were measured."""
    return float(pc.sum(table["nats"]).as_py() / np.log(2) / max(pc.sum(table["utf8_bytes"]).as_py(), 1))


#: Steps by which a training step is timed.
TIMED = 12


def workers_of(run: StageRun) -> int:
    """Returns how many trainings run side by side: one on each GPU, else one on each worker."""
    return torch.cuda.device_count() or run.engine.known_workers() or 1


def shortest_seconds(config: ProxyConfig, vocabulary: int) -> float:
    """Returns about how many seconds the shortest training and its measurement take on this machine, on tokens of no meaning."""
    arch, device = config.model.architecture(vocabulary), pick_device()
    ids = np.random.default_rng(0).integers(0, vocabulary, (TIMED + 1) * config.batch * arch.context + 1)
    rows = _Proxy(ids, arch.context, config.batch, device)
    with tempfile.TemporaryDirectory(prefix="corpusmill-ablate-") as folder:
        started = time.perf_counter()
        loop = LoopConfig(steps=TIMED, optimizer=config.optimizer, save_every=TIMED, keep=1, threads=1)
        fit(blank_model(arch), rows, loop, dims=ParallelDims.single(device), start=0, state=Path(folder) / "states",
            log=Path(folder) / "log.jsonl", title="ablate")  # fmt: skip
    step = (time.perf_counter() - started) / TIMED
    return step * (FEWEST_STEPS + MOST_DOCUMENTS / config.batch / 3)  # a forward pass takes a third of a step


def step_seconds(config: ProxyConfig, run: Storage, params: dict[str, Any], folder: str) -> tuple[float, float]:
    """Times short trainings on the tokens in `folder`. Returns the seconds of a training without its steps, and those of a step."""
    worker = ProxyWorker(config, run, params)
    worker.setup()
    seconds = []
    for steps in (TIMED, 3 * TIMED):
        started = time.perf_counter()
        worker.trained({"folders": [folder], "weights": [1.0], "draw": 0, "steps": steps})
        seconds.append(time.perf_counter() - started)
    step = max((seconds[1] - seconds[0]) / (2 * TIMED), 1e-6)
    return seconds[0] - TIMED * step, step
