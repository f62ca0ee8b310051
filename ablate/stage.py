"""The stage `ablate`: which variant of a corpus makes the better model?

Steps: read the variants; hold out documents of their union, and sample texts for one tokenizer; cut the reference documents into passages,
and make token shards of each variant without the documents that hold such a passage. Measure a training step, and plan how long a training
may be. Find a learning rate on a neutral mixture of all variants. Train proxies, draw by draw; look at the differences after half of the
draws and at the end. Write measurements, result and page.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from corpusmill.ablate import corpora, mixtures
from corpusmill.ablate.corpora import HELD_OUT, Variant
from corpusmill.ablate.draws import DrawnDocuments, groups_of
from corpusmill.ablate.measured import REPORT, ProxyConfig
from corpusmill.ablate.page import page
from corpusmill.ablate.statistics import Bits, PairedDifference, difference, error_rates
from corpusmill.pipeline.config import Config, digest
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.extras import TRAINING
from corpusmill.pipeline.files import expand, file_ref
from corpusmill.pipeline.manifest import FileRef, Manifest, TaskRow
from corpusmill.pipeline.runner import DATA_STAGES, StageRun
from corpusmill.pipeline.shards import Content, read_table
from corpusmill.pipeline.stage import Output, Stage, Task
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import SHARDS_FILE, TokenShards
from corpusmill.pipeline.watch.metrics import documents_of
from corpusmill.train.options import ModelConfig, OptimizerConfig

#: The share of a budget that is planned; the rest is for what comes before and after the trainings.
PLANNED = 0.85
#: A training that reads its tokens more often than this says nothing about the variant.
MOST_EPOCHS = 20


class MixtureSearch(Config):
    """A search for a mixture of the first variant's components."""

    proxies: int = Field(default=64, ge=8, le=10_000, description="Mixtures that are tried, with a proxy each.")
    by: str = Field(default="host", description="The components: `host`, or a column of the documents (of a column of numbers, quarters).")


class AblateConfig(Config):
    """The options of a comparison."""

    variants: dict[str, str] = Field(
        description="What is compared, by name: runs, recipes (.yaml, run on the inputs) or folders of token shards. The first is the "
        "one that the others are compared with."
    )
    references: tuple[str, ...] = Field(
        default=("wikipedia", "brown"),
        description=f"Texts that judge, besides held-out documents: {', '.join(corpora.SHIPPED)} (they ship with packages), or files.",
    )
    held_out: int = Field(default=200, ge=0, description="Documents of the union of all variants that are held out, and judge too.")
    tokenizer: str | None = Field(default=None, description="A tokenizer.json; by default one is trained on texts of all variants.")
    vocab_size: int = Field(default=4096, ge=512, description="Tokens of a tokenizer that is trained.")
    model: ModelConfig = Field(default_factory=lambda: ModelConfig(preset="0.8m"), description="The proxy model.")
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="Its learning rates, before the sweep.")
    batch: int = Field(default=8, ge=1, description="Rows of `model.context` tokens in a step.")
    tokens: int | None = Field(default=None, ge=1, description="Tokens of a training; by default as many as the budget allows.")
    budget: str = Field(default="30m", description="Time for all trainings on this machine: 30m, 2h.")
    draws: int = Field(
        default=8, ge=2, le=64, description="Parts of the documents, each with a seed; every variant trains one proxy on each."
    )
    rates: tuple[float, ...] = Field(
        default=(0.5, 1.0, 2.0), min_length=1, description="Factors of the learning rates that are tried on a neutral mixture."
    )
    leave_one_out: bool = Field(
        default=False, description="Compare the run, the only variant, with what it would be without each rule of its filter."
    )
    mixtures: MixtureSearch | None = Field(default=None, description="Search for better weights of the components of the only variant.")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="How often all intervals hold together.")

    @field_validator("budget")
    @classmethod
    def _is_time(cls, given: str) -> str:
        seconds_of(given)
        return given

    @field_validator("variants")
    @classmethod
    def _named(cls, given: dict[str, str]) -> dict[str, str]:
        for name in given:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,60}", name):
                raise ValueError(f"{name!r} is no name of a variant: letters, digits and _.+- only")
        return given

    @model_validator(mode="after")
    def _new_model(self) -> "AblateConfig":
        if self.model.folder is not None:
            raise ValueError("model: proxies are new models, so give a size and not a folder")
        return self


def seconds_of(budget: str) -> float:
    """Returns the seconds of `90s`, `30m` or `2h`. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget)
    if not found or not float(found[1]):
        raise ValueError(f"{budget!r} is no time such as 90s, 30m or 2h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


@dataclass(frozen=True)
class Prepared:
    """What the trainings read: the folders of token shards by variant, of the references, and of the tokenizer, and the groups of
    documents. `sets`: the reference sets by the path of the file that their documents have as source. `documents`: those of each variant
    with their draws. `removed`: how many of each variant hold a reference's passage, or are copies of such."""

    folders: dict[str, str]
    documents: dict[str, DrawnDocuments]
    references: str
    sets: dict[str, str]
    tokenizer: str
    sha256: str
    removed: dict[str, int]
    groups: FileRef

    def params(self) -> dict[str, Any]:
        found = {"references": self.references, "tokenizer": self.tokenizer, "tokenizer_sha256": self.sha256}
        return found | {"groups": self.groups.path}


@dataclass(frozen=True)
class AblatePlan:
    """The size of a training: `steps`, on one `step_seconds` CPU thread or GPU, and all trainings side by side on `workers`."""

    steps: int
    tokens: int
    step_seconds: float | None
    workers: int


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
        return (*TRAINING, "sklearn") if self.config.mixtures is not None else TRAINING

    def execute(self, run: StageRun) -> None:
        config = self.config
        variants = [corpora.read_variant(name, given, partial(corpora.of_recipe, run)) for name, given in config.variants.items()]
        if config.leave_one_out:
            variants += corpora.without_each_rule(run, variants)
        if config.mixtures is None:
            corpora.require_different(variants)
        elif len(variants) != 1:
            raise InputError("ablate.mixtures: give one variant, whose components are mixed.")
        prepared = self._prepare(run, variants)
        plan = self._plan(run, prepared, len(variants))
        self._require_enough(prepared, plan)
        factor, sweep = self._sweep(run, prepared, plan)
        sources = {name: ProxyInput((folder,), (1.0,)) for name, folder in prepared.folders.items()}
        search = None
        if config.mixtures is not None:
            sources, search = self._search(run, prepared, plan, factor, variants[0].name)
        trained, found, rates = self._compare(run, prepared, plan, factor, sources)
        files = [row.ref(self.name, output.path) for row in [*trained.values(), *sweep] for output in row.outputs]
        run.once(
            "result", sorted(files, key=lambda ref: ref.path),
            lambda _: result(run, config, variants, prepared, plan, factor, trained, found, rates, search),
            params={"contents": [variant.contents for variant in variants], "mixture": search},
        )  # fmt: skip

    def _compare(
        self, run: StageRun, prepared: Prepared, plan: AblatePlan, factor: float, sources: Mapping[str, ProxyInput]
    ) -> tuple[dict[tuple[str, int], TaskRow], dict[str, PairedDifference], tuple[float, float]]:
        """Trains all variants on half of the draws, and those that are still undecided on the others. Returns the rows of all trainings by
        variant and draw, the differences from the first variant, and the error rates of both looks."""
        config, (first, *others) = self.config, sources
        half, left = max(2, config.draws // 2), list(others)
        rates = error_rates(config.confidence, len(others))
        found: dict[str, PairedDifference] = {}
        trained: dict[tuple[str, int], TaskRow] = {}
        for begin, end in ((0, half), (half, config.draws)):
            if left and begin < end:
                self._train(run, prepared, plan, factor, {name: sources[name] for name in (first, *left)}, range(begin, end), trained)
                bits = read_bits(run.storage, trained, prepared.sets)
                for name in list(left):
                    found[name] = compare(bits, name, first, judging(prepared.sets), rates[end == config.draws])
                    if found[name].decided:
                        left.remove(name)
        return trained, found, rates

    def _search(
        self, run: StageRun, prepared: Prepared, plan: AblatePlan, factor: float, name: str
    ) -> tuple[dict[str, ProxyInput], dict[str, Any]]:
        """Trains a proxy on each of some mixtures, and fits a regression. Returns the natural and the proposed mixture, which are then
        compared as variants are, and what the search has found."""
        from corpusmill.ablate.proxy import ProxyWorker

        options = self.config.mixtures
        assert options is not None
        folder, shards = prepared.folders[name], prepared.documents[name].shards
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
                 {**source(row).params(), "draw": number % self.config.draws, "steps": plan.steps, "factor": factor})
            for number, row in enumerate(weights)
        ]  # fmt: skip
        run.map("mixtures", ProxyWorker, tasks, prepared.params(), self._proxy(), gpus=1.0)
        bits = np.array([_bits_per_byte(read_table(run.storage, f"{task.key}.parquet"), prepared.sets) for task in tasks])
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

    # ---- preparing ----------------------------------------------------------------------------------

    def _prepare(self, run: StageRun, variants: Sequence[Variant]) -> Prepared:
        config = self.config
        shards = [variant.name for variant in variants if variant.tokens is not None]
        if shards and config.tokenizer is None:
            raise InputError(f"ablate.tokenizer: {shards[0]} has token shards and no texts, so give the tokenizer.json that made them.")
        decides = {"contents": [variant.contents for variant in variants], "held_out": config.held_out}
        sample = run.once("sample", [], lambda _: self._sample(variants), decides, Config())
        held_out = [output.path for output in sample.outputs if output.path.startswith("references/")]
        sets = {HELD_OUT: held_out[0]} if held_out else {}
        named = {corpora.reference_name(given): given for given in config.references}
        for name, given in named.items():
            files = {"file": [] if given in corpora.SHIPPED else [file_ref(path).fingerprint for path in expand(given)]}
            run.once(f"reference-{name}", [], partial(_reference, name, given), files, Config())
            sets[name] = f"references/{name}.jsonl"
        if not sets:
            raise InputError("ablate: no reference set, and no held-out documents, so nothing judges; give one of them.")
        forbidden = [run.storage.path(path.replace("references/", "forbidden/")) for path in sets.values()]
        tokenizer = config.tokenizer
        if tokenizer is None:
            recipe = {"ingest": {}, "tokenizer": {"vocab_size": config.vocab_size}}
            folder = corpora.prepared(run, "tokenizer", recipe, [run.storage.path("sample.jsonl")])
            tokenizer = folder.path("tokenizer/tokenizer.json")
        tokens = {"tokenizer": {"file": tokenizer, "judge": {"compare": []}}, "tokens": {"validation_share": 0.0}}
        measured = [run.storage.path(path) for path in sets.values()]
        references = corpora.prepared(run, "references", {"ingest": {}, **tokens}, measured)
        folders, removed, excluded = {}, dict[str, int](), set[str]()
        for variant in variants:
            if variant.tokens is not None:
                folders[variant.name], removed[variant.name] = variant.tokens, 0
                continue
            dedup = {
                "exact": {"enabled": False}, "minhash": {"enabled": False}, "alarm": "warn",
                "contamination": {"sets": [{"path": path, "fields": {"context": "text"}} for path in forbidden]},
            }  # fmt: skip
            made = corpora.prepared(run, f"variants/{variant.name}", {"ingest": {}, "dedup": dedup, **tokens}, variant.documents)
            folders[variant.name] = made.path("tokens/train")
            left_out = corpora.contaminated(made)
            removed[variant.name] = len(left_out)
            excluded |= left_out
        row = run.once(
            "groups",
            [],
            lambda _: Output({"groups.parquet": groups_of(corpora.copies(run, variants), excluded)}),
            decides | {"excluded": digest(sorted(excluded))},
            Config(),
        )
        groups = read_table(run.storage, "groups.parquet")
        sha256 = hashlib.sha256(references.read_bytes("tokenizer/tokenizer.json")).hexdigest()
        documents = {
            name: DrawnDocuments(TokenShards(folder, tokenizer_sha256=sha256), groups, config.draws + 1) for name, folder in folders.items()
        }
        for name, of in documents.items():
            removed[name] += int((of.part < 0).sum())
        sources = {run.storage.path(path): name for name, path in sets.items()}
        return Prepared(
            folders, documents, references.path("tokens/train"), sources, references.path("tokenizer"), sha256, removed,
            row.ref(self.name, "groups.parquet"),
        )  # fmt: skip

    def _sample(self, variants: Sequence[Variant]) -> Output:
        held_out, sample = corpora.sample_texts([variant for variant in variants if variant.documents], self.config.held_out)
        files: dict[str, Content] = {"sample.jsonl": corpora.json_lines(sample)}
        if held_out:
            files |= _reference_files(HELD_OUT, held_out)
        return Output(files, rows_in=len(held_out) + len(sample), kept=len(held_out) + len(sample))

    # ---- the plan -----------------------------------------------------------------------------------

    def _plan(self, run: StageRun, prepared: Prepared, variants: int) -> AblatePlan:
        """Returns the plan. A step is timed once, so a resumed comparison keeps its plan."""
        config = self.config
        options = config.model_copy(update={"variants": {}, "confidence": 0.95})
        trainings = config.draws * variants
        if config.mixtures is not None:
            trainings = config.mixtures.proxies + 2 * config.draws
        run.once("plan", [], lambda _: Output({"plan.json": _json(asdict(self._timed(run, prepared, trainings)))}), config=options,
                 params={"trainings": trainings, "tokenizer": prepared.sha256})  # fmt: skip
        plan = AblatePlan(**json.loads(run.storage.read_bytes("plan.json")))
        if plan.steps < 20:
            raise InputError(
                f"ablate.budget: a training would have {plan.steps} steps, from which nothing can be seen; give more time or tokens, fewer "
                "draws, or a smaller model."
            )
        return plan

    def _timed(self, run: StageRun, prepared: Prepared, trainings: int) -> AblatePlan:
        from corpusmill.ablate.proxy import gpus, step_seconds

        config = self.config
        context = config.model.architecture(1).context
        workers = gpus() or run.engine.known_workers() or 1
        if config.tokens is not None:
            steps = max(1, config.tokens // (config.batch * context))
            return AblatePlan(steps, steps * config.batch * context, None, workers)
        first = next(iter(prepared.folders.values()))
        start, step = step_seconds(self._proxy(), run.run, prepared.params(), first)
        rounds = -(-trainings // workers) + -(-len(self._factors()) // workers)
        steps = max(0, int((PLANNED * seconds_of(config.budget) / rounds - start) / step))
        return AblatePlan(steps, steps * config.batch * context, step, workers)

    def _factors(self) -> tuple[float, ...]:
        return self.config.rates if len(self.config.rates) > 1 else ()

    def _require_enough(self, prepared: Prepared, plan: AblatePlan) -> None:
        """Raises InputError for a variant that would be read too often in one of its draws."""
        for name, documents in prepared.documents.items():
            if (fewest := int(documents.tokens.min())) * MOST_EPOCHS < plan.tokens:
                raise InputError(
                    f"ablate: the variant {name} has {documents.tokens.sum():,} tokens, and {fewest:,} in the smallest of "
                    f"{self.config.draws + 1} draws, fewer than a {MOST_EPOCHS}th of the {plan.tokens:,} of a training; give fewer draws, "
                    "fewer tokens, or more documents."
                )

    # ---- trainings ----------------------------------------------------------------------------------

    def _proxy(self) -> ProxyConfig:
        config = self.config
        return ProxyConfig(model=config.model, optimizer=config.optimizer, batch=config.batch, draws=config.draws)

    def _sweep(self, run: StageRun, prepared: Prepared, plan: AblatePlan) -> tuple[float, Sequence[TaskRow]]:
        """Trains one proxy by learning rate on equal parts of all variants (a part that no draw has). Returns the factor of the best
        rate, which all variants then have: with a wrong rate, small models rank data wrongly (arXiv 2512.24503)."""
        if not self._factors():
            return self.config.rates[0], []
        from corpusmill.ablate.proxy import ProxyWorker

        weights = [1 / len(prepared.folders)] * len(prepared.folders)
        shared = {"folders": list(prepared.folders.values()), "weights": weights, "draw": self.config.draws, "steps": plan.steps}
        tasks = [
            Task(f"trainings/rate-{factor:g}", _shards(list(prepared.folders), prepared), {**shared, "factor": factor})
            for factor in self._factors()
        ]
        rows = run.map("sweep", ProxyWorker, tasks, prepared.params(), self._proxy(), gpus=1.0)
        scores = [_bits_per_byte(read_table(run.storage, f"{task.key}.parquet"), prepared.sets) for task in tasks]
        return self._factors()[int(np.argmin(scores))], list(rows)

    def _train(
        self, run: StageRun, prepared: Prepared, plan: AblatePlan, factor: float, sources: Mapping[str, ProxyInput], draws: range,
        trained: dict[tuple[str, int], TaskRow],
    ) -> None:  # fmt: skip
        """Trains the proxies of some variants on some draws, and adds their rows to `trained`."""
        from corpusmill.ablate.proxy import ProxyWorker

        keys = [(name, draw) for draw in draws for name in sources]
        tasks = [
            Task(
                f"trainings/{name}-{draw:02d}", _shards([name if name in prepared.folders else next(iter(prepared.folders))], prepared),
                {**sources[name].params(), "draw": draw, "steps": plan.steps, "factor": factor},
            )
            for name, draw in keys
        ]  # fmt: skip
        rows = run.map(f"train from draw {draws.start + 1}", ProxyWorker, tasks, prepared.params(), self._proxy(), gpus=1.0)
        trained |= zip(keys, rows, strict=True)

    def summary(self, run: StageRun) -> dict[str, str]:
        found = json.loads(run.storage.read_bytes("result.json"))
        return {**{row["variant"]: row["sentence"] for row in found["variants"][1:]}, "page": run.storage.path("page.html")}


def _shards(names: Sequence[str], prepared: Prepared) -> tuple[FileRef, ...]:
    """Returns the lists of files and hashes of some variants' token shards, and of the references', and the groups."""
    found = []
    for folder in [*(prepared.folders[name] for name in names), prepared.references]:
        content = Storage(folder).read_bytes(SHARDS_FILE)
        found.append(FileRef(f"{folder}/{SHARDS_FILE}", hashlib.sha256(content).hexdigest(), len(content)))
    return (*found, prepared.groups)


def _reference(name: str, given: str, identity: str) -> Output:
    """Returns a reference set. `identity`: of the task, which is not needed here."""
    texts = corpora.reference_texts(given)
    return Output(_reference_files(name, texts), rows_in=len(texts), kept=len(texts))


def _reference_files(name: str, texts: Sequence[str]) -> dict[str, Content]:
    """Returns a reference set as it is measured, and the texts that no training document may hold: its passages.

    Of held-out documents only whole ones: their passages are also those of menus and footers, which half of a site has.
    """
    measured = corpora.measured_texts(texts)
    whole = name == HELD_OUT
    forbidden = list(texts) if whole else [passage for text in measured for passage in corpora.passages(text)]
    return {f"references/{name}.jsonl": corpora.json_lines(measured), f"forbidden/{name}.jsonl": corpora.json_lines(forbidden)}


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"


# ---- the result --------------------------------------------------------------------------------------


def judging(sets: Mapping[str, str]) -> list[int]:
    """Returns the numbers of the sets that decide: all but the held-out documents, which have the variants' own flaws; these alone where
    there are no others."""
    names = list(sets.values())
    return [number for number, name in enumerate(names) if name != HELD_OUT] or list(range(len(names)))


def bits_of(table: pa.Table, sets: Mapping[str, str]) -> tuple[Any, Any, Any]:
    """Returns the bits, bytes and set numbers of a training's reference documents (REPORT), without those that have no bytes."""
    numbers = {path: number for number, path in enumerate(sets)}
    table = table.filter(pa.compute.greater(table["utf8_bytes"], 0))
    set_of = np.array([numbers[source] for source in table["source"].to_pylist()], np.int64)
    return table["nats"].to_numpy() / np.log(2), table["utf8_bytes"].to_numpy().astype(np.float64), set_of


def _bits_per_byte(table: pa.Table, sets: Mapping[str, str]) -> float:
    bits, sizes, set_of = bits_of(table, sets)
    return float(np.mean([bits[set_of == number].sum() / sizes[set_of == number].sum() for number in judging(sets)]))


def read_bits(storage: Storage, trained: Mapping[tuple[str, int], TaskRow], sets: Mapping[str, str]) -> dict[str, Bits]:
    """Reads what all proxies needed for the reference documents, by variant."""
    found: dict[str, list[Any]] = {}
    for name, draw in trained:
        table = read_table(storage, f"trainings/{name}-{draw:02d}.parquet")
        found.setdefault(name, []).append(bits_of(table, sets))
    return {name: Bits(np.stack([bits for bits, *_ in rows]), rows[0][1], rows[0][2]) for name, rows in found.items()}


def compare(bits: Mapping[str, Bits], name: str, first: str, sets: Sequence[int], error_rate: float) -> PairedDifference:
    """Compares a variant with the first one, on as many draws as it has."""
    count = len(bits[name].bits)
    base = Bits(bits[first].bits[:count], bits[first].sizes, bits[first].set_of)
    return difference(bits[name], base, sets, error_rate)


def verdict(name: str, first: str, found: PairedDifference, sets: int) -> str:
    """Returns one sentence about a comparison, which claims no more than the figures."""
    size = (
        f"{found.mean:+.4f} bits per byte ({found.low:+.4f} to {found.high:+.4f}) over {len(found.draws)} draws and {sets} reference sets"
    )
    if not found.decided:
        return f"No difference shown between {name} and {first}: {size}; as many draws show {found.can_show:.4f} or more in 80% of cases."
    return f"{name} makes a {'better' if found.mean < 0 else 'worse'} model than {first}: {size}."


def result(
    run: StageRun,
    config: AblateConfig,
    variants: Sequence[Variant],
    prepared: Prepared,
    plan: AblatePlan,
    factor: float,
    trained: Mapping[tuple[str, int], TaskRow],
    found: Mapping[str, PairedDifference],
    rates: tuple[float, float],
    search: Mapping[str, Any] | None,
) -> Output:
    """Returns the measurements, the result and the page."""
    storage, (first, *others) = run.storage, dict.fromkeys(name for name, _ in trained)
    known = {variant.name: variant for variant in variants}
    bits, names = read_bits(storage, trained, prepared.sets), list(prepared.sets.values())
    facts = {key: json.loads(storage.read_bytes(f"trainings/{key[0]}-{key[1]:02d}.json")) for key in trained}
    described = []
    for name in (first, *others):
        mine, variant = [facts[key] for key in facts if key[0] == name], known.get(name, variants[0])
        documents = prepared.documents[variant.name]
        row = {
            "variant": name, "given": variant.run or variant.tokens, "run": variant.run, "tokens": int(documents.tokens.sum()),
            "documents": int((documents.part >= 0).sum()), "removed": prepared.removed[variant.name], "draws": len(mine),
            "epochs": max(fact["epochs"] for fact in mine), "stages": _funnel(variant), "curves": [fact["curve"] for fact in mine],
            "bits_per_byte": {set_: bits[name].per_byte(number).tolist() for number, set_ in enumerate(names)},
        }  # fmt: skip
        if name != first:
            rate = rates[len(mine) == config.draws]
            by_set = {set_: asdict(compare(bits, name, first, [number], rate)) for number, set_ in enumerate(names)}
            sentence = verdict(name, first, found[name], len(judging(prepared.sets)))
            row |= {"difference": asdict(found[name]), "by_set": by_set, "error_rate": rate, "sentence": sentence}
        described.append(row)
    _, sizes, set_of = bits_of(read_table(storage, f"trainings/{first}-00.parquet"), prepared.sets)
    content = {
        "variants": described,
        "judging": [names[number] for number in judging(prepared.sets)],
        "sets": {
            name: {"documents": int((set_of == n).sum()), "utf8_bytes": int(sizes[set_of == n].sum())} for n, name in enumerate(names)
        },
        "plan": {"tokens": plan.tokens, "steps": plan.steps, "batch": config.batch},
        "model": {"preset": config.model.preset, "parameters": config.model.architecture(1).parameters()},
        "rates": {f"{other:g}": _rate_score(storage, other, prepared.sets) for other in config.rates if len(config.rates) > 1},
        "rate": factor,
        "confidence": config.confidence,
        "mixture": search,
    }
    files = {"measurements.parquet": _measurements(storage, trained, prepared.sets), "result.json": _json(content)}
    return Output({**files, "page.html": page(content, run.run.root)}, rows_in=len(trained), kept=len(trained))


def _funnel(variant: Variant) -> dict[str, dict[str, int]]:
    """Returns what each data stage of a variant's run took in and kept."""
    if variant.run is None:
        return {}
    counts = {stage: documents_of(Manifest(Storage(variant.run).child(stage), read_only=True)) for stage in DATA_STAGES}
    return {stage: {fate: int(count) for fate, count in of.items()} for stage, of in counts.items() if of}


def _rate_score(storage: Storage, factor: float, sets: Mapping[str, str]) -> float:
    return _bits_per_byte(read_table(storage, f"trainings/rate-{factor:g}.parquet"), sets)


def _measurements(storage: Storage, trained: Mapping[tuple[str, int], TaskRow], sets: Mapping[str, str]) -> pa.Table:
    """Returns all measurements: a row a variant, draw and reference document."""
    parts = []
    for name, draw in sorted(trained):
        table = read_table(storage, f"trainings/{name}-{draw:02d}.parquet")
        named = pa.array([sets[source] for source in table["source"].to_pylist()], pa.string())
        who = [pa.array([name] * len(table), pa.string()), pa.array(np.full(len(table), draw, np.int32)), named]
        parts.append(
            pa.table([*who, *table.drop(["source"]).columns], names=["variant", "draw", "set", *REPORT.names[:1], *REPORT.names[2:]])
        )
    return pa.concat_tables(parts)
