"""The stages `sft` and `align`: their options, the model that they start from, the sources of examples, and what they publish."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import pyarrow as pa
from pydantic import ConfigDict, Field, field_validator, model_validator

from corpusmill.pipeline.cache import local_model
from corpusmill.pipeline.config import INERT, Config, parse_json
from corpusmill.pipeline.errors import InputError, NothingKept
from corpusmill.pipeline.extras import TRAINING
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import DATA_STAGES, StageRun
from corpusmill.pipeline.schemas import REPORT, with_columns
from corpusmill.pipeline.shards import Content, iter_tables, read_table
from corpusmill.pipeline.stage import Output, Stage, load_object
from corpusmill.pipeline.storage import Storage, is_remote
from corpusmill.train import tasks
from corpusmill.train.options import LONGEST_ROW, LoopConfig, LoraConfig, OptimizerConfig, ParallelConfig, precision_line
from corpusmill.train.template import NAMED
from corpusmill.train.user_files import BadRow, Layout, file_ref, first_question, read_layout

if TYPE_CHECKING:
    from corpusmill.train.checkpoint import CheckpointDir

# ---- options -----------------------------------------------------------------------------------------


class SftOptimizer(OptimizerConfig):
    lr: float = Field(default=1e-3, gt=0, description="Peak learning rate of AdamW.")
    muon_lr: float = Field(default=5e-3, gt=0, description="Peak learning rate of Muon, for the matrices inside the layers.")
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay (times the learning rate), on matrices only.")


class SftLoop(LoopConfig):
    steps: int = Field(default=300, ge=0, description="Optimiser steps at most.")
    optimizer: SftOptimizer = Field(default_factory=SftOptimizer, description="AdamW or Muon and their rates.")
    schedule: Literal["cosine", "linear", "wsd", "constant"] = Field(default="linear", description="Learning rate after warm-up.")
    warmup: int = Field(default=10, ge=0, description="Steps of linear warm-up.")
    save_every: int = Field(default=100, ge=1, json_schema_extra=INERT, description="Steps between two saves of the training state.")


class AlignOptimizer(SftOptimizer):
    kind: Literal["adamw", "muon"] = Field(default="adamw", description="`adamw` for every parameter, or `muon` for hidden matrices.")
    lr: float = Field(default=3e-4, gt=0, description="Peak learning rate of AdamW.")
    muon_lr: float = Field(default=1e-3, gt=0, description="Peak learning rate of Muon, for the matrices inside the layers.")


class AlignLoop(SftLoop):
    steps: int = Field(default=150, ge=0, description="Optimiser steps at most.")
    optimizer: AlignOptimizer = Field(default_factory=AlignOptimizer, description="AdamW or Muon and their rates.")
    # Late in training most pairs have a loss near 0 and a hard one of more than 1. Its step is the one to learn from, and no spike.
    spike: float = Field(
        default=0.0, ge=0, description="Skips a step this many robust deviations above recent ones; 0: only if not finite."
    )
    save_every: int = Field(default=50, ge=1, json_schema_extra=INERT, description="Steps between two saves of the training state.")


class TuningConfig(Config):
    """The options that instruction tuning and alignment share."""

    model: str | None = Field(default=None, description="Folder of the model that is tuned; else it is the run's own, of an earlier stage.")
    held_out: float = Field(default=0.1, ge=0, lt=1, description="Share of the examples held out for measuring, chosen by hash.")
    context: int | None = Field(default=None, ge=2, description=f"Tokens in a row; else the model's context, and {LONGEST_ROW} at most.")
    micro_batch: int = Field(
        default=0, ge=0, description="Rows (or pairs) that are computed at a time, to save memory; 0: the whole batch."
    )
    parallel: ParallelConfig = Field(
        default_factory=ParallelConfig, json_schema_extra=INERT, description="Number of processes for each kind of parallelism."
    )
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="`auto`, `cpu` or `cuda`.")
    evaluate_every: int = Field(default=50, ge=0, description="Steps between two held-out measurements in the log; 0: none.")
    loop: SftLoop = Field(default_factory=SftLoop, description="Steps, learning rates and guards.")
    lora: LoraConfig = Field(default_factory=LoraConfig, description="A low-rank adapter that is trained in place of all weights.")

    @model_validator(mode="after")
    def _adapters_have_adamw(self) -> "TuningConfig":
        optimizer = self.loop.optimizer
        if self.lora.rank and optimizer.kind == "muon":
            if "kind" in optimizer.model_fields_set:
                raise ValueError("lora.rank: adapters are trained by AdamW, and loop.optimizer.kind is muon")
            self.__dict__["loop"] = self.loop.model_copy(update={"optimizer": optimizer.model_copy(update={"kind": "adamw"})})
        return self


class SftConfig(TuningConfig):
    """The options of instruction tuning: its examples and its training."""

    files: list[str] = Field(default=[], description="Files of conversations. Without any, tasks are built from the run's own documents.")
    template: str = Field(
        default="keep",
        description="The chat template: `keep` (that of the model that is tuned), `chatml`, `llama3`, or a file that ends with .jinja. "
        "Special tokens that the model lacks for a named one are added.",
    )
    examples: int = Field(default=2000, ge=2, description="At most this many tasks are built from documents.")
    per_document: int = Field(default=8, ge=1, description="At most this many tasks come from one document.")
    max_chars: int = Field(default=400, ge=80, description="Longest answer of a task that is built from a document, in characters.")
    batch: int = Field(default=8, ge=1, description="Rows of packed examples in a step.")
    epochs: float = Field(default=3.0, gt=0, description="Passes over the examples; `loop.steps` bounds them.")
    seed: int = Field(default=1, description="Seed of the order of examples, and of an adapter's first values.")

    @field_validator("template")
    @classmethod
    def _known(cls, template: str) -> str:
        if template not in ("keep", *NAMED) and not template.endswith(".jinja"):
            raise ValueError(f"{template} is no template; those are keep, {', '.join(NAMED)}, or a file that ends with .jinja")
        return template


#: Losses that need no reference model.
REFERENCE_FREE = ("orpo", "simpo")
#: Other defaults with a loss: the beta of Tulu 3 and of SimPO's authors, for IPO a margin of half a nat per token; ORPO has an NLL term.
USUAL = {"mean-sigmoid": {"beta": 5.0}, "simpo": {"beta": 2.0}, "ipo": {"beta": 1.0}, "orpo": {"nll_weight": 0.0}}


class AlignConfig(TuningConfig):
    """The options of preference alignment: its pairs, its loss, its training."""

    model_config = ConfigDict(allow_inf_nan=False)

    files: list[str] = Field(default=[], description="Files of preferences. Without any, pairs are built from the run's own documents.")
    pairs: int = Field(default=1500, ge=2, description="At most this many pairs are built from documents.")
    per_document: int = Field(default=8, ge=1, description="At most this many pairs come from one document.")
    max_chars: int = Field(default=200, ge=80, description="Longest completion of a pair that is built from a document, in characters.")
    loss: Literal["sigmoid", "conservative", "mean-sigmoid", "robust", "ipo", "orpo", "simpo"] = Field(
        default="sigmoid",
        description="`sigmoid` is DPO; `conservative` and `robust` allow for swapped labels, `mean-sigmoid` and `ipo` for lengths; `orpo` "
        "and `simpo` need no reference model.",
    )
    beta: float = Field(
        default=0.1,
        gt=0,
        description="How strongly the policy is held to the reference model; the weight of ORPO's odds ratio. Where it is not given: "
        "5 with `mean-sigmoid`, 2 with `simpo`, 1 with `ipo`.",
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5, description="Share of pairs taken as swapped (conservative, robust).")
    gamma: float = Field(default=0.0, ge=0, description="Margin by which rewards should differ (simpo, where it is beta / 2 if not given).")
    nll_weight: float = Field(
        default=0.2,
        ge=0,
        description="Weight of the chosen completion's loss a token beside the preference loss (RPO), without which a small model's "
        "answers grow short; 0 is plain DPO. Where it is not given: 0 with `orpo`, which has it already.",
    )
    batch: int = Field(default=16, ge=1, description="Pairs in a step.")
    epochs: float = Field(default=2.0, gt=0, description="Passes over the pairs; `loop.steps` bounds them.")
    seed: int = Field(default=2, description="Seed of the order of pairs, and of an adapter's first values.")
    loop: AlignLoop = Field(default_factory=AlignLoop, description="Steps, learning rates and guards.")

    @model_validator(mode="before")
    @classmethod
    def _usual_values(cls, given: Any) -> Any:
        """Fills in the values that are usual with the chosen loss, where they are not given."""
        return USUAL.get(str(given.get("loss")), {}) | given if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _options_are_used(self) -> "AlignConfig":
        if self.loss == "simpo" and "gamma" not in self.model_fields_set:
            self.__dict__["gamma"] = self.beta / 2  # the value in the authors' runs
        if self.label_smoothing and self.loss not in ("conservative", "robust"):
            raise ValueError(f"label_smoothing is for the losses conservative and robust, and the loss is {self.loss}")
        if self.gamma and self.loss != "simpo":
            raise ValueError(f"gamma is for the loss simpo, and the loss is {self.loss}")
        if self.loss == "orpo" and self.nll_weight:
            raise ValueError("nll_weight is 0 with the loss orpo, which has the chosen completion's loss in it already")
        return self


# ---- the start model ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class StartModel:
    """The model from which a tuning starts. `name`: its folder relative to the run, so that nothing depends on where the run lies, or an
    absolute path outside the run. `folder`: its path or URL. `files`: its files."""

    name: str
    folder: str
    files: list[FileRef] = field(default_factory=list)

    @property
    def storage(self) -> Storage:
        """The folder where this machine reads the model's files."""
        return Storage(str(local_model(self.folder)))


def start_of(run: StageRun, parents: Sequence[str], given: str | None) -> StartModel:
    """Returns the model of the `given` folder, or that of the first of the stages `parents` that the recipe has."""
    if given is not None:
        from corpusmill.train.checkpoint import model_files

        folder = given if is_remote(given) else str(Path(given).resolve())
        return StartModel(folder, folder, model_files(given, f"{run.stage.name}.model"))
    stage = parent_stage(run, parents)
    return StartModel(f"{stage}/model", run.run.path(f"{stage}/model"), run.outputs_of(stage, "model/"))


def parent_stage(run: StageRun, parents: Sequence[str]) -> str:
    """Returns the first of the stages `parents` that the recipe has."""
    if found := [stage for stage in parents if stage in run.recipe]:
        return found[0]
    raise InputError(f"{run.stage.name}: the recipe has none of the stages that give a model to start from ({', '.join(parents)}).")


# ---- where examples come from ------------------------------------------------------------------------


def held_out_rule(run: StageRun, fraction: float) -> Callable[[str], bool]:
    """Returns a function that says whether a document is held out: a share by hash, and all validation documents of the run, so that bits
    per byte are measured only on text from which no stage has learned."""
    validation = _validation(run)
    return lambda identifier: identifier in validation or tasks.is_held_out(identifier, fraction)


def only_measured(run: StageRun, fraction: float) -> Callable[[str], bool]:
    """Returns a function that says whether no stage has learned from a document: the run's validation documents. Where the run has none,
    pre-training has read all; then it is the share `fraction` by hash, which tuning and alignment leave out."""
    validation = _validation(run)
    return validation.__contains__ if validation else lambda identifier: tasks.is_held_out(identifier, fraction)


def _validation(run: StageRun) -> set[str]:
    """Returns the ids of the validation documents."""
    tables = (read_table(run.run, ref.path, ["id"]) for ref in validation_indexes(run))
    return {identifier for table in tables for identifier in table["id"].to_pylist()}


def validation_indexes(run: StageRun) -> list[FileRef]:
    """Returns the index files of the validation documents, where the run has token shards."""
    found = run.outputs_of("tokens", "validation/") if "tokens" in run.recipe else []
    return [ref for ref in found if ref.path.endswith(".index.parquet")]


def documents(run: StageRun) -> list[FileRef]:
    """Returns the run's document shards; none where its recipe only tunes a given model."""
    return run.documents() if any(stage in run.recipe for stage in DATA_STAGES) else []


def document_tables(run: StageRun) -> Iterator[pa.Table]:
    """Yields the documents, by row group, with the columns from which tasks are built."""
    for ref in documents(run):
        yield from iter_tables(run.run, ref.path, tasks.COLUMNS)


# ---- examples and their report -----------------------------------------------------------------------

REPORT_FILE = "report/part-00000.parquet"
MESSAGES = pa.list_(pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())]))
#: The columns of each table of examples, with the document (or file and line) that they came from.
ITEM_COLUMNS = [
    pa.field("id", pa.string(), nullable=False),
    pa.field("url", pa.string()),
    pa.field("kind", pa.string(), nullable=False),
    pa.field("held_out", pa.bool_(), nullable=False),  # only measured, never learned
]


@dataclass(frozen=True)
class DataItem:
    """An example or a pair. `kind` says how it was made (`file`: it is the user's). `failed`: the rules by which it is dropped; `note`: a
    sentence where their names do not say it all. A file's row that is none has no messages.

    `columns`: what the report says of it beside the usual columns.
    """

    id: str
    url: str | None
    kind: str
    held_out: bool
    failed: list[str] = field(default_factory=list, kw_only=True)
    note: str | None = field(default=None, kw_only=True)
    columns: ClassVar[list[pa.Field]]


Item = TypeVar("Item", bound=DataItem)


def read_items(kind: type[Item], layout: Layout, what: str, rule: str, files: Sequence[str], held_out: float) -> list[Item]:
    """Returns the items in the user's files; a row that is none fails the `rule`, or that of its BadRow. The first question decides whether
    an item is held out. Raises InputError where all rows of a file are bad."""
    found: list[Item] = []
    for path in files:
        items = [
            kind(name, None, "file", False, failed=[row.rule or rule], note=str(row))
            if isinstance(row, BadRow)
            else kind(name, None, "file", tasks.is_held_out(first_question(row[0]), held_out), *row)
            for name, row in read_layout(path, layout)
        ]
        if all(item.failed for item in items):
            several = f"{path}: none of its {len(items)} rows is {what}; "
            raise InputError(f"{several if len(items) > 1 else ''}{items[0].note}" if items else f"{path}: the file has no rows.")
        found += items
    return found


def items_table(items: Sequence[DataItem], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([vars(item) for item in items], schema)


def report_table(items: Sequence[DataItem]) -> pa.Table:
    """Returns a row for each of one item or more."""
    rows = []
    for item in items:
        turns = [turn for name in ("messages", "prompt", "chosen", "rejected") for turn in getattr(item, name, ())]
        chars = sum(len(turn["content"]) for turn in turns)
        rows.append({**vars(item), "kept": not item.failed, "chars_in": chars, "chars_out": 0 if item.failed else chars})
    usual = [pa.field("kind", pa.string()), pa.field("held_out", pa.bool_()), pa.field("note", pa.string())]
    return pa.Table.from_pylist(rows, with_columns(REPORT, [*usual, *items[0].columns]))


def publish_items(
    run: StageRun, given: Sequence[FileRef], items: Sequence[DataItem], schema: pa.Schema, files: Mapping[str, Content],
    warnings: Sequence[str],
) -> Output:  # fmt: skip
    """Returns the output of a task that makes items from `given`: those that are kept, the report, and `files`. Raises NothingKept if there
    is nothing to learn."""
    stage: Any = run.stage
    config, what = stage.config, stage.items
    counts = dict(sorted(Counter(rule for item in items for rule in item.failed).items()))  # one that failed two rules counts under both
    kept = [item for item in items if not item.failed]
    dropped, total = len(items) - len(kept), len(items)
    listed = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    if all(item.held_out for item in kept):
        because = f" ({listed or 'all are held out'})" if total else ""
        source = ", ".join(config.files) or "the run's documents"
        none = f"{stage.name}: {source}: none of {total} {what} can be learned from{because}."
        why = [f"The first was dropped: {item.note}" for item in items if item.note][:1]
        raise NothingKept(" ".join([none, *why, *warnings]))
    several = "; one that fails several rules counts for each" if sum(counts.values()) > dropped else ""
    told = f"{dropped:,} of {total:,} {what} {'was' if dropped == 1 else 'were'} dropped ({listed}{several})."
    published: dict[str, Content] = {f"data/{what}.parquet": items_table(kept, schema), REPORT_FILE: report_table(items), **files}
    size = sum(ref.bytes for ref in given)
    return Output(published, total, len(kept), dropped, size, warnings=[*([told] if dropped else []), *warnings], failed=counts)


# ---- the stages --------------------------------------------------------------------------------------

EXAMPLES_FILE, DROPPED_FILE, PAIRS_FILE = "data/examples.parquet", "dropped/examples.parquet", "data/pairs.parquet"

#: The file beside a training's saved states that names the base model of an adapter.
ADAPTED = "adapted.json"


class TuningStage(Stage):
    """Makes `items` (examples, pairs) by the function `make` of its module `work`, then trains by the function `train` on each process.
    `parents` are the stages whose model it may tune, the first that the recipe has."""

    config: SftConfig | AlignConfig
    items: ClassVar[str]
    work: ClassVar[str]
    parents: ClassVar[tuple[str, ...]]

    def libraries(self) -> tuple[str, ...]:
        return (*TRAINING, *self.config.loop.log)

    def execute(self, run: StageRun) -> None:
        from corpusmill.train.checkpoint import CheckpointDir

        config, start = self.config, start_of(run, self.parents, self.config.model)
        template = getattr(config, "template", "keep")
        model = [*start.files, *([file_ref(template)] if template.endswith(".jinja") else [])]
        given = [file_ref(path) for path in config.files] or [*run.documents(), *validation_indexes(run)]
        make = f"{self.work}:make"
        made = run.once(self.items, [*model, *given], lambda _: load_object(make)(run, config, start, given))
        inputs = [*model, made.ref(self.name, f"data/{self.items}.parquet")]
        row = run.once("model", inputs, lambda identity: self._train(run, start, CheckpointDir.of(run, identity)))
        CheckpointDir.of(run, row.identity).clear()

    def _train(self, run: StageRun, start: StartModel, checkpoint_dir: "CheckpointDir") -> Output:
        """Trains on the processes of the stage's `parallel`. Returns the model's files and `metrics.json`, with a warning where an epoch is
        a single step."""
        from corpusmill.train.checkpoint import START
        from corpusmill.train.launch import launch_stage
        from corpusmill.train.sft import with_template

        config, work = self.config, Storage(checkpoint_dir.work)
        start = with_template(config, start, checkpoint_dir) if isinstance(config, SftConfig) else start
        if config.lora.rank:
            sha256 = {ref.path.rpartition("/")[2]: ref.fingerprint for ref in start.files}
            adapted = {"base": start.name, "sha256": sha256, "lora": config.lora.model_dump(mode="json")}
            work.write_bytes(ADAPTED, json.dumps(adapted, indent=2).encode())
        metrics = launch_stage(run, f"{self.work}:train", config, checkpoint_dir, folder=start.folder, name=start.name)
        files: dict[str, Content] = {f"{path.parent.name}/{path.name}": path for path in checkpoint_dir.left()}
        work.remove_folder(START)
        counts = {"steps": metrics["steps"], "skipped_steps": metrics["skipped_steps"]}
        single = f"An epoch is a single step; a smaller {self.name}.batch makes it several."
        warnings = [*metrics.pop("warnings"), *([single] if metrics["steps_an_epoch"] == 1 else [])]
        return Output({**files, "metrics.json": json_file(metrics)}, counts=counts, warnings=warnings)

    def summary(self, run: StageRun) -> dict[str, str]:
        metrics = run.storage.read_json("metrics.json")
        each = metrics["steps_an_epoch"]
        steps = f"{each:,} step{'' if each == 1 else 's'} an epoch, {metrics['steps']:,} in all"
        learned = f"{metrics[self.items]:,} learned, {metrics[f'held_out_{self.items}']:,} held out"
        return {**self.figures(metrics, learned, steps), "precision": precision_line(metrics["precision"], self.config.loop)}

    def figures(self, metrics: Mapping[str, Any], learned: str, steps: str) -> dict[str, str]:
        """Returns the summary's lines. `learned` and `steps` say how many items and steps there were."""
        raise NotImplementedError


class SftStage(TuningStage):
    """Tunes the pre-trained model to answer, on the user's examples or on tasks from the run's own documents."""

    name = "sft"
    Config = SftConfig
    config: SftConfig
    items, work, parents = "examples", "corpusmill.train.sft", ("pretrain",)

    def figures(self, metrics: Mapping[str, Any], learned: str, steps: str) -> dict[str, str]:
        before, after = (metrics[key] for key in ("held_out_loss_before", "held_out_loss_after"))
        lines = {"examples": learned, "rows": f"{metrics['rows']:,} of {metrics['context']:,} tokens, {steps}"}
        return lines if after is None else {**lines, "held-out loss": f"{before:.3f} before, {after:.3f} after"}


class AlignStage(TuningStage):
    """Trains the tuned model to prefer one of two completions (DPO and its relatives)."""

    name = "align"
    Config = AlignConfig
    config: AlignConfig
    items, work, parents = "pairs", "corpusmill.train.align", ("sft", "pretrain")

    def figures(self, metrics: Mapping[str, Any], learned: str, steps: str) -> dict[str, str]:
        before, after = metrics["held_out_before"], metrics["held_out_after"]
        lines = {"pairs": f"{learned}; {steps}"}
        if after:
            losses = f"loss {before['loss']:.3f} before, {after['loss']:.3f} after"
            lines["held-out rewards"] = f"{after['accuracy']:.1%} of pairs right, margin {after['margin']:.3f} ({losses})"
            likely = f"{before['preference_accuracy']:.1%} before, {after['preference_accuracy']:.1%} after"
            lines["more likely a token"] = f"the chosen one of {likely}"
        return lines


def json_file(value: Any) -> bytes:
    """Returns JSON for people and programs, with floats rounded to six digits, as their last bits mean nothing."""
    rounded = parse_json(json.dumps(value), parse_float=lambda digits: float(f"{float(digits):.6g}"))
    return json.dumps(rounded, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"
