"""The stage `ablate`: which variant of a corpus makes the better model?

Steps: read the variants; hold out documents of their union, and sample texts for one tokenizer; cut the reference documents into passages,
and make token shards of each variant without the documents that hold such a passage. Measure a training step, and plan how long a training
may be. Train proxies, draw by draw; look at the differences after half of the draws and at the end. Write measurements, result and page.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from corpusmill.ablate import corpora, mixtures
from corpusmill.ablate.cohesion import COHESION_FILE, cohesion
from corpusmill.ablate.config import FEWEST_STEPS, AblateConfig, AblatePlan, ProxyConfig, seconds_of
from corpusmill.ablate.prepare import Prepared, prepare
from corpusmill.ablate.result import Judged, compare, compare_texts, judging, kind_of, mean_per_byte, read_scores, result
from corpusmill.ablate.statistics import error_rates
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.extras import TRAINING
from corpusmill.pipeline.manifest import FileRef, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.stage import Output, Stage, Task
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import SHARDS_FILE, TokenShards

#: The share of a budget that is planned; the rest is for what comes before and after the trainings.
PLANNED = 0.85
#: A budget is not used to read tokens more often than this: up to four times they are worth about as much as new ones (Muennighoff et al.,
#: arXiv 2305.16264). A training that reads its tokens more often than MOST_EPOCHS says nothing about the variant.
PLANNED_EPOCHS, MOST_EPOCHS = 4, 20


@dataclass(frozen=True)
class ProxyInput:
    """What a proxy reads: folders of token shards with their weights; or one folder with the weights of its components."""

    folders: tuple[str, ...]
    weights: tuple[float, ...]
    mixture: dict[str, float] | None = None

    def params(self) -> dict[str, Any]:
        found: dict[str, Any] = {"folders": list(self.folders), "weights": list(self.weights)}
        return found | ({"mixture": self.mixture, "components": "ablate/components.parquet"} if self.mixture else {})


class AblateStage(Stage):
    """Publishes `trainings/`, `measurements.parquet`, `result.json` and `page.html`."""

    name: ClassVar[str] = "ablate"
    Config = AblateConfig
    config: AblateConfig

    def libraries(self) -> tuple[str, ...]:
        return (*TRAINING, "scipy", *(("sklearn",) if self.config.mixtures is not None else ()))

    def execute(self, run: StageRun) -> None:
        config = self.config
        variants = [corpora.read_variant(name, given, partial(corpora.of_recipe, run)) for name, given in config.variants.items()]
        if config.leave_one_out:
            variants += corpora.without_each_rule(run, variants)
        if config.mixtures is None:
            corpora.require_different(variants)
        elif len(variants) != 1:
            raise InputError("ablate.mixtures: give one variant, whose components are mixed.")
        contents = [variant.contents for variant in variants]
        self._require_time(run, len(variants))
        prepared = prepare(run, config, variants)
        run.once("cohesion", [], lambda _: Output({COHESION_FILE: cohesion(variants)}), {"contents": contents}, Config())
        plan = self._plan(run, prepared, len(variants))
        self._require_enough(prepared, plan)
        sources = {name: ProxyInput((folder,), (1.0,)) for name, folder in prepared.folders.items()}
        search = None
        if config.mixtures is not None:
            sources, search = self._search(run, prepared, plan, variants[0].name)
        trained, found, rates = self._compare(run, prepared, plan, sources)
        files = [row.ref(self.name, output.path) for row in trained.values() for output in row.outputs]
        run.once(
            "result", sorted(files, key=lambda ref: ref.path),
            lambda _: result(run, config, variants, prepared, plan, trained, found, rates, search),
            params={"contents": contents, "mixture": search},
        )  # fmt: skip

    def _compare(
        self, run: StageRun, prepared: Prepared, plan: AblatePlan, sources: Mapping[str, ProxyInput]
    ) -> tuple[dict[tuple[str, int], TaskRow], dict[str, Judged], tuple[float, float]]:
        """Trains all variants on half of the draws, and those that are still undecided on the others. Returns the rows of all trainings by
        variant and draw, the differences from the first variant, and the error rates of both looks."""
        config, (first, *others) = self.config, sources
        half, left = max(2, config.draws // 2), list(others)
        rates = error_rates(config.confidence, len(others))
        found: dict[str, Judged] = {}
        texts = read_table(run.storage, COHESION_FILE)
        trained: dict[tuple[str, int], TaskRow] = {}
        for begin, end in ((0, half), (half, config.draws)):
            if left and begin < end:
                self._train(run, prepared, plan, {name: sources[name] for name in (first, *left)}, range(begin, end), trained)
                scores = read_scores(run.storage, trained, prepared.sets)
                for name in list(left):
                    rate = rates[end == config.draws]
                    found[name] = compare(scores, name, first, judging(prepared.sets), rate) | compare_texts(texts, name, first, rate)
                    if kind_of(found[name], prepared.moved.get(name, 0.0)) in ("better", "worse"):
                        left.remove(name)
        return trained, found, rates

    def _search(self, run: StageRun, prepared: Prepared, plan: AblatePlan, name: str) -> tuple[dict[str, ProxyInput], dict[str, Any]]:
        """Trains a proxy on each of some mixtures, and fits a regression. Returns the natural and the proposed mixture, which are then
        compared as variants are, and what the search has found."""
        from corpusmill.ablate.proxy import ProxyWorker

        options = self.config.mixtures
        assert options is not None
        folder = prepared.folders[name]
        shards = TokenShards(folder, tokenizer_sha256=prepared.sha256)
        made = Storage(folder.removesuffix("/tokens/train"))
        files = sorted(set(pa.concat_tables([shards.index(n).select(["data_file"]) for n in range(len(shards.shards))])[0].to_pylist()))
        made_components = run.once("components", [], lambda _: Output({"components.parquet": mixtures.components(made, files, options.by)}),
                 {"by": options.by, "tokens": [shard.sha256 for shard in shards.shards]}, Config())  # fmt: skip
        inputs = (*_shards([name], prepared), made_components.ref(self.name, "components.parquet"))
        names, natural = mixtures.natural_shares(read_table(run.storage, "components.parquet"), shards)
        weights = mixtures.drawn_weights(natural, options.proxies)

        def source(row: Any) -> ProxyInput:
            return ProxyInput((folder,), (1.0,), {part: float(weight) for part, weight in zip(names, row, strict=True)})

        tasks = [
            Task(f"trainings/mixture-{number:04d}", inputs,
                 {**source(row).params(), "draw": number % self.config.draws, "steps": plan.steps})
            for number, row in enumerate(weights)
        ]  # fmt: skip
        run.map("mixtures", ProxyWorker, tasks, prepared.params(), self._proxy(), gpus=1.0)
        bits = np.array([mean_per_byte(read_table(run.storage, f"{task.key}.parquet"), prepared.sets) for task in tasks])
        fit = mixtures.fitted(weights, bits)
        best = mixtures.proposed(fit, natural)
        described = {
            "by": options.by, "proxies": len(tasks), "regression": fit.name, "error": fit.error, "spread": fit.spread,
            "components": [
                {"component": part, "natural": float(before), "proposed": float(after)}
                for part, before, after in zip(names, natural, best, strict=True)
            ],
            "predicted": {"natural": float(fit.predict(natural[None])[0]), "proposed": float(fit.predict(best[None])[0])},
        }  # fmt: skip
        return {"natural": source(natural), "proposed": source(best)}, described

    # ---- the plan -----------------------------------------------------------------------------------

    def _plan(self, run: StageRun, prepared: Prepared, variants: int) -> AblatePlan:
        """Returns the plan. A step is timed once, so a resumed comparison keeps its plan."""
        config = self.config
        options = config.model_copy(update={"variants": {}, "confidence": 0.95})
        trainings = self._trainings(variants)
        run.once(
            "plan", [], lambda _: Output({"plan.json": json.dumps(asdict(self._timed(run, prepared, trainings))).encode()}),
            {"trainings": trainings, "tokenizer": prepared.sha256}, options,
        )  # fmt: skip
        plan = AblatePlan(**run.storage.read_json("plan.json"))
        if plan.steps < FEWEST_STEPS:
            raise InputError(
                f"ablate.budget: a training would have {plan.steps} steps, from which nothing can be seen; give more time or documents, "
                "fewer draws, or a smaller model."
            )
        return plan

    def _trainings(self, variants: int) -> int:
        mixtures = self.config.mixtures
        return self.config.draws * variants if mixtures is None else mixtures.proxies + 2 * self.config.draws

    def _require_time(self, run: StageRun, variants: int) -> None:
        """Raises InputError for a budget in which no training can show anything, before anything is prepared."""
        config = self.config
        if config.tokens is not None or run.storage.exists("plan.json"):
            return
        from corpusmill.ablate.proxy import shortest_seconds, workers_of

        rounds = -(-self._trainings(variants) // workers_of(run))
        needed = shortest_seconds(self._proxy(), config.vocab_size) * rounds / PLANNED
        if seconds_of(config.budget) < needed:
            raise InputError(
                f"ablate.budget: {config.budget} is too short: {self._trainings(variants)} trainings of {FEWEST_STEPS} steps take about "
                f"{-(-needed // 60):.0f}m here, and fewer steps show nothing; give more time, fewer ablate.draws or a smaller model."
            )

    def _timed(self, run: StageRun, prepared: Prepared, trainings: int) -> AblatePlan:
        from corpusmill.ablate.proxy import step_seconds, workers_of

        config = self.config
        at_once = config.batch * config.model.architecture(1).context
        workers = workers_of(run)
        if config.tokens is not None:
            steps = max(1, config.tokens // at_once)
            return AblatePlan(steps, steps * at_once, None, workers)
        first = next(iter(prepared.folders.values()))
        start, step = step_seconds(self._proxy(), run.run, prepared.params(), first)
        steps = max(0, int((PLANNED * seconds_of(config.budget) / -(-trainings // workers) - start) / step))
        fewest = min(int(tokens.min()) for tokens in prepared.parts.values())
        steps = min(steps, PLANNED_EPOCHS * fewest // at_once)
        return AblatePlan(steps, steps * at_once, step, workers)

    def _require_enough(self, prepared: Prepared, plan: AblatePlan) -> None:
        """Raises InputError for a variant that would be read too often in one of its draws."""
        for name, tokens in prepared.parts.items():
            if (fewest := int(tokens.min())) * MOST_EPOCHS < plan.tokens:
                raise InputError(
                    f"ablate: the variant {name} has {tokens.sum():,} tokens, and {fewest:,} in the smallest of "
                    f"{self.config.draws} draws, fewer than a {MOST_EPOCHS}th of the {plan.tokens:,} of a training; give fewer draws, "
                    "fewer tokens, or more documents."
                )

    # ---- trainings ----------------------------------------------------------------------------------

    def _proxy(self) -> ProxyConfig:
        config = self.config
        rates = {name: getattr(config.optimizer, name) * config.rate for name in ("lr", "muon_lr")}
        optimizer = config.optimizer.model_copy(update=rates)
        return ProxyConfig(model=config.model, optimizer=optimizer, batch=config.batch, draws=config.draws)

    def _train(
        self, run: StageRun, prepared: Prepared, plan: AblatePlan, sources: Mapping[str, ProxyInput], draws: range,
        trained: dict[tuple[str, int], TaskRow],
    ) -> None:  # fmt: skip
        """Trains the proxies of some variants on some draws, and adds their rows to `trained`."""
        from corpusmill.ablate.proxy import ProxyWorker

        keys = [(name, draw) for draw in draws for name in sources]
        tasks = [
            Task(
                f"trainings/{name}-{draw:02d}", _shards([name if name in prepared.folders else next(iter(prepared.folders))], prepared),
                {**sources[name].params(), "draw": draw, "steps": plan.steps},
            )
            for name, draw in keys
        ]  # fmt: skip
        rows = run.map(f"train from draw {draws.start + 1}", ProxyWorker, tasks, prepared.params(), self._proxy(), gpus=1.0)
        trained |= zip(keys, rows, strict=True)

    def summary(self, run: StageRun) -> dict[str, str]:
        found = run.storage.read_json("result.json")
        sentences = {row["variant"]: row["sentence"] for row in found["variants"][1:]}
        return {**sentences, "page": run.storage.path("page.html")}


def _shards(names: Sequence[str], prepared: Prepared) -> tuple[FileRef, ...]:
    """Returns the lists of files and hashes of some variants' token shards, and of the references', and the groups."""
    found = []
    for folder in [*(prepared.folders[name] for name in names), prepared.references]:
        content = Storage(folder).read_bytes(SHARDS_FILE)
        found.append(FileRef(f"{folder}/{SHARDS_FILE}", hashlib.sha256(content).hexdigest(), len(content)))
    return (*found, prepared.groups)
