"""Parts of tuning and alignment outside the loop: options, start model, inputs, held-out rule, examples with their report, outputs."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from corpusmill.pipeline.cache import local_model, sha256_of
from corpusmill.pipeline.config import INERT, Config
from corpusmill.pipeline.errors import InputError, NothingKept
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import DATA_STAGES
from corpusmill.pipeline.schemas import REPORT, with_columns
from corpusmill.pipeline.shards import Content, iter_tables, read_table
from corpusmill.pipeline.stage import Output
from corpusmill.pipeline.storage import Storage, is_remote
from corpusmill.train import tasks
from corpusmill.train.options import LONGEST_ROW, LoopConfig, LoraConfig, OptimizerConfig, ParallelConfig, for_adapter
from corpusmill.train.template import Message
from corpusmill.train.user_files import BadRow, file_ref

if TYPE_CHECKING:
    from corpusmill.pipeline.runner import StageRun
    from corpusmill.train.checkpoint import CheckpointDir

#: The files of a model folder that decide the tokens of an example. (All files decide the model's behaviour.)
TOKEN_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json")

#: The file beside a training's saved states that names the base model of an adapter.
ADAPTED = "adapted.json"

REPORT_FILE = "report/part-00000.parquet"

# ---- options -----------------------------------------------------------------------------------------


class TuningOptimizer(OptimizerConfig):
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay (times the learning rate), on matrices only.")


class TuningLoop(LoopConfig):
    steps: int = Field(default=300, ge=0, description="Optimiser steps at most.")
    schedule: Literal["cosine", "linear", "wsd", "constant"] = Field(default="linear", description="Learning rate after warm-up.")
    warmup: int = Field(default=10, ge=0, description="Steps of linear warm-up.")


class TuningConfig(Config):
    """The options that instruction tuning and alignment share."""

    model: str | None = Field(default=None, description="Folder of the model that is tuned; else it is the run's own, of an earlier stage.")
    files: list[str] = Field(default=[], description="The user's files.")
    held_out: float = Field(default=0.1, ge=0, lt=1, description="Share of the examples held out for measuring, chosen by hash.")
    context: int | None = Field(
        default=None, ge=2, description=f"Length of a row in tokens; else that of the model's context, and {LONGEST_ROW} at most."
    )
    batch: int = Field(default=8, ge=1, description="Rows in a step.")
    micro_batch: int = Field(default=0, ge=0, description="Rows that are computed at a time, to save memory; 0 means the whole batch.")
    epochs: float = Field(default=3.0, gt=0, description="Passes over the examples; `loop.steps` bounds them.")
    seed: int = Field(default=1, description="Seed of the order of examples, and of an adapter's first values.")
    parallel: ParallelConfig = Field(
        default_factory=ParallelConfig, json_schema_extra=INERT, description="Number of processes for each kind of parallelism."
    )
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="`auto`, `cpu` or `cuda`.")
    evaluate_every: int = Field(default=50, ge=0, description="Steps between two held-out measurements in the log; 0: none.")
    loop: TuningLoop = Field(default_factory=TuningLoop, description="Steps, learning rates and guards.")
    lora: LoraConfig = Field(default_factory=LoraConfig, description="A low-rank adapter that is trained in place of all weights.")

    @model_validator(mode="after")
    def _adapters_have_adamw(self) -> "TuningConfig":
        if self.lora.rank:
            self.__dict__["loop"] = for_adapter(self.loop)
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
    def path(self) -> Path:
        """The folder where this machine reads the model's files."""
        return local_model(self.folder)

    @property
    def storage(self) -> Storage:
        return Storage(str(self.path))


def start_of(run: "StageRun", candidates: Sequence[str], given: str | None) -> StartModel:
    """Returns the model of the first of the stages `candidates` that the recipe has, or that of the `given` folder."""
    if given is not None:
        folder = given if is_remote(given) else str(Path(given).resolve())
        return StartModel(folder, folder, model_files(given, f"{run.stage.name}.model"))
    stage = parent_stage(run, candidates)
    return StartModel(f"{stage}/model", run.run.path(f"{stage}/model"), run.outputs_of(stage, "model/"))


def model_files(folder: str, option: str) -> list[FileRef]:
    """Returns the files of a user's model folder; `option` is the configuration's name for it, for messages."""
    here = local_model(folder)
    if not (here / "config.json").is_file():
        raise InputError(f"{option}: {folder} is no model folder, as it has no config.json.")
    paths = [path for path in sorted(here.iterdir()) if path.suffix in (".json", ".jinja", ".safetensors")]
    return [FileRef(Storage(folder).path(path.name), sha256_of(path), path.stat().st_size) for path in paths]


def parent_stage(run: "StageRun", candidates: Sequence[str]) -> str:
    """Returns the first of `candidates` that the recipe has: the stage whose model is tuned further."""
    for stage in candidates:
        if stage in run.recipe:
            return stage
    raise InputError(f"{run.stage.name}: the recipe has none of the stages that give a model to start from ({', '.join(candidates)}).")


def token_files(model: Sequence[FileRef]) -> list[FileRef]:
    """Returns those files of a model folder that decide how a conversation becomes tokens."""
    return [ref for ref in model if ref.path.rpartition("/")[2] in TOKEN_FILES]


# ---- where examples come from ------------------------------------------------------------------------


def sources(run: "StageRun", files: Sequence[str]) -> list[FileRef]:
    """Returns the source of examples: the user's files, or the run's documents and the lists of held-out ones."""
    return [file_ref(path) for path in files] if files else [*run.documents(), *validation_indexes(run)]


def held_out_rule(run: "StageRun", fraction: float) -> Callable[[str], bool]:
    """Returns a function that says whether a document is held out: a share by hash, and all validation documents of the run, so that bits
    per byte are measured only on text from which no stage has learned."""
    validation = _validation(run)
    return lambda identifier: identifier in validation or tasks.is_held_out(identifier, fraction)


def only_measured(run: "StageRun", fraction: float) -> Callable[[str], bool]:
    """Returns a function that says whether a document is only for measuring: the run's validation documents, from which no stage has
    learned. Where the run has none, pre-training has read all documents. Then it is the share `fraction` by hash, which tuning and
    alignment leave out."""
    validation = _validation(run)
    return validation.__contains__ if validation else lambda identifier: tasks.is_held_out(identifier, fraction)


def _validation(run: "StageRun") -> set[str]:
    """Returns the ids of the validation documents."""
    found: set[str] = set()
    for ref in validation_indexes(run):
        found.update(read_table(run.run, ref.path, ["id"])["id"].to_pylist())
    return found


def validation_indexes(run: "StageRun") -> list[FileRef]:
    """Returns the index files of the validation documents, where the run has token shards."""
    if "tokens" not in run.recipe:
        return []
    return [ref for ref in run.outputs_of("tokens", "validation/") if ref.path.endswith(".index.parquet")]


def documents(run: "StageRun") -> list[FileRef]:
    """Returns the run's document shards; none where its recipe only tunes a given model."""
    return run.documents() if any(stage in run.recipe for stage in DATA_STAGES) else []


def document_tables(run: "StageRun") -> Iterator[pa.Table]:
    """Yields the documents, by row group, with the columns from which tasks are built."""
    for ref in documents(run):
        yield from iter_tables(run.run, ref.path, tasks.COLUMNS)


# ---- examples and their report -----------------------------------------------------------------------


@dataclass(frozen=True)
class DataItem:
    """An example or a pair. `kind` says how it was made (`file`: it is the user's). Where a file's row is none, `bad` has the reason."""

    id: str
    url: str | None
    kind: str
    held_out: bool
    bad: BadRow | None = field(default=None, kw_only=True)

    def turns(self) -> list[Message]:
        """Returns all its messages."""
        raise NotImplementedError


@dataclass(frozen=True)
class PreparedItem:
    """An item with its tokens. `failed`: the reasons why it is dropped; `note`: a sentence where their names do not say it all."""

    item: Any
    failed: list[str]
    note: str | None = field(default=None, kw_only=True)


def items_table(items: Sequence[DataItem], schema: pa.Schema, **more: Sequence[Any]) -> pa.Table:
    """Returns a row for every item, with the columns of `more` and its own attributes."""
    return pa.table({name: more[name] if name in more else [getattr(item, name) for item in items] for name in schema.names}, schema)


def report_schema(more: Sequence[pa.Field]) -> pa.Schema:
    """Returns the schema of a report of examples: REPORT, its usual columns, and `more`."""
    usual = [pa.field("kind", pa.string()), pa.field("held_out", pa.bool_()), pa.field("note", pa.string())]
    return with_columns(REPORT, [*usual, *more])


def report_table(prepared: Sequence[PreparedItem], schema: pa.Schema, **more: Sequence[Any]) -> pa.Table:
    """Returns the report: a row for every item, with the columns of `more`."""
    chars = [sum(len(message["content"]) for message in p.item.turns()) for p in prepared]
    usual: dict[str, Sequence[Any]] = {
        "kept": [not p.failed for p in prepared],
        "failed": [p.failed for p in prepared],
        "chars_in": chars,
        "chars_out": [0 if p.failed else count for p, count in zip(prepared, chars, strict=True)],
        "note": [p.note for p in prepared],
    }
    return items_table([p.item for p in prepared], schema, **usual, **more)


def made(
    run: "StageRun",
    what: str,
    given: Sequence[FileRef],
    prepared: Sequence[PreparedItem],
    files: Mapping[str, Content],
    warnings: Sequence[str],
) -> Output:
    """Returns the output of a task that makes examples from `given`. Raises NothingKept if there is nothing to learn."""
    config: Any = run.stage.config
    counts = dict(sorted(Counter(rule for p in prepared for rule in p.failed).items()))  # one that failed two rules counts under both
    kept = [p.item for p in prepared if not p.failed]
    dropped, total = len(prepared) - len(kept), len(prepared)
    listed = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    if all(item.held_out for item in kept):
        source = ", ".join(config.files) or "the run's documents"
        because = f" ({listed or 'all are held out'})" if total else ""
        none = f"{run.stage.name}: {source}: none of {total} {what} can be learned from{because}."
        why = [f"The first was dropped: {p.note}" for p in prepared if p.note][:1]
        raise NothingKept(" ".join([none, *why, *warnings]))
    several = "; one that fails several rules counts for each" if sum(counts.values()) > dropped else ""
    told = f"{dropped:,} of {total:,} {what} {'was' if dropped == 1 else 'were'} dropped ({listed}{several})."
    size = sum(ref.bytes for ref in given)
    return Output({**files}, total, len(kept), dropped, size, counts, [*([told] if dropped else []), *warnings])


# ---- training ----------------------------------------------------------------------------------------


def train_once(run: "StageRun", inputs: Sequence[FileRef], train: Callable[[str], Output]) -> None:
    """Trains as the stage's task `model`; `train` gets the task's identity, under which a killed run finds its state. It is a method of
    the stage, so that the code of the stage's module and of its imports counts as the task's."""
    from corpusmill.train.checkpoint import CheckpointDir

    row = run.once("model", inputs, train)
    CheckpointDir.of(run, row.identity).clear()


def train(run: "StageRun", job: str, start: StartModel, checkpoint_dir: "CheckpointDir") -> Output:
    """Trains by the function `job` (`module:name`) on the processes of the stage's `parallel`. Returns the model's files and
    `metrics.json`, with a warning where an epoch is a single step."""
    from corpusmill.train.launch import launch_stage

    config: Any = run.stage.config
    if config.lora.rank:
        sha256 = {ref.path.rpartition("/")[2]: ref.fingerprint for ref in start.files}
        adapted = {"base": start.name, "sha256": sha256, "lora": config.lora.model_dump(mode="json")}
        Storage(checkpoint_dir.work).write_bytes(ADAPTED, json.dumps(adapted, indent=2).encode())
    metrics = launch_stage(run, job, config, checkpoint_dir, folder=start.folder, name=start.name)
    files: dict[str, Content] = {f"{path.parent.name}/{path.name}": path for path in checkpoint_dir.left()}
    counts = {"steps": metrics["steps"], "skipped_steps": metrics["skipped_steps"]}
    single = f"An epoch is a single step; a smaller {run.stage.name}.batch makes it several."
    warnings = [single] if metrics["steps_an_epoch"] == 1 else []
    return Output({**files, "metrics.json": json_file(metrics)}, counts=counts, warnings=warnings)


def steps_line(metrics: Mapping[str, Any]) -> str:
    """Says how many steps an epoch and the training have."""
    each = metrics["steps_an_epoch"]
    return f"{each:,} step{'' if each == 1 else 's'} an epoch, {metrics['steps']:,} in all"


def json_file(value: Any) -> bytes:
    """Returns JSON for people and programs, with floats rounded to six digits, as their last bits mean nothing."""
    return json.dumps(_rounded(value), indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
