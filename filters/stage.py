"""The filter stage: measures every document with every step of the recipe, then decides which ones go on."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from corpusmill.filters.presets import expand
from corpusmill.filters.registry import NamedStep, build_steps, resolve_step
from corpusmill.filters.rules import StepRule, decide, rules_metadata, with_thresholds
from corpusmill.filters.step import Batch
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.schemas import REPORT, with_columns
from corpusmill.pipeline.shards import iter_tables, open_parquet
from corpusmill.pipeline.stage import Output, Piece, Stage, Worker, documents_output
from corpusmill.pipeline.storage import Storage


def _resolve(item: Any, info: ValidationInfo) -> dict[str, dict[str, Any]]:
    return resolve_step(item, (info.context or {}).get("folder", "."))


StepItem = Annotated[dict[str, dict[str, Any]], BeforeValidator(_resolve)]


class FilterConfig(Config):
    """Which values are measured, in which order, and which of them decide."""

    preset: str | None = Field(
        None, description="Steps, word rule and thresholds of a published pipeline (filters/presets.py); the keys below go before its own."
    )
    language: str | None = Field(None, description="Of the preset fineweb-2: whose thresholds, as fra_Latn, fra or fr.")
    word_rule: Literal["words", "whitespace", "characters", "spacy"] = Field(
        "words",
        description="`words`: a run of letters, digits and underscores, or one symbol; `whitespace`: what stands between spaces; "
        "`characters`: as `words`, and each character of a script without spaces (Han, kana, Thai, Lao, Khmer, Myanmar, Tibetan); "
        "`spacy`: the tokens of spaCy's English tokenizer, as datatrove has them.",
    )
    steps: list[StepItem] = Field(
        [{"language": {}}, {"gopher_repetition": {}}, {"gopher_quality": {}}, {"quality": {}}],
        validate_default=True,
        description="The steps in order, each a name with its options: `- language: {keep: [en]}`.",
    )
    thresholds: dict[str, int | float | None] = Field(
        {}, description="Other thresholds than the steps' own, by the name of the rule; null or off switches a rule off, on restores it."
    )

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, section: Any) -> Any:
        if not isinstance(section, Mapping):
            return section
        thresholds = section.get("thresholds")
        if isinstance(thresholds, Mapping):  # YAML reads on and off as true and false
            switched = {name: None if value is False else value for name, value in thresholds.items() if value is not True}
            section = {**section, "thresholds": switched}
        return expand(section)

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        steps = build_steps(self.steps)
        for names, what in (
            ([name for step in steps for name in step.columns] + REPORT.names, "column"),
            ([rule.rule.name for step in steps for rule in step.rules], "rule"),
        ):
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                raise ValueError(f"steps: two {what}s have the name {twice[0]}")
        with_thresholds(_step_rules(steps), self.thresholds)
        return self


def _step_rules(steps: list[NamedStep]) -> list[StepRule]:
    return [rule for step in steps for rule in step.rules]


def rule_table(config: FilterConfig) -> list[StepRule]:
    """Every rule that decides under a configuration, with its step and threshold, in the order of the report."""
    return with_thresholds(_step_rules(build_steps(config.steps)), config.thresholds)


class FilterStage(Stage):
    name = "filter"
    Config = FilterConfig
    config: FilterConfig

    def execute(self, run: StageRun) -> None:
        gpus = max((step.step.gpus for step in build_steps(self.config.steps)), default=0.0)
        run.map("", FilterWorker, *self.tasks(run), gpus=gpus)

    def tasks(self, run: StageRun) -> tuple[list[Piece], dict[str, Any]]:
        """A piece for each shard that comes in, and the parameters of all."""
        pieces = [Piece(PurePosixPath(shard.path).stem, (shard,)) for shard in run.documents()]
        files = [path for step in build_steps(self.config.steps) for path in step.step.model_files()]
        return pieces, {"models": [_file_digest(path) for path in files]}

    def summary(self, run: StageRun) -> dict[str, str]:
        """How many documents each rule fails, the most severe first."""
        failed: dict[str, int] = {}
        for row in run.manifest.rows():
            for name, count in row.counts.items():
                failed[name] = failed.get(name, 0) + count
        most = sorted((item for item in failed.items() if item[1]), key=lambda item: (-item[1], item[0]))
        return {"failed": ", ".join(f"{name.removeprefix('failed ')} {count:,}" for name, count in most[:8])} if most else {}


def _file_digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}).") from error


class FilterWorker(Worker):
    """Measures the documents of one shard and decides about them."""

    config: FilterConfig

    def __init__(self, config: FilterConfig, run: Storage, params: dict[str, Any]):
        super().__init__(config, run, params)
        self.steps = build_steps(config.steps)
        self.rules = rule_table(config)

    def setup(self) -> None:
        for step in self.steps:
            step.step.setup()

    def process(self, piece: Piece) -> Output:
        (shard,) = piece.inputs
        for step in self.steps:
            step.step.begin()
        with open_parquet(self.run, shard.path) as file:
            schema = file.schema_arrow.remove_metadata()
        if "text" not in schema.names:
            raise InputError(f"{self.run.path(shard.path)}: has no column text (it has {', '.join(schema.names)}).")
        data_schema, report_schema = self.schemas(schema)
        data, reports, size = [], [], 0
        for documents in iter_tables(self.run, shard.path):
            kept, report = self.filter(documents, shard)
            data.append(kept.select(data_schema.names).cast(data_schema))
            reports.append(report.select(report_schema.names).cast(report_schema))
            size += pc.sum(pc.binary_length(documents["text"])).as_py() or 0
        report = pa.concat_tables(reports) if reports else report_schema.empty_table()
        report = report.replace_schema_metadata(rules_metadata(self.rules))
        kept = pa.concat_tables(data) if data else data_schema.empty_table()
        return documents_output(piece.key, kept, report, bytes_in=size, counts=self.failures(report))

    def schemas(self, documents: pa.Schema) -> tuple[pa.Schema, pa.Schema]:
        """The schemas of the documents that go on and of the report, given that of the documents that come in."""
        fields = [pa.field(name, kind) for step in self.steps for name, kind in step.columns.items()]
        by_name = {field.name: field for field in fields}
        added = [by_name[name].with_name(column) for column, name in self._document_columns().items()]
        return with_columns(documents, added), with_columns(REPORT, fields)

    def filter(self, documents: pa.Table, shard: FileRef) -> tuple[pa.Table, pa.Table]:
        """The documents that go on, with the columns that the steps add, and a report row for every one."""
        text = self._checked_text(documents, shard)
        values, new_text = self.measure(documents, text)
        failed = decide(self.rules, values, len(text))
        kept = pc.equal(pc.list_value_length(failed), 0)
        report = pa.table(
            {
                "id": documents["id"],
                "url": documents["url"],
                "kept": kept,
                "failed": failed,
                "chars_in": pc.utf8_length(text),
                "chars_out": pc.if_else(kept, pc.utf8_length(new_text), 0),
                **values,
            }
        )
        return self.with_values(documents, new_text, values).filter(kept), report

    def with_values(self, documents: pa.Table, text: pa.Array, values: Mapping[str, Any]) -> pa.Table:
        """Documents as they would go on: with their new texts and the columns that the steps add."""
        data = documents.set_column(documents.schema.get_field_index("text"), "text", text)
        for column, name in self._document_columns().items():
            place = data.schema.get_field_index(column)
            data = data.append_column(column, values[name]) if place < 0 else data.set_column(place, column, values[name])
        return data

    def rewrite(self, documents: pa.Table, values: Mapping[str, Any]) -> pa.Array:
        """The texts as the last step leaves them, by the steps that rewrite alone. `values` has the columns of all steps."""
        text, so_far = documents["text"].combine_chunks(), dict[str, Any]()
        for step in self.steps:
            if step.step.rewrites:
                new_text = step.step.measure(Batch(documents, text, self.config.word_rule, values=so_far)).text
                text = text if new_text is None else new_text
            so_far.update({name: values[name] for name in step.columns})
        return text

    def measure(self, documents: pa.Table, text: pa.Array) -> tuple[dict[str, pa.Array], pa.Array]:
        """All values of all steps by column, and the texts as the last step leaves them."""
        columns: dict[str, pa.Array] = {}
        batch = self._batch(documents, text, 0, columns)
        for place, step in enumerate(self.steps):
            measured = step.step.measure(batch)
            for (name, kind), plain in zip(step.columns.items(), step.step.columns):
                columns[name] = pa.array(measured.columns[plain], kind)
            if measured.text is not None:
                batch = self._batch(documents, measured.text, place + 1, columns, measured.token_marks)
        return columns, batch.text

    def _batch(self, documents: pa.Table, text: pa.Array, place: int, values: Mapping[str, pa.Array], token_marks: Any = None) -> Batch:
        """A batch whose statistics are measured once for all steps from `place` to the next that rewrites."""
        planned = []
        for step in self.steps[place:]:
            planned.append(step.step.needs)
            if step.step.rewrites:
                break
        return Batch(documents, text, self.config.word_rule, planned, values, token_marks)

    def _checked_text(self, documents: pa.Table, shard: FileRef) -> pa.Array:
        column = documents["text"].combine_chunks()
        where = self.run.path(shard.path)
        if not pa.types.is_large_string(column.type):
            raise InputError(f"{where}: the column text is {column.type}, not large_string.")
        if column.null_count:
            raise InputError(f"{where}: a document has no text (null).")
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise InputError(f"{where}: a text is not valid UTF-8 ({error}).") from error
        return column

    def _document_columns(self) -> Mapping[str, str]:
        """Columns that documents get, and the report's columns that they come from: the last step of a kind has its way."""
        return {column: column + step.suffix for step in self.steps for column in step.step.document_columns}

    def failures(self, report: pa.Table) -> dict[str, int]:
        """How many rows fail each rule."""
        failed = dict.fromkeys((f"failed {rule.rule.name}" for rule in self.rules), 0)
        for item in pc.value_counts(pc.list_flatten(report["failed"])).to_pylist():
            failed[f"failed {item['values']}"] = item["counts"]
        return failed
