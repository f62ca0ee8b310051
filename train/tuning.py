"""Parts of tuning and alignment outside the loop: start model, inputs, held-out rule, outputs."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from corpusmill.pipeline.cache import sha256_of
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef, TaskRow
from corpusmill.pipeline.runner import DATA_STAGES
from corpusmill.pipeline.shards import Content, iter_tables, read_table
from corpusmill.pipeline.stage import Output
from corpusmill.pipeline.storage import Storage, is_remote
from corpusmill.train import tasks
from corpusmill.train.user_files import file_ref

if TYPE_CHECKING:
    from corpusmill.pipeline.runner import StageRun
    from corpusmill.train.checkpoint_dir import CheckpointDir

#: The files of a model folder that decide the tokens of an example. (All files decide the model's behaviour.)
TOKEN_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json")

#: The file beside a training's saved states that names the base model of an adapter.
ADAPTED = "adapted.json"


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
        from corpusmill.pipeline.cache import local_model

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
    from corpusmill.pipeline.cache import local_model

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


def reasons(failed: Iterable[Sequence[str]]) -> dict[str, int]:
    """Returns how many examples failed each rule; an example that failed two counts under both."""
    return dict(sorted(Counter(rule for rules in failed for rule in rules).items()))


def dropped_sentence(what: str, dropped: int, total: int, counts: Mapping[str, int]) -> list[str]:
    """Returns a warning about dropped examples, if there are any."""
    if not dropped:
        return []
    listed = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    several = "; one that fails several rules counts for each" if sum(counts.values()) > dropped else ""
    return [f"{dropped:,} of {total:,} {what} {'was' if dropped == 1 else 'were'} dropped ({listed}{several})."]


def train(run: "StageRun", job: str, config: Any, start: StartModel, checkpoint_dir: "CheckpointDir", **arguments: Any) -> Output:
    """Trains by the function `job` (`module:name`) on the processes of `config.parallel`. Returns the model's files and `metrics.json`."""
    from corpusmill.train.launch import launch_stage

    if config.lora.rank:
        sha256 = {ref.path.rpartition("/")[2]: ref.fingerprint for ref in start.files}
        adapted = {"base": start.name, "sha256": sha256, "lora": config.lora.model_dump(mode="json")}
        Storage(checkpoint_dir.work).write_bytes(ADAPTED, json.dumps(adapted, indent=2).encode())
    metrics = launch_stage(run, job, config, checkpoint_dir, folder=start.folder, name=start.name, **arguments)
    files: dict[str, Content] = {f"{path.parent.name}/{path.name}": path for path in checkpoint_dir.left()}
    counts = {"steps": metrics["steps"], "skipped_steps": metrics["skipped_steps"]}
    return Output({**files, "metrics.json": json_file(metrics)}, counts=counts)


def clear(run: "StageRun", row: TaskRow) -> None:
    """Removes this machine's copy of a finished training, where the run lies on a store."""
    from corpusmill.train.checkpoint_dir import CheckpointDir

    CheckpointDir.of(run, row.identity).clear()


def json_file(value: Any) -> bytes:
    """Returns JSON for people and programs, with floats rounded to six digits, as their last bits mean nothing."""
    return json.dumps(_rounded(value), indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
