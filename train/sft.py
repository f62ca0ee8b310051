"""The stage `sft`: tunes the pre-trained model to answer, on the user's examples or on tasks from the run's own documents."""

import json
from collections.abc import Sequence
from functools import partial

from pydantic import Field, field_validator

from corpusmill.pipeline.config import INERT
from corpusmill.pipeline.extras import TRAINING
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Output, Stage
from corpusmill.pipeline.storage import Storage
from corpusmill.train import tuning
from corpusmill.train.template import NAMED
from corpusmill.train.tuning import TuningConfig, TuningLoop, TuningOptimizer
from corpusmill.train.user_files import file_ref

EXAMPLES_FILE = "data/examples.parquet"
DROPPED_FILE = "dropped/examples.parquet"


class SftOptimizer(TuningOptimizer):
    lr: float = Field(default=1e-3, gt=0, description="Peak learning rate of AdamW.")
    muon_lr: float = Field(default=5e-3, gt=0, description="Peak learning rate of Muon, for the matrices inside the layers.")


class SftLoop(TuningLoop):
    optimizer: SftOptimizer = Field(default_factory=SftOptimizer, description="AdamW or Muon and their rates.")
    save_every: int = Field(default=100, ge=1, json_schema_extra=INERT, description="Steps between two saves of the training state.")


class SftConfig(TuningConfig):
    """The options of instruction tuning: its examples and its training."""

    files: list[str] = Field(
        default=[],
        description="JSONL, JSON or Parquet files with `messages`, `instruction`/`output`, `prompt`/`completion` or trees of messages. "
        "Without any, tasks are built from the run's own documents.",
    )
    template: str = Field(
        default="keep",
        description="The chat template: `keep` (that of the model that is tuned), `chatml`, `llama3`, or a file that ends with .jinja. "
        "Special tokens that the model lacks for a named one are added.",
    )
    examples: int = Field(default=2000, ge=2, description="At most this many tasks are built from documents.")
    per_document: int = Field(default=8, ge=1, description="At most this many tasks come from one document.")
    max_chars: int = Field(default=400, ge=80, description="Longest answer of a task that is built from a document, in characters.")
    batch: int = Field(default=8, ge=1, description="Rows of packed examples in a step.")
    loop: SftLoop = Field(default_factory=SftLoop, description="Steps, learning rates and guards.")

    @field_validator("template")
    @classmethod
    def _known(cls, template: str) -> str:
        if template not in ("keep", *NAMED) and not template.endswith(".jinja"):
            raise ValueError(f"{template} is no template; those are keep, {', '.join(NAMED)}, or a file that ends with .jinja")
        return template


class SftStage(Stage):
    name = "sft"
    Config = SftConfig
    config: SftConfig

    def libraries(self) -> tuple[str, ...]:
        return (*TRAINING, *self.config.loop.log)

    def execute(self, run: StageRun) -> None:
        start = tuning.start_of(run, ("pretrain",), self.config.model)
        given = tuning.sources(run, self.config.files)
        template = [file_ref(self.config.template)] if self.config.template.endswith(".jinja") else []
        made = run.once("examples", [*tuning.token_files(start.files), *template, *given], lambda _: self._examples(run, start, given))
        examples = made.ref(self.name, EXAMPLES_FILE)
        inputs = [*start.files, *template, examples]
        tuning.train_once(run, inputs, partial(self._train, run, start))

    def summary(self, run: StageRun) -> dict[str, str]:
        metrics = json.loads(run.storage.read_bytes("metrics.json"))
        before, after = (metrics[key] for key in ("held_out_loss_before", "held_out_loss_after"))
        lines = {
            "examples": f"{metrics['examples']:,} learned, {metrics['held_out_examples']:,} held out",
            "rows": f"{metrics['rows']:,} of {metrics['context']:,} tokens, {tuning.steps_line(metrics)}",
        }
        return lines if after is None else {**lines, "held-out loss": f"{before:.3f} before, {after:.3f} after"}

    def _examples(self, run: StageRun, start: tuning.StartModel, given: Sequence[FileRef]) -> Output:
        from corpusmill.train.sft_job import make_examples

        return make_examples(run, self.config, start, given)

    def _train(self, run: StageRun, start: tuning.StartModel, identity: str) -> Output:
        from corpusmill.train.checkpoint import START, CheckpointDir
        from corpusmill.train.sft_job import with_template

        checkpoint_dir = CheckpointDir.of(run, identity)
        start = with_template(self.config, start, checkpoint_dir)
        output = tuning.train(run, "corpusmill.train.sft_job:train", start, checkpoint_dir)
        Storage(checkpoint_dir.work).remove_folder(START)
        return output
