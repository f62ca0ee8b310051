"""Preference alignment on one process: the model, what is learned from, the loop around the objective, and what is left behind."""

from dataclasses import astuple
from functools import partial
from typing import Any

import pyarrow as pa

from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train.align import PAIRS_FILE, AlignConfig
from corpusmill.train.completion_objective import CompletionObjective
from corpusmill.train.device import deterministic
from corpusmill.train.logprobs import RowForm
from corpusmill.train.loop import fit
from corpusmill.train.numbered import Numbered
from corpusmill.train.order import steps_of
from corpusmill.train.pair_objective import PairObjective
from corpusmill.train.parallel.computation import LocalModel, ParallelModel
from corpusmill.train.parallel.layout import ParallelDims
from corpusmill.train.precision import chosen
from corpusmill.train.preference_data import pairs_from_table, prepare_pair
from corpusmill.train.reference import References, other_model
from corpusmill.train.template import load_chat
from corpusmill.train.tuned import keep_beside, leave_model, start_from
from corpusmill.train.tuning import StartModel
from corpusmill.train.workplace import LOG, CheckpointDir


def train(
    dims: ParallelDims, progress: Progress | None, config: dict[str, Any], run: str, folder: str, name: str, work: str, weights: str
) -> dict[str, Any]:  # fmt: skip
    """What every process does; the first one leaves the folder `work/model` and returns what `metrics.json` holds. `weights` identifies
    the reference model, whose log-probabilities are kept beside `work`."""
    pairs = read_table(Storage(run).child("align"), PAIRS_FILE)
    aligned = Alignment(AlignConfig.model_validate(config), StartModel(name, folder), pairs, dims)
    place = CheckpointDir(work, f"{run}/align/{LOG}")
    with deterministic(aligned.loop.threads):
        aligned.measure_reference(work.rpartition("/")[0], weights)
    return aligned.train(place, progress)


class Alignment:
    """A model, its pairs or completions as tokens in an objective, and the configuration."""

    def __init__(self, config: AlignConfig, start: StartModel, pairs: pa.Table, dims: ParallelDims):
        self.config, self.start, self.dims = config, start, dims
        self.encoder = load_chat(start.storage)
        self.model = start_from(start.folder, dims, config, "align")
        context = self.model.arch.context
        prepared = [prepare_pair(pair, self.encoder, context) for pair in pairs_from_table(pairs)]
        learned, held_out = ([p for p in prepared if p.pair.held_out == aside] for aside in (False, True))
        self.form = RowForm(dims.config.tensor, dims.config.pipeline > 1)
        numbered = partial(Numbered, context=context, device=dims.device, form=self.form)
        objective = CompletionObjective if config.loss == "kto" else PairObjective
        self.objective = objective(config, learned, held_out, numbered, dims)
        self.counts = {"pairs": len(learned), "held_out_pairs": len(held_out)}
        steps = min(config.loop.steps, steps_of(config.epochs, config.batch, self.objective.order.examples))
        self.loop = config.loop.model_copy(update={"steps": steps})
        self.measured: dict[str, float] = {}  # on held-out pairs, after the latest step that was looked at

    def measure_reference(self, cache: str, weights: str) -> None:
        """The reference's log-probabilities, from the folder `cache` (a path or URL) where they are there. Where it is no model of
        its own, the model as it is loaded is the reference."""
        if not self.objective.needs_reference:
            return
        config, context = self.config, self.model.arch.context
        device, precision = self.dims.device, self.loop.precision
        computed = [device.type, chosen(device, precision), self.dims.share.of, *astuple(self.form)]
        key = [weights, self.encoder.fingerprint, context, config.batch, config.micro_batch, config.seed, *computed]
        model = self.model if config.reference is None else other_model(config.reference, self.encoder, context, device)
        references = References(cache, key, LocalModel(model, precision), self.dims)
        self.objective.measure_reference(references, self.loop.steps)

    def train(self, place: CheckpointDir, progress: Progress | None = None) -> dict[str, Any]:
        """Trains, and leaves the model; returns what `metrics.json` holds."""
        if self.dims.is_main:
            keep_beside(self.model, self.encoder, place)
        with deterministic(self.loop.threads):
            before = self.objective.measure_held_out(LocalModel(self.model, self.loop.precision))
        result = fit(
            self.model, self.objective, self.loop, dims=self.dims, state=place.states, log=place.log_file,
            describe=self.objective.describe, evaluate=self.evaluate if before else None, evaluate_every=self.config.evaluate_every,
            progress=progress, title="align",
        )  # fmt: skip
        if not self.measured:  # killed after the last step
            with deterministic(self.loop.threads):
                self.measured = self.objective.measure_held_out(result.parallel_model)
        leave_model(self.model, self.start, result, self.dims, self.config, place)
        return {
            **self.counts,
            "loss": self.config.loss,
            "beta": self.config.beta,
            "steps": result.steps,
            "skipped_steps": result.skipped,
            "train_loss": result.loss,
            "held_out_before": before or None,
            "held_out_after": self.measured or None,
        }

    def evaluate(self, parallel_model: ParallelModel, done: int) -> dict[str, float]:
        """What goes into the log."""
        self.measured = self.objective.measure_held_out(parallel_model)
        return {f"held_out_{name}": value for name, value in self.measured.items()}
