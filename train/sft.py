"""The stage `sft`: tunes the pre-trained model to answer, on the user's examples or on tasks from the run's own documents."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from corpusmill.pipeline.config import INERT, Config
from corpusmill.pipeline.errors import InputError, NothingKept
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Output, Stage
from corpusmill.pipeline.storage import Storage
from corpusmill.train import tuning
from corpusmill.train.options import LoopConfig, LoraConfig, OptimizerConfig, ParallelConfig, for_adapter
from corpusmill.train.template import NAMED
from corpusmill.train.user_files import file_ref

EXAMPLES_FILE = "data/examples.parquet"
DROPPED_FILE = "dropped/examples.parquet"
REPORT_FILE = "report/part-00000.parquet"


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


class SftConfig(Config):
    """The options of instruction tuning: its examples and its training."""

    model: str | None = Field(default=None, description="Folder of the model that is tuned; else it is the run's pre-trained one.")
    files: list[str] = Field(
        default=[],
        description="JSONL, JSON or Parquet files with `messages`, `instruction`/`output` or `prompt`/`completion`. "
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
    held_out: float = Field(default=0.1, ge=0, lt=1, description="Share of the examples held out for measuring, chosen by hash.")
    batch: int = Field(default=8, ge=1, description="Rows of packed examples, each as long as the model's context, in a step.")
    micro_batch: int = Field(default=0, ge=0, description="Rows that are computed at a time, to save memory; 0 means the whole batch.")
    epochs: float = Field(default=3.0, gt=0, description="Passes over the examples; `loop.steps` bounds them.")
    seed: int = Field(default=1, description="Seed of the order of examples, and of an adapter's first values.")
    parallel: ParallelConfig = Field(
        default_factory=ParallelConfig, json_schema_extra=INERT, description="Number of processes for each kind of parallelism."
    )
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="`auto`, `cpu` or `cuda`.")
    evaluate_every: int = Field(default=50, ge=0, description="Steps between two measurements of the held-out loss in the log; 0: none.")
    loop: SftLoop = Field(default_factory=SftLoop, description="Steps, learning rates and guards.")
    lora: LoraConfig = Field(default_factory=LoraConfig, description="A low-rank adapter that is trained in place of all weights.")

    @model_validator(mode="after")
    def _adapters_have_adamw(self) -> "SftConfig":
        if self.lora.rank:
            self.__dict__["loop"] = for_adapter(self.loop)
        return self

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

    def execute(self, run: StageRun) -> None:
        start = tuning.start_of(run, ("pretrain",), self.config.model)
        given = tuning.sources(run, self.config.files)
        template = [file_ref(self.config.template)] if self.config.template.endswith(".jinja") else []
        made = run.once("examples", [*tuning.token_files(start.files), *template, *given], lambda _: self._examples(run, start, given))
        examples = made.ref(self.name, EXAMPLES_FILE)
        row = run.once("model", [*start.files, *template, examples], partial(self._model, run, start))
        tuning.clear(run, row)

    def summary(self, run: StageRun) -> dict[str, str]:
        import json

        metrics = json.loads(run.storage.read_bytes("metrics.json"))
        before, after = (metrics[key] for key in ("held_out_loss_before", "held_out_loss_after"))
        lines = {"examples": f"{metrics['examples']:,} learned, {metrics['held_out_examples']:,} held out"}
        return lines if after is None else {**lines, "held-out loss": f"{before:.3f} before, {after:.3f} after"}

    def _examples(self, run: StageRun, start: tuning.StartModel, given: Sequence[FileRef]) -> Output:
        """Makes the examples, decides which are kept, and writes a report row for each."""
        from corpusmill.train import sft_job as sft_data
        from corpusmill.train.model_folder import read_architecture
        from corpusmill.train.template import choose_chat, require_learnable, seam

        config, folder = self.config, start.storage
        encoder, context = choose_chat(folder, config.template), read_architecture(Path(folder.root)).context
        require_learnable(encoder)
        if config.files:
            examples = sft_data.read_examples(config.files, config.held_out)
        else:
            held_out = tuning.held_out_rule(run, config.held_out)
            limits = config.examples, config.per_document, config.max_chars
            examples = sft_data.build_examples(tuning.document_tables(run), f"sft {config.seed}", *limits, held_out)
        prepared = [sft_data.prepare(example, encoder, context) for example in examples]
        kept, counts = [p.example for p in prepared if not p.failed], tuning.reasons(p.failed for p in prepared)
        if all(example.held_out for example in kept):
            what = ", ".join(config.files) or "the run's documents"
            why = ", ".join(f"{name} {count:,}" for name, count in Counter(counts).most_common()) or "all are held out"
            raise NothingKept(f"sft: {what}: none of {len(examples)} examples can be learned from ({why}).")
        dropped = len(examples) - len(kept)
        cut = sum(p.truncated for p in prepared if not p.failed)
        return Output(
            files={
                EXAMPLES_FILE: sft_data.examples_table(kept),
                DROPPED_FILE: sft_data.dropped_table(prepared),
                REPORT_FILE: sft_data.report_table(prepared),
            },
            rows_in=len(examples),
            kept=len(kept),
            dropped=dropped,
            bytes_in=sum(ref.bytes for ref in given),
            counts={**counts, "truncated": sum(p.truncated for p in prepared)},
            warnings=[
                *tuning.dropped_sentence("examples", dropped, len(examples), counts),
                *([f"{cut} examples are longer than the model's context of {context} tokens, and learned up to there."] if cut else []),
                *seam(encoder),
            ],
        )

    def _model(self, run: StageRun, start: tuning.StartModel, identity: str) -> Output:
        """Trains. A killed run resumes from the state under the task's identity.

        Where the template needs tokens that the start model lacks, training starts from a copy of the model that has them.
        """
        from corpusmill.train.checkpoint_dir import START, CheckpointDir
        from corpusmill.train.sft_job import new_ids, prepared_folder
        from corpusmill.train.template import choose_chat, load_chat

        folder, checkpoint_dir = start.storage, CheckpointDir.of(run, identity)
        encoder = choose_chat(folder, self.config.template)
        if self.config.lora.rank and new_ids(load_chat(folder), encoder):
            what = f"the template {self.config.template} needs tokens that {start.folder} lacks"
            raise InputError(f"sft.lora.rank: {what}, and an adapter can't learn them; set it to 0, or take another template.")
        if prepared_folder(folder, encoder, checkpoint_dir.folder / START) is not folder:
            checkpoint_dir.keep(START)
            start = replace(start, folder=Storage(checkpoint_dir.work).path(START))
        trained = tuning.train(run, "corpusmill.train.sft_job:train", self.config, start, checkpoint_dir)
        Storage(checkpoint_dir.work).remove_folder(START)
        return trained
